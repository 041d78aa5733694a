"""The popularity of the experts where a scenario states their load: by counts, or by a law of few numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError, ParameterError
from moesim.routing import STRATEGIES, Strategy
from moesim.scenario import Scenario
from moesim.scenario.fitted import fit_for, fitted_path, layers_of_fit
from moesim.scenario.schema import LOAD_KINDS, PopularitySpec
from moesim.simulation.sampling import router_of
from moesim.simulation.threads import default_threads
from moesim.types import Draw
from moesim.workload import (
    dirichlet_loads,
    fitted_loads,
    hot_loads,
    lognormal_loads,
    power_law_loads,
    read_counts,
    solve_layer,
    stated_loads,
)

Load = NDArray[np.float64]
Popularity = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Affinities of the topics [L, topics, E] -> popularities [L, E]."""

_SEED = 0
"""Of the tokens that routers are tried out with, so that a file of counts is solved once for all seeds."""
_MAX_SOLVED = 16
_solved: dict[str, tuple[Strategy[Any], NDArray[np.float32]]] = {}
"""By what they depend on; with the strategy, whose identity is part of that. Variants and points share them."""


def popularity_of(scenario: Scenario, layers: Sequence[int] | None = None) -> tuple[Popularity | None, tuple[str, str]]:
    """A function that finds the popularity of a stated load, None without one; name and sha256 of its file, or "", "".

    Args:
        scenario: with a target solved.
        layers: for which it is found, by number among the MoE layers; others have zeros. None = all.

    Raises:
        ScenarioError: a file of counts that is wrong or does not fit the model; when called, a load that the router
            cannot give.
    """
    stated, model = scenario.spec.workload.popularity, scenario.model
    shape = scenario.spec.seed, len(model.moe_layers), model.n_experts
    file = "", ""
    if stated.kind not in LOAD_KINDS or scenario.spec.workload.trace is not None:
        return None, file
    if stated.kind == "counts":
        assert stated.counts is not None
        name = Path(stated.counts).name
        try:
            load, digest = read_counts(
                stated.counts, n_layers=model.n_layers, moe_layers=model.moe_layers, n_experts=model.n_experts
            )
        except ParameterError as error:
            raise scenario.error("workload.popularity.counts", f"{error.found} in {name}", error.wanted) from None
        file = name, digest
    elif stated.kind == "fitted":
        assert stated.from_ is not None
        name = fitted_path(stated.from_).name
        try:
            fit, digest = fit_for(stated, scenario.spec.model)
        except ParameterError as error:
            raise scenario.error("workload.popularity.from", f"{error.found} in {name}", error.wanted) from None
        load = fitted_loads(scenario.spec.seed, fit.shares, *layers_of_fit(fit, model.moe_layers))
        file = name, digest
    else:
        load = _LOADS[stated.kind](scenario, stated, *shape)
    return partial(_solve, scenario, load / load.sum(axis=1, keepdims=True), layers), file


def _shares(scenario: Scenario, stated: PopularitySpec, seed: int, n_layers: int, n_experts: int) -> Load:
    del scenario, seed, n_experts
    return stated_loads(n_layers, stated.shares)


def _hot(scenario: Scenario, stated: PopularitySpec, seed: int, n_layers: int, n_experts: int) -> Load:
    del scenario
    assert stated.share is not None
    assert stated.experts is not None
    return hot_loads(seed, n_layers, n_experts, share=stated.share, experts=stated.experts)


def _lognormal(scenario: Scenario, stated: PopularitySpec, seed: int, n_layers: int, n_experts: int) -> Load:
    del scenario
    fields = {name: getattr(stated, name) for name in ("sigma", "groups", "group_exponent", "group_sigma")}
    return lognormal_loads(seed, n_layers, n_experts, **fields)


def _power_law(scenario: Scenario, stated: PopularitySpec, seed: int, n_layers: int, n_experts: int) -> Load:
    """Loads of a step's tokens of an expert-parallel group, by its ranks where these divide the experts."""
    parallel, placement = scenario.parallelism, scenario.spec.placement
    sources = scenario.cluster.n_gpus - (placement.expert_gpus or 0)
    groups = 1 if placement.expert_gpus else scenario.cluster.n_gpus // parallel.group_gpus
    ranks = placement.expert_gpus or parallel.expert
    assert stated.alpha is not None
    return power_law_loads(
        seed,
        n_layers,
        n_experts,
        alpha=stated.alpha,
        tokens=(scenario.spec.workload.tokens_per_gpu or 1) * sources // groups,
        top_k=_top_k(scenario),
        ranks=ranks if n_experts % ranks == 0 else 1,
    )


def _dirichlet(scenario: Scenario, stated: PopularitySpec, seed: int, n_layers: int, n_experts: int) -> Load:
    assert stated.concentration is not None
    return dirichlet_loads(seed, n_layers, n_experts, concentration=stated.concentration, top_k=_top_k(scenario))


def _top_k(scenario: Scenario) -> int:
    """Choices of the router that the load is of."""
    router = scenario.spec.workload.popularity.router
    return (router.top_k if router is not None else None) or scenario.model.top_k


_LOADS: Mapping[str, Callable[[Scenario, PopularitySpec, int, int, int], Load]] = {
    "lognormal": _lognormal,
    "power-law": _power_law,
    "dirichlet": _dirichlet,
    "hot": _hot,
    "shares": _shares,
}
"""Shares [L, E] of each kind that states a load and needs no file."""


def _solve(
    scenario: Scenario, share: NDArray[np.float64], layers: Sequence[int] | None, affinity: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The popularity [L, E] with which the router of the stated load gives these shares [L, E]."""
    strategy, parameters, top_k = router_of_load(scenario)
    digest = hashlib.sha256(share.tobytes() + affinity.tobytes())
    digest.update(repr((strategy.name, id(strategy.route), parameters, top_k)).encode())
    key = digest.hexdigest()
    if layers is None and key in _solved:
        return _solved[key][1]

    def choices(logits: NDArray[np.float32], number: int, layer: int) -> NDArray[np.int32]:
        draw = Draw(seed=_SEED, step=number, layer=layer, first_token=0, token_ids=None)
        return strategy.route(logits, top_k, parameters, None, draw).expert

    n_groups = strategy.groups(parameters)[1] if strategy.name in STRATEGIES else None

    def solved(layer: int) -> NDArray[np.float32]:
        zero = strategy.zero_experts(parameters)
        return solve_layer(
            _SEED, layer, share[layer], top_k, affinity[layer], choices, n_groups=n_groups, n_zero_experts=zero
        )

    try:
        with ThreadPoolExecutor(default_threads()) as pool:
            wanted = range(len(share)) if layers is None else layers
            popularity = np.zeros(share.shape, dtype=np.float32)
            popularity[list(wanted)] = list(pool.map(solved, wanted))
    except ParameterError as error:
        counts = scenario.spec.workload.popularity.counts
        found = f"{error.found}{f' in {Path(counts).name}' if counts else ''}"
        raise scenario.error("workload.popularity", found, f"{error.wanted} ({strategy.name})") from None
    if layers is not None:
        return popularity
    while len(_solved) >= _MAX_SOLVED:
        _solved.pop(next(iter(_solved)))
    _solved[key] = strategy, popularity
    return popularity


def router_of_load(scenario: Scenario) -> tuple[Strategy[Any], Any, int]:
    """The router that the stated load is of; the model's own, or a plain top-k, where its loads ignore popularity."""
    routing, model = scenario.spec.routing, scenario.model
    stated = scenario.spec.workload.popularity.router
    assert stated is not None  # resolved
    top_k = stated.top_k or model.top_k
    own = {"strategy": model.router, "parameters": dict(model.router_parameters)}
    for fields in ({"strategy": stated.strategy, "parameters": stated.parameters}, own):
        try:
            found, parameters = router_of(scenario.with_parts(routing=routing.model_copy(update=fields)), model)
            found.validate(model.n_experts + found.zero_experts(parameters), top_k, parameters)
        except InputError as error:
            raise scenario.error("workload.popularity.router", fields["strategy"], str(error)) from None
        if found.scope == "token" and found.obeys_mask:
            return found, parameters, top_k
    plain = {"strategy": "softmax-top-k", "parameters": {}}
    return *router_of(scenario.with_parts(routing=routing.model_copy(update=plain)), model), top_k
