"""Runs the measured steps of a scenario, with all that goes wrong in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from moesim.engine import ENGINES, longest_ps, too_long
from moesim.metrics import later, queued_step_times, step_times
from moesim.results import Collector
from moesim.simulation import queued
from moesim.simulation.faults import Faults
from moesim.simulation.losses import Lost, break_off, progress_of
from moesim.simulation.profile import Profile
from moesim.simulation.program import lay_out_evenly, lay_out_step
from moesim.simulation.stages import Stages
from moesim.types import Program, RoutedStep, StepTimes, Timeline
from moesim.types.picoseconds import MAX_PS

Ill = Callable[[Program], Program]
RouteAgain = Callable[[Lost], RoutedStep]


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


class Runner:
    """Runs the measured steps one after the other and hands their results on; knows what time it is."""

    def __init__(self, stages: Stages, payload: dict[str, int], profile: Profile) -> None:
        self._stages, self._payload, self._profile = stages, payload, profile
        self._faults = Faults(stages.scenario, stages.placement)
        self._clock_ps = self._waited_ps = 0

    def lost(self, measured: bool) -> Lost:
        """The GPUs without which the next step begins; warm-up steps have all.

        Where all GPUs that bring tokens are lost the step waits for the first replacement.

        Raises:
            ScenarioError: none of them is ever replaced.
        """
        stages, now = self._stages, self._clock_ps
        if not measured:
            return Lost.nobody(stages.cluster.n_gpus)
        back = self._faults.back(now, stages.n_source_ranks)
        if math.isinf(back):
            whose = "every GPU" if stages.n_source_ranks == stages.cluster.n_gpus else "every GPU that brings tokens"
            wanted = "recovery_s, or fewer steps: no more of them can begin"
            raise stages.scenario.error("faults", f"{whose} lost for good {now / 1e12:.6g} s after the begin", wanted)
        self._clock_ps = int(back)
        self._waited_ps = self._clock_ps - now
        return Lost(gone=self._faults.gone(self._clock_ps))

    def step(
        self, step: int, routed: RoutedStep, lost: Lost, route_again: RouteAgain, collector: Collector, *, number: int
    ) -> None:
        """Run a step; it is the number-th that is measured."""
        keep_tasks = collector.keeps_tasks(number)
        if self._stages.queued:
            routed, times, even_ps = self._queued(step, routed, keep_tasks=keep_tasks)
        else:
            routed, times, even_ps = self._grouped(step, routed, lost, route_again, keep_tasks=keep_tasks)
        self._clock_ps += times.makespan_ps
        if self._waited_ps:
            times, even_ps = later(times, self._waited_ps), even_ps + self._waited_ps
        with self._profile.timed("metrics"):
            collector.add(number, routed, times, even_ps)
        n_gpus = self._stages.cluster.n_gpus
        if max(self._clock_ps, times.makespan_ps * n_gpus) > MAX_PS:
            raise too_long(
                f"step {number} takes {times.makespan_ps / 1e12:,.0f} s of simulated time on {n_gpus} GPUs and ends "
                f"after {self._clock_ps / 1e12:,.0f} s"
            )
        self._faults.over(self._clock_ps)

    def _interpret(self, program: Program) -> Timeline:
        longest = longest_ps(program)
        if longest > MAX_PS:
            raise too_long(f"a step takes up to {longest / 1e12:.3g} s of simulated time")
        return ENGINES[self._stages.engine](program)

    def _grouped(
        self, step: int, routed: RoutedStep, lost: Lost, route_again: RouteAgain, *, keep_tasks: bool
    ) -> tuple[RoutedStep, StepTimes, int]:
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
            return self._with_losses(
                even_ran, even, ill, lambda lost: (ran.routed, lay_out_evenly(stages, ran.routed, lost.in_the_end()))
            )

        # the imbalance penalty's reference, under the same faults; not in the profile
        even_ps = self._faults.run(step, self._clock_ps, attempt_evenly).makespan_ps
        with self._profile.timed("metrics"):
            times = step_times(ran.program, ran.timeline, **self._payload, keep_tasks=keep_tasks)
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

    def _queued(self, step: int, routed: RoutedStep, *, keep_tasks: bool) -> tuple[RoutedStep, StepTimes, int]:
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
            times = queued_step_times(run, n_gpus=stages.cluster.n_gpus, **self._payload, keep_tasks=keep_tasks)
        return routed, times, even_run.makespan_ps
