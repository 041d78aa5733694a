"""Run all steps of a scenario."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.engine import ENGINES, balanced_traffic, lay_out
from moesim.hardware import PROVENANCE, Durations, exchange_rates, payload_bytes, step_durations
from moesim.metrics import clocked, clocked_queues
from moesim.results import Collector, Result, versions
from moesim.scenario import Scenario
from moesim.simulation import queued
from moesim.simulation.evolution import initial_states
from moesim.simulation.faults import Faults
from moesim.simulation.losses import FOR_EVER, Lost, break_off, progress_of, usable_slots
from moesim.simulation.routed import Profile, micro_batches_of, route_step
from moesim.simulation.stages import Stages, default_threads, prepare
from moesim.types import Clocked, Program, RoutedStep, RouterState, Timeline, Traffic
from moesim.workload import RecordedTokens

Progress = Callable[[int, int], None]
Ill = Callable[[Program], Program]
RouteAgain = Callable[[Lost], RoutedStep]
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
        InputError: the scenario is wrong (see `check`).
        ConservationError: tokens, bytes or time were lost, which is a bug.
    """
    stages = prepare(scenario)
    scenario = stages.scenario  # with what was left open decided
    profile = Profile()
    spec = scenario.spec
    warmup = spec.simulation.warmup_steps
    collector = Collector(
        model=stages.model,
        cluster=stages.cluster,
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
    run = _Runner(stages, payload, profile)
    with ThreadPoolExecutor(max_workers=threads or default_threads()) as pool:
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


@dataclass(frozen=True)
class _Ran:
    """A step that was run: its loads, which a loss on the way changes, its program and its timeline."""

    routed: RoutedStep
    program: Program
    timeline: Timeline
    lost: Lost

    @property
    def makespan_ps(self) -> int:
        return self.timeline.makespan_ps


class _Runner:
    """Runs the measured steps one after the other and hands their results on; knows what time it is."""

    def __init__(self, stages: Stages, payload: dict[str, int], profile: Profile) -> None:
        self._stages, self._payload, self._profile = stages, payload, profile
        self._faults = Faults(stages.scenario, stages.placement)
        self._interpret = ENGINES[engine_of(stages)]
        self._clock_ps = 0

    def lost(self, measured: bool) -> Lost:
        """The GPUs without which the next step begins; warm-up steps have all."""
        n_gpus = self._stages.cluster.n_gpus
        return Lost(gone=self._faults.gone(self._clock_ps)) if measured else Lost.nobody(n_gpus)

    def step(
        self, step: int, routed: RoutedStep, lost: Lost, route_again: RouteAgain, collector: Collector, *, number: int
    ) -> None:
        """Run a step; it is the number-th that is measured."""
        keep_tasks = collector.keeps_tasks(number)
        if self._stages.queued:
            routed, times, even_ps = self._queued(step, routed, keep_tasks=keep_tasks)
        else:
            routed, times, even_ps = self._grouped(step, routed, lost, route_again, keep_tasks=keep_tasks)
        with self._profile.timed("metrics"):
            collector.add(number, routed, times, even_ps)
        self._clock_ps += times.makespan_ps
        self._faults.over(self._clock_ps)

    def _grouped(
        self, step: int, routed: RoutedStep, lost: Lost, route_again: RouteAgain, *, keep_tasks: bool
    ) -> tuple[RoutedStep, Clocked, int]:
        stages = self._stages

        def lay_out_again(lost: Lost) -> tuple[RoutedStep, Program]:
            again = route_again(lost)
            return again, lay_out_step(stages, again, lost)

        def attempt(ill: Ill) -> _Ran:
            with self._profile.timed("layout"):
                laid_out = lay_out_step(stages, routed, lost)
            with self._profile.timed("engine"):
                program = ill(laid_out)
                ran = _Ran(routed, program, self._interpret(program), lost)
            return self._with_losses(ran, laid_out, ill, lay_out_again)

        ran = self._faults.run(step, self._clock_ps, attempt)

        def attempt_evenly(ill: Ill) -> _Ran:
            even = lay_out_evenly(stages, ran.routed, lost)
            program = ill(even)
            even_ran = _Ran(ran.routed, program, self._interpret(program), lost)
            return self._with_losses(even_ran, even, ill, lambda _: (ran.routed, even))

        # the imbalance penalty's reference, under the same faults; not in the profile
        even_ps = self._faults.run(step, self._clock_ps, attempt_evenly).makespan_ps
        with self._profile.timed("metrics"):
            times = clocked(ran.program, ran.timeline, **self._payload, keep_tasks=keep_tasks)
        return ran.routed, times, even_ps

    def _with_losses(
        self, ran: _Ran, laid_out: Program, ill: Ill, lay_out_again: Callable[[Lost], tuple[RoutedStep, Program]]
    ) -> _Ran:
        """The step with the GPUs that it loses on its way, one after the other."""
        while True:
            known = [broken.gpu for broken in ran.lost.broken]
            loss = self._faults.next_loss(self._clock_ps, self._clock_ps + ran.makespan_ps, known)
            if loss is None:
                return ran
            at_ps = loss.begin_ps - self._clock_ps
            broken = progress_of(laid_out, ran.timeline, loss.gpu, at_ps)
            lost = Lost(gone=ran.lost.gone, broken=(*ran.lost.broken, broken))
            routed, after = lay_out_again(lost)
            noticed_ps = at_ps + loss.detection_ps
            program = break_off(ran.program, ill(after), ran.timeline, broken, at_ps=at_ps, noticed_ps=noticed_ps)
            ran = _Ran(routed, program, self._interpret(program), lost)

    def _queued(self, step: int, routed: RoutedStep, *, keep_tasks: bool) -> tuple[RoutedStep, Clocked, int]:
        stages = self._stages
        with self._profile.timed("layout"):
            program = lay_out_step(stages, routed)
        interpret = queued.interpreter(stages, routed.groups, limited=True)
        with self._profile.timed("engine"):
            run = self._faults.run(step, self._clock_ps, lambda ill: interpret(ill(program)))
        routed = queued.settled(stages, routed, run)
        even = lay_out_evenly(stages, routed)
        interpret_evenly = queued.interpreter(stages, queued.even_groups(even), limited=False)
        even_run = self._faults.run(step, self._clock_ps, lambda ill: interpret_evenly(ill(even)))
        with self._profile.timed("metrics"):
            times = clocked_queues(run, n_gpus=stages.cluster.n_gpus, **self._payload, keep_tasks=keep_tasks)
        return routed, times, even_run.makespan_ps


def lay_out_step(stages: Stages, routed: RoutedStep, lost: Lost | None = None) -> Program:
    """The program of the step, without the GPUs that are lost when it begins."""
    return _without_gone(_lay_out(stages, routed, routed.micro_traffic, routed.capacity), lost)


def lay_out_evenly(stages: Stages, routed: RoutedStep, lost: Lost | None = None) -> Program:
    """The program of the same step with its load spread evenly."""
    even = balanced_traffic(
        routed.micro_traffic,
        stages.placement,
        gpus_per_node=stages.cluster.gpus_per_node,
        copies_rule=stages.copies_rule,
        usable=None if lost is None else usable_slots(stages.placement, lost.gone),
    )
    return _without_gone(_lay_out(stages, routed, even, None), lost)


def _without_gone(program: Program, lost: Lost | None) -> Program:
    if lost is None or not lost.gone.any():
        return program
    return dataclasses.replace(program, lost_ps=np.where(lost.gone, 0, FOR_EVER))


def _lay_out(stages: Stages, routed: RoutedStep, traffic: Traffic, capacity: NDArray[np.int64] | None) -> Program:
    cluster, model, placement = stages.cluster, stages.model, stages.placement
    dispatch, combine = exchange_rates(cluster, stages.precision, model.hidden_size)
    tokens = [
        np.bincount(routed.batch.source[own], minlength=cluster.n_gpus).astype(np.int64)
        for own in micro_batches_of(routed.batch, stages.micro_batches)
    ]
    durations = [
        _durations(stages, own, traffic.slot_tokens[b :: stages.micro_batches]) for b, own in enumerate(tokens)
    ]
    whole = durations[0]
    if len(durations) > 1:  # the head is computed for all tokens at once
        whole = _durations(stages, np.sum(tokens, axis=0), traffic.slot_tokens[:0])
    return lay_out(
        n_layers=model.n_layers,
        dense_layers=model.dense_layers,
        durations=durations,
        head=whole.head,
        traffic=traffic,
        placement=placement,
        capacity=capacity,
        copies_rule=stages.copies_rule,
        gpus_per_node=cluster.gpus_per_node,
        dispatch=dispatch,
        combine=combine,
        has_shared=model.n_shared_experts > 0,
        overlap=stages.overlap,
        network=stages.scenario.spec.simulation.network,
    )


def _durations(stages: Stages, tokens_per_gpu: NDArray[np.int64], slot_tokens: NDArray[np.int64]) -> Durations:
    workload = stages.scenario.spec.workload
    return step_durations(
        stages.model,
        stages.cluster,
        stages.precision,
        phase=workload.phase,
        tokens_per_gpu=tokens_per_gpu,
        context_tokens=workload.context_tokens,
        sequence_tokens=workload.sequence_tokens,
        slot_tokens=slot_tokens,
        slot_rank=stages.placement.rank,
    )


def engine_of(stages: Stages) -> str:
    """The interpreter that runs the steps: the one that was asked for; by default compiled, where it is valid."""
    wanted = stages.scenario.spec.simulation.engine
    if wanted == "auto":
        return "simpy" if stages.queued else "compiled"
    return wanted


def _manifest(stages: Stages) -> dict[str, Any]:
    """What the result rests on: versions, seed, inputs with checksums, provenance."""
    manifest: dict[str, Any] = {
        "versions": versions(),
        "seed": stages.scenario.spec.seed,
        "engine": engine_of(stages),
        "provenance": {**stages.scenario.provenance, "kernel times": PROVENANCE},
        "inputs": [],
    }
    if isinstance(stages.source, RecordedTokens):
        trace = stages.source.trace
        manifest["inputs"] = [{"name": os.path.basename(trace.path), "sha256": trace.sha256}]
        manifest["trace_passes"] = stages.source.passes(stages.n_steps)
    return manifest
