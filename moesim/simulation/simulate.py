"""Run all steps of a scenario."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from moesim.hardware import payload_bytes, provenance
from moesim.results import Collector, Result, versions
from moesim.scenario import Scenario
from moesim.simulation.evolution import initial_states
from moesim.simulation.losses import Lost
from moesim.simulation.prepare import prepare
from moesim.simulation.profile import Profile
from moesim.simulation.routed import route_step
from moesim.simulation.runner import Runner
from moesim.simulation.stages import Stages, threads_or_default
from moesim.types import RoutedStep, RouterState
from moesim.workload import RecordedTokens

Progress = Callable[[int, int], None]
States = list[RouterState] | None


def check(scenario: Scenario) -> None:
    """Check what only the stages know: strategy and placement names and parameters, trace, memory, run size.

    Raises:
        InputError: one line that names the file, line and field, what was found and what would be right.
    """
    prepare(scenario)


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
    n_threads = threads_or_default(threads)
    stages = prepare(scenario)
    scenario = stages.scenario  # with what was left open decided
    profile = Profile()
    spec = scenario.spec
    warmup = spec.simulation.warmup_steps
    collector = Collector(
        model=stages.model,
        cluster=stages.cluster,
        placement=stages.placement,
        keep_experts=spec.keep.experts,
        keep_links=spec.keep.links,
        keep_timeline_steps=spec.keep.timeline_steps,
    )
    total = warmup + stages.n_steps
    states = initial_states(stages)
    payload = {
        "dispatch_bytes": payload_bytes(stages.model.hidden_size, stages.precision.dispatch),
        "combine_bytes": payload_bytes(stages.model.hidden_size, stages.precision.combine),
    }
    run = Runner(stages, payload, profile)
    with ThreadPoolExecutor(max_workers=n_threads) as pool:
        for step in range(total):
            before, lost = None if states is None else list(states), run.lost(step >= warmup)
            routed = route_step(stages, step, pool, profile, states, lost)
            if step >= warmup:

                def route_again(lost: Lost, step: int = step, before: States = before) -> RoutedStep:
                    return route_step(stages, step, pool, profile, None if before is None else list(before), lost)

                run.step(step, routed, lost, route_again, collector, number=step - warmup)
            if progress is not None:
                progress(step + 1, total)
    with profile.timed("metrics"):
        return collector.result(
            scenario=scenario.resolved(),
            scenario_yaml=scenario.resolved_yaml(),
            manifest=_manifest(stages),
            profile=profile.seconds,
        )


def _manifest(stages: Stages) -> dict[str, Any]:
    """What the result rests on: versions, seed, inputs with checksums, provenance."""
    kernels = stages.kernels
    manifest: dict[str, Any] = {
        "versions": versions(),
        "seed": stages.scenario.spec.seed,
        "engine": stages.engine,
        "provenance": {
            **stages.scenario.provenance,
            "kernel times": provenance(kernels, stages.cluster.gpu, stages.precision),
        },
        "inputs": [],
    }
    if stages.scenario.warnings:
        manifest["warnings"] = [notice.without_folder() for notice in stages.scenario.warnings]
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
    name, digest = stages.tokens_file
    if digest:
        manifest["inputs"].append({"name": name, "sha256": digest})
    if isinstance(stages.source, RecordedTokens):
        trace = stages.source.trace
        manifest["trace_passes"] = stages.source.passes(stages.n_steps)
        if trace.n_recorded_layers < trace.n_layers:
            manifest["provenance"]["tokens"] += f" of {trace.n_recorded_layers} of {trace.n_layers} MoE layers"
    return manifest
