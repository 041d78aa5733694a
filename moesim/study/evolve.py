"""A router over many steps without the engine: only tokens, choices and what balances them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim import metrics
from moesim.errors import InputError
from moesim.scenario import Scenario
from moesim.simulation.plan import RunPlan
from moesim.simulation.prepare import prepare
from moesim.simulation.routing_step import route_step
from moesim.simulation.state import RunState, start
from moesim.simulation.step import after_routing
from moesim.simulation.threads import threads_or_default
from moesim.types import RoutedStep

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]


def evolve(
    scenario: Scenario,
    *,
    evaluate_every: int = 0,
    evaluation_steps: int = 8,
    progress: Progress | None = None,
    threads: int | None = None,
) -> pd.DataFrame:
    """Route the steps of a scenario whose router evolves (`routing.training`), and nothing more.

    Loads, drops and the router's state are those of `simulate`; there are no
    times. Thousands of steps take seconds.

    Args:
        scenario: its `workload.steps` follow its warm-up steps; all of them are returned.
        evaluate_every: after so many steps, and after the last, route `evaluation_steps` steps of tokens that follow
            those of the run with the router as it stands; their loads together give MaxVio_global (Wang et al. 2024).
            0 = never.
        evaluation_steps: see there.
        progress: called with (steps done, steps in all).
        threads: over layers; the result does not depend on it.

    Returns:
        A row a step and MoE layer: step, layer, max_violation, entropy, dead_experts, drop_rate, aux_loss, z_loss,
        bias_min, bias_max, popularity_shift_std and max_violation_global (NaN where it was not evaluated).

    Raises:
        InputError: the scenario is wrong, its router does not evolve, or its loads depend on times.
    """
    import pandas as pd

    n_threads = threads_or_default(threads)
    plan = prepare(scenario)
    for i, fault in enumerate(scenario.spec.faults):
        if fault.kind == "gpu-failure":
            raise scenario.error(f"faults.{i}.kind", "gpu-failure", "another fault, or simulate, which has times")
    if plan.queues is not None:
        raise scenario.error("simulation.experts", "queued", "grouped, or simulate, which has queues")
    if plan.training is None:
        raise scenario.error("routing.training", None, "a mechanism: the router of this scenario does not evolve")
    if evaluate_every < 0 or evaluation_steps < 1:
        raise InputError("evaluate_every: wanted 0 or more, and one evaluation step or more")
    total = plan.warmup_steps + plan.n_steps
    state, rows = start(plan), []
    with ThreadPoolExecutor(max_workers=n_threads) as pool:
        for batch in plan.batches():
            routed = route_step(plan, state, batch, pool=pool)
            state, done = after_routing(state, routed), batch.step + 1
            rows.append(_rows(batch.step, plan.model.moe_layers, routed))
            if evaluate_every and (done % evaluate_every == 0 or done == total):
                rows[-1]["max_violation_global"] = _global_violation(plan, state, pool, evaluation_steps)
            if progress is not None:
                progress(done, total)
    return pd.concat(rows, ignore_index=True)


def _rows(step: int, layers: Sequence[int], routed: RoutedStep) -> pd.DataFrame:
    """A row for every MoE layer of a step."""
    import pandas as pd

    router = routed.router
    assert router is not None
    return pd.DataFrame(
        {
            "step": step,
            "layer": layers,
            "max_violation": metrics.max_violation(routed.requested),
            "entropy": metrics.normalised_entropy(routed.requested),
            "dead_experts": metrics.dead_experts(routed.requested),
            "drop_rate": routed.dropped.sum(axis=1) / np.maximum(1, routed.requested.sum(axis=1)),
            "aux_loss": router.aux_loss,
            "z_loss": router.z_loss,
            "bias_min": router.bias_min,
            "bias_max": router.bias_max,
            "popularity_shift_std": router.shift_std,
            "max_violation_global": np.nan,
        }
    )


def _global_violation(plan: RunPlan, state: RunState, pool: Executor, n_steps: int) -> NDArray[np.float64]:
    """MaxVio of each layer over the steps that follow the run's, with the routers as they stand, [L]."""
    first = plan.warmup_steps + plan.n_steps
    load = sum(
        route_step(plan, state, plan.source.batch(step), pool=pool).requested for step in range(first, first + n_steps)
    )
    return metrics.max_violation(np.asarray(load))
