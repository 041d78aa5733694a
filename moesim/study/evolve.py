"""A router over many steps without the engine: only tokens, choices and what balances them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from moesim import metrics
from moesim.errors import InputError
from moesim.scenario import Scenario
from moesim.simulation.evolution import initial_states
from moesim.simulation.prepare import prepare
from moesim.simulation.profile import Profile
from moesim.simulation.routed import route_step
from moesim.simulation.stages import threads_or_default

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
    stages = prepare(scenario)
    for i, fault in enumerate(scenario.spec.faults):
        if fault.kind == "gpu-failure":
            raise scenario.error(f"faults.{i}.kind", "gpu-failure", "simulate, which knows what time it is")
    if stages.queued:
        raise scenario.error("simulation.experts", "queued", "grouped, or simulate, which has queues")
    states = initial_states(stages)
    if states is None:
        raise scenario.error("routing.training", None, "a mechanism: the router of this scenario does not evolve")
    if evaluate_every < 0 or evaluation_steps < 1:
        raise InputError("evaluate_every: wanted 0 or more, and one evaluation step or more")
    total = scenario.spec.simulation.warmup_steps + stages.n_steps
    profile, rows = Profile(), []
    with ThreadPoolExecutor(max_workers=n_threads) as pool:
        for step in range(total):
            routed = route_step(stages, step, pool, profile, states)
            router = routed.router
            assert router is not None
            rows.append(
                pd.DataFrame(
                    {
                        "step": step,
                        "layer": stages.model.moe_layers,
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
            )
            if evaluate_every and ((step + 1) % evaluate_every == 0 or step + 1 == total):
                load = sum(
                    route_step(stages, total + i, pool, profile, list(states)).requested
                    for i in range(evaluation_steps)
                )
                rows[-1]["max_violation_global"] = metrics.max_violation(np.asarray(load))
            if progress is not None:
                progress(step + 1, total)
    return pd.concat(rows, ignore_index=True)
