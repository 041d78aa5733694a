"""Run all steps of a scenario."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from moesim.hardware import provenance
from moesim.results import Collector, Result, versions
from moesim.scenario import Scenario
from moesim.simulation.conditions import GpusLostError, conditions_of
from moesim.simulation.plan import RunPlan
from moesim.simulation.prepare import prepare
from moesim.simulation.profile import Profile
from moesim.simulation.routing_step import route_step
from moesim.simulation.sampling import resolve_sampling
from moesim.simulation.state import start
from moesim.simulation.step import after_routing, run_step
from moesim.simulation.targets import with_solved_target
from moesim.simulation.threads import threads_or_default

Progress = Callable[[int, int], None]


def check(scenario: Scenario) -> None:
    """Check what a scenario alone cannot: names and parameters of strategy and placement, trace, memory, run size.

    Raises:
        InputError: one line that names the file, line and field, what was found and what would be right.
    """
    prepared(scenario)


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A scenario with `workload.sampling` and a target decided, and the plan of its run."""

    scenario: Scenario
    plan: RunPlan


def prepared(scenario: Scenario) -> PreparedRun:
    """A scenario that has been checked and is ready to run; errors are those of `check`."""
    scenario = with_solved_target(resolve_sampling({"": scenario})[""])
    return PreparedRun(scenario=scenario, plan=prepare(scenario))


def simulate(scenario: Scenario, *, progress: Progress | None = None, threads: int | None = None) -> Result:
    """Run a scenario and return its frames, summary and manifest.

    Args:
        scenario: what to simulate; its `compare` and `sweep` are ignored.
        progress: called with (steps done, steps in all) after each step.
        threads: worker threads over the MoE layers (default: MOESIM_THREADS or
            the processors of this process); the result does not depend on it.

    Raises:
        InputError: the scenario is wrong (see `check`), or there are no threads.
        ConservationError: tokens, bytes or time were lost, which is a bug.
    """
    return run(prepared(scenario), progress=progress, threads=threads)


def run(ready: PreparedRun, *, progress: Progress | None = None, threads: int | None = None) -> Result:
    """Run a scenario that has been prepared; the other arguments, result and errors are those of `simulate`."""
    scenario, plan = ready.scenario, ready.plan
    n_threads = threads_or_default(threads)
    profile, collector = (
        Profile(),
        Collector(model=plan.model, cluster=plan.cluster, keep=plan.keep, target=plan.target),
    )
    state = start(plan)
    with ThreadPoolExecutor(max_workers=n_threads) as pool:
        for batch in plan.batches():
            number = plan.measured_step(batch)
            if number < 0:  # a warm-up step lets routers evolve and takes no time
                routed = route_step(plan, state, batch, pool=pool, profile=profile)
                state = after_routing(state, routed)
            else:
                try:
                    outcome = run_step(plan, state, batch, conditions_of(plan, state), pool=pool, profile=profile)
                except GpusLostError as error:
                    wanted = "recovery_s, or fewer steps: no more of them can begin"
                    raise scenario.error("faults", str(error), wanted) from None
                with profile.timed("metrics"):
                    collector.add(number, outcome.routed, outcome.times, outcome.balanced_ps)
                state = outcome.state
            if progress is not None:
                progress(batch.step + 1, plan.warmup_steps + plan.n_steps)
    with profile.timed("metrics"):
        return collector.result(
            scenario=scenario.resolved(),
            scenario_yaml=scenario.resolved_yaml(),
            manifest=_manifest(scenario, plan),
            profile=profile.seconds,
        )


def _manifest(scenario: Scenario, plan: RunPlan) -> dict[str, Any]:
    """What the result rests on: versions, seed, inputs with checksums, provenance."""
    kernels = plan.kernels
    manifest: dict[str, Any] = {
        "versions": versions(),
        "seed": plan.seed,
        "engine": plan.engine,
        "provenance": {
            **scenario.provenance,
            "kernel times": provenance(kernels, plan.cluster.gpu, plan.precision),
        },
        "inputs": [],
    }
    if scenario.warnings:
        manifest["warnings"] = [notice.without_folder() for notice in scenario.warnings]
    if kernels.measured is not None:
        tables = kernels.measured
        manifest["provenance"] |= {f"time of {part}": text for part, text in tables.provenance().items()}
        manifest["inputs"] = [{"name": name, "sha256": digest} for name, digest in tables.files.items()]
        manifest["table"] = {"name": tables.name, "sha256": tables.sha256, "sizes": tables.sizes()}
    if kernels.file:
        manifest["kernels"] = {
            "name": kernels.file,
            "sha256": kernels.sha256,
            "gpu": kernels.gpu,
            "constants": {noun: [*groups] for noun, groups in kernels.constants.items()},
        }
    name, digest = plan.tokens_file
    if digest:
        manifest["inputs"].append({"name": name, "sha256": digest})
    tokens = plan.source.manifest(plan.n_steps)
    recorded = tokens.pop("recorded_layers", None)
    if recorded is not None:
        manifest["provenance"]["tokens"] += f" of {recorded}"
    estimated = tokens.pop("bytes", None)
    if estimated is not None:
        manifest["provenance"]["bytes"] = estimated
    return manifest | tokens
