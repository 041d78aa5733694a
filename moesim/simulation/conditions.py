"""What goes wrong during one step, as values: slow GPUs and ports, jitter, and GPUs that fail."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.engine import jitter, latencies
from moesim.errors import RunError
from moesim.simulation.failures import has_orphans, usable_slots
from moesim.simulation.fault_schedule import FaultSchedule
from moesim.simulation.plan import RunPlan
from moesim.simulation.state import GpuFailure, RunState
from moesim.types import Placement, Program
from moesim.types.picoseconds import PS_PER_S, picoseconds, whole_ps

_SHORTEST_PS = 10**9
INTERVAL_STEPS = 4
"""Random events are drawn for an interval so many times as long as the last known step, at least a millisecond."""


class GpusLostError(RunError):
    """All GPUs that bring tokens have failed, and none is ever replaced."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What goes wrong from `begin_ps` of the run on, for `length_ps` (infinity: for ever).

    `slow_gpus` [K, 4] and `slow_links` [K, 5] are those of a Program, in
    picoseconds after the begin. `failures` are the GPUs that have failed
    before the interval ends and are not replaced before it begins. Jitter
    follows from the schedule and the step's number.
    """

    schedule: FaultSchedule
    begin_ps: int
    length_ps: float
    slow_gpus: NDArray[np.float64]
    slow_links: NDArray[np.float64]
    failures: tuple[GpuFailure, ...]

    @property
    def missing(self) -> NDArray[np.bool_]:
        """GPUs without which the step begins, [G]."""
        return missing_gpus(self.failures, self.begin_ps, self.schedule.n_gpus)


def conditions_of(plan: RunPlan, state: RunState, length_ps: float | None = None) -> Conditions:
    """What goes wrong in the next step.

    Where all GPUs that bring tokens are missing, the step begins when the first of them is replaced.

    Args:
        plan: of the run.
        state: before the step.
        length_ps: of the interval that is looked at; by default some times the length of the step before, or for ever
            where nothing is random.

    Raises:
        GpusLostError: no GPU that brings tokens is ever replaced.
    """
    schedule, placement, n_sources = plan.faults, state.placement, plan.n_source_ranks
    begin_ps = state.clock_ps
    failures = _with_failures(schedule, placement, state.failures, begin_ps, begin_ps + 1)
    while missing_gpus(failures, begin_ps, schedule.n_gpus)[:n_sources].all():
        back_ps = min(failure.end_ps for failure in failures if failure.gpu < n_sources and failure.end_ps > begin_ps)
        if math.isinf(back_ps):
            whose = "every GPU" if n_sources == schedule.n_gpus else "every GPU that brings tokens"
            raise GpusLostError(f"{whose} lost for good {state.clock_ps / PS_PER_S:.6g} s after the begin")
        failures = _with_failures(schedule, placement, failures, begin_ps + 1, back_ps + 1)
        begin_ps = int(back_ps)
    if not schedule.is_random:
        length_ps = math.inf
    elif length_ps is None:
        length_ps = max(_SHORTEST_PS, INTERVAL_STEPS * state.step_ps)
    failures = _with_failures(schedule, placement, failures, begin_ps + 1, begin_ps + length_ps)
    slow_gpus, slow_links = _slow_rows(schedule, failures, begin_ps / PS_PER_S, (begin_ps + length_ps) / PS_PER_S)
    return Conditions(
        schedule=schedule,
        begin_ps=begin_ps,
        length_ps=length_ps,
        slow_gpus=slow_gpus,
        slow_links=slow_links,
        failures=failures,
    )


def inject(program: Program, conditions: Conditions, step: int) -> Program:
    """The program of a step with its slow intervals and jitter; failures are added by `with_failure`."""
    if not conditions.schedule.faults:
        return program
    program = _jittered(program, conditions.schedule, step)
    return dataclasses.replace(program, slow_gpus=conditions.slow_gpus, slow_links=conditions.slow_links)


def first_failure(conditions: Conditions, length_ps: int, known: Collection[int]) -> GpuFailure | None:
    """The first failure within a step of that length which does not stall; GPUs `known` to fail are left out."""
    until_ps = conditions.begin_ps + length_ps
    inside = [
        failure
        for failure in conditions.failures
        if not failure.stalls
        and conditions.begin_ps <= failure.begin_ps < until_ps
        and not failure.noticed_before(conditions.begin_ps)
        and failure.gpu not in known
    ]
    return min(inside, key=lambda failure: (failure.begin_ps, failure.gpu), default=None)


def missing_gpus(failures: Sequence[GpuFailure], clock_ps: int, n_gpus: int) -> NDArray[np.bool_]:
    """GPUs that are missing in a step which begins at that time, [G]; a GPU whose failure stalls is waited for."""
    missing = np.zeros(n_gpus, dtype=np.bool_)
    for failure in failures:
        if not failure.stalls and failure.noticed_before(clock_ps) and clock_ps < failure.end_ps:
            missing[failure.gpu] = True
    return missing


def _with_failures(
    schedule: FaultSchedule, placement: Placement, known: tuple[GpuFailure, ...], after_ps: int, until_ps: float
) -> tuple[GpuFailure, ...]:
    """The known failures and those that begin from `after_ps` on and before `until_ps`."""
    begin_s, until_s = after_ps / PS_PER_S - 2 / PS_PER_S, (until_ps + 1) / PS_PER_S
    found = [
        (int(picoseconds(event.begin_s)), event.gpu, _ps_or_never(event.end_s), fault)
        for i, fault in enumerate(schedule.faults)
        if fault.kind == "gpu-failure"
        for event in schedule.events(i, begin_s, until_s)
    ]
    failures = list(known)
    for begin_ps, gpu, end_ps, fault in sorted(found, key=lambda event: event[:2]):
        if not after_ps <= begin_ps < until_ps:
            continue
        lost = np.zeros(schedule.n_gpus, dtype=np.bool_)
        lost[[failure.gpu for failure in failures if failure.end_ps > begin_ps]] = True
        if lost[gpu]:  # it cannot fail again before it is replaced
            continue
        lost[gpu] = True
        stalls = fault.orphans == "stall" and has_orphans(placement, usable_slots(placement, lost))
        detection_ps = int(picoseconds(fault.detection_s))
        failures.append(GpuFailure(gpu=gpu, begin_ps=begin_ps, end_ps=end_ps, detection_ps=detection_ps, stalls=stalls))
    return tuple(failures)


def _slow_rows(
    schedule: FaultSchedule, failures: Sequence[GpuFailure], begin_s: float, end_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is slow in an interval: slow_gpus and slow_links of a Program, in picoseconds after its begin."""
    gpus: list[tuple[float, ...]] = []
    links: list[tuple[float, ...]] = []

    def interval(begin: float, end: float) -> tuple[float, float]:
        return float(picoseconds(begin - begin_s)), _ps_or_never(end - begin_s)

    for i, fault in enumerate(schedule.faults):
        if fault.kind not in ("slow-gpu", "gpu-pause", "slow-link"):
            continue
        for event in schedule.events(i, begin_s, end_s):
            times = interval(event.begin_s, event.end_s)
            if fault.kind == "slow-link":
                assert fault.level is not None
                ports = schedule.levels.ports_named(fault.level)
                links += [(port, event.gpu, *times, fault.factor or 1.0) for port in ports]
            else:
                gpus.append((event.gpu, *times, math.inf if fault.kind == "gpu-pause" else fault.factor or 1.0))
    gpus += [
        (failure.gpu, *interval(failure.begin_ps / PS_PER_S, failure.end_ps / PS_PER_S), math.inf)
        for failure in failures
        if failure.stalls and failure.end_ps > begin_s * PS_PER_S and failure.begin_ps < end_s * PS_PER_S
    ]
    return np.array(gpus, dtype=np.float64).reshape(-1, 4), np.array(links, dtype=np.float64).reshape(-1, 5)


def _jittered(program: Program, schedule: FaultSchedule, step: int) -> Program:
    """The program with the durations and latencies that jitter gives them in a step."""
    for i, fault in enumerate(schedule.faults):
        if not fault.kind.endswith("jitter") or fault.cv is None:
            continue
        lognormal = fault.distribution != "exponential"
        if fault.kind == "compute-jitter":
            factor = np.empty(program.duration_ps.shape)
            jitter(schedule.seed, step, i, fault.cv, lognormal, factor)
            duration = whole_ps(program.duration_ps * factor)
            if program.compute_factor is not None:
                factor = factor * program.compute_factor
            program = dataclasses.replace(program, duration_ps=duration, compute_factor=factor)
        else:
            latency = latencies(program)
            factor = np.empty((len(latency), latency[0].size))
            jitter(schedule.seed, step, i, fault.cv, lognormal, factor)
            drawn = np.maximum(1, whole_ps(latency * factor.reshape(latency.shape)))
            program = dataclasses.replace(program, latency_ps=drawn)
    return program


def _ps_or_never(seconds: float) -> float:
    return math.inf if math.isinf(seconds) else float(picoseconds(seconds))
