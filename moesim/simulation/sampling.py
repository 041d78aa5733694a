"""How the choices of synthetic tokens are drawn: through their logits, or directly (`moesim.workload.direct`).

Direct sampling is exact if the router is a plain top-k, tokens are drawn
independently (no locality) and no policy reads weights. All runs of a study draw alike, so that they see the same
tokens; which way is decided once, for all of them, and written into each
scenario. A run that is repeated alone from its resolved scenario then sees the
tokens that it saw in the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from moesim.errors import InputError, ScenarioError
from moesim.routing import OVERFLOWS, Strategy, parameters_for, strategy
from moesim.scenario import Scenario
from moesim.types import LayerShape

Key = TypeVar("Key")


def resolve_sampling(runs: Mapping[Key, Scenario]) -> dict[Key, Scenario]:
    """The runs of a study with `workload.sampling: auto` decided for all of them.

    It is "direct" where that is exact for every run and no run asks for logits, else "logits".
    """
    direct = all(run.spec.workload.sampling != "logits" and why_not_direct(run) is None for run in runs.values())
    return {
        name: run.with_sampling("direct" if direct else "logits") if run.spec.workload.sampling == "auto" else run
        for name, run in runs.items()
    }


def check_sampling(scenario: Scenario) -> None:
    """Refuse `workload.sampling: direct` where it is not exact.

    Raises:
        ScenarioError: what needs the logits.
    """
    found = why_not_direct(scenario) if scenario.spec.workload.sampling == "direct" else None
    if found is not None:
        raise found


def why_not_direct(scenario: Scenario) -> ScenarioError | None:
    """Why the choices of a scenario cannot be drawn directly, or None."""
    spec = scenario.spec
    if spec.workload.trace is not None:
        why: str | None = "the trace holds the choices"
    elif spec.workload.pattern is not None:
        return None  # nothing is drawn
    elif any(spec.workload.locality):
        fit = spec.workload.popularity.name
        of = f", which the popularity {fit} states," if spec.workload.popularity.kind == "fitted" else ""
        why = f"workload.locality{of} shares noise of logits among tokens"
    elif not _order_only(scenario):
        why = f"routing.strategy {spec.routing.strategy} reads more of the logits than their order"
    else:
        why = what_reads_scores(scenario)
    return None if why is None else scenario.error("workload.sampling", "direct", f"logits or auto: {why}")


def what_reads_scores(scenario: Scenario) -> str | None:
    """Which policy beyond the router reads logits, scores or weights; None = no policy does."""
    spec = scenario.spec
    capacity = spec.routing.capacity
    if spec.routing.training is not None:
        return "routing.training changes the logits from step to step"
    if spec.routing.substitution is not None:
        return f"routing.substitution {spec.routing.substitution.policy} reads scores"
    if capacity is not None and capacity.overflow in OVERFLOWS and OVERFLOWS[capacity.overflow].reads_scores:
        return f"routing.capacity.overflow {capacity.overflow} ranks by weight"
    if spec.simulation.queue_tokens is not None and spec.simulation.queue_overflow == "next":
        return "simulation.queue_overflow next asks for the scores of other experts"
    return None


def _order_only(scenario: Scenario) -> bool:
    layers = [each.shape for each in scenario.model.layers if each.shape.n_experts]
    try:
        routers = [router_of(scenario, layer) for layer in layers]
    except InputError:  # an unknown name or parameter, which is refused under its own field
        return False
    return all(found.order_only(parameters) for found, parameters in routers)


def router_of(scenario: Scenario, layer: LayerShape) -> tuple[Strategy[Any], Any]:
    """The strategy of a layer with its parameters.

    What a router does in training only it does by default where the phase is train.

    Raises:
        InputError: an unknown strategy.
        ParameterError: a parameter that the strategy does not have, or cannot have.
    """
    routing, model = scenario.spec.routing, scenario.model
    name = routing.strategy or model.router
    given = {**(model.router_parameters if name == model.router else {}), **routing.parameters}
    if has_own_router(scenario, layer):
        name, given = layer.router, dict(layer.router_parameters)
    found = strategy(name)
    by_phase = {} if scenario.spec.workload.phase == "train" else found.at_inference
    return found, parameters_for(found, {**by_phase, **given})


def has_own_router(scenario: Scenario, layer: LayerShape) -> bool:
    """Whether a layer's router is not the model's, and the scenario names no other one for all layers."""
    model = scenario.model
    differs = (layer.router, layer.router_parameters) != (model.router, model.router_parameters)
    return differs and scenario.spec.routing.strategy in (None, model.router)
