"""What goes wrong in a run: from the scenario's `faults` to the slow intervals and jitter of each step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.random import FAULT, key, uniform
from moesim.engine import jitter, latencies
from moesim.scenario import Scenario
from moesim.scenario.schema import FaultSpec
from moesim.simulation.losses import has_orphans, usable_slots
from moesim.types import LEVELS, Placement, Program
from moesim.types.picoseconds import PS_PER_S, picoseconds, whole_ps


class Run(Protocol):
    """What an interpreter makes of a program."""

    @property
    def makespan_ps(self) -> int: ...  # noqa: D102


R = TypeVar("R", bound=Run)
Rows = NDArray[np.float64]

_EVENT = {"gpu", "start_s", "duration_s", "mean_time_between_s"}
NEEDED = {
    "slow-gpu": {"factor"},
    "gpu-pause": {"gpu", "duration_s"},
    "gpu-failure": {"gpu"},
    "slow-link": {"level", "factor"},
    "compute-jitter": {"cv"},
    "message-jitter": {"cv"},
}
ALLOWED = {
    "slow-gpu": _EVENT | {"factor"},
    "gpu-pause": _EVENT,
    "gpu-failure": {"gpu", "start_s", "mean_time_between_s", "detection_s", "recovery_s", "orphans"},
    "slow-link": _EVENT | {"level", "factor"},
    "compute-jitter": {"cv", "distribution"},
    "message-jitter": {"cv", "distribution"},
}


def check_faults(scenario: Scenario) -> None:
    """Refuse faults that say too little, too much, or cannot be."""
    n_gpus, network = scenario.cluster.n_gpus, scenario.spec.simulation.network
    for i, fault in enumerate(scenario.spec.faults):
        # a field that says what is so anyway is no field too many: a resolved scenario has all of them
        defaults = {name: field.default for name, field in type(fault).model_fields.items() if name != "kind"}
        where, given = f"faults.{i}", {name for name, value in defaults.items() if getattr(fault, name) != value}
        for name in sorted(given - ALLOWED[fault.kind]):
            raise scenario.error(f"{where}.{name}", getattr(fault, name), f"no {name} for a {fault.kind}")
        needed = NEEDED[fault.kind] - ({"gpu"} if fault.mean_time_between_s is not None else set())
        for name in sorted(needed - given):
            raise scenario.error(where, "nothing", f"{name}, which a {fault.kind} needs")
        if fault.mean_time_between_s is not None and fault.duration_s is None and fault.kind != "gpu-failure":
            raise scenario.error(
                where, "mean_time_between_s without duration_s", "duration_s: what happens again must end"
            )
        if fault.gpu is not None and fault.gpu >= n_gpus:
            raise scenario.error(f"{where}.gpu", fault.gpu, f"0 to {n_gpus - 1}")
        queued = scenario.spec.simulation.experts == "queued"
        if fault.kind in ("slow-link", "message-jitter") and network != "port" and not queued:
            raise scenario.error(f"{where}.kind", fault.kind, "simulation.network: port, which has messages")
        if fault.kind == "gpu-failure":
            _check_loss(scenario, where, fault.orphans, fault.recovery_s)
        if fault.distribution == "exponential" and fault.cv is not None and fault.cv > 1:
            raise scenario.error(f"{where}.cv", fault.cv, "at most 1 for an exponential")


def _check_loss(scenario: Scenario, where: str, orphans: str, recovery_s: float | None) -> None:
    parallel = scenario.parallelism
    if parallel.group_gpus < scenario.cluster.n_gpus or parallel.expert_tp > 1 or parallel.attention_tp > 1:
        wanted = "one expert-parallel group of all GPUs without tensor parallelism, or a gpu-pause"
        raise scenario.error(f"{where}.kind", "gpu-failure", wanted)
    if scenario.spec.simulation.experts == "queued":
        raise scenario.error(f"{where}.kind", "gpu-failure", "simulation.experts: grouped, or a gpu-pause")
    copies, n_nodes = scenario.cluster.network.copies, scenario.cluster.n_nodes
    if copies == "all" or (copies == "per-node" and n_nodes > 1):
        wanted = (
            "a network whose copies are neither per-node nor all, where nobody hands on what the lost GPU would have"
        )
        raise scenario.error(f"{where}.kind", "gpu-failure", wanted)
    capacity = scenario.spec.routing.capacity
    if capacity is not None and capacity.pad:
        raise scenario.error(f"{where}.kind", "gpu-failure", "routing.capacity.pad: false")
    if orphans == "stall" and recovery_s is None:
        raise scenario.error(where, "orphans: stall", "recovery_s, after which the run goes on")


@dataclass(frozen=True)
class Loss:
    """A GPU is lost, in picoseconds of the run; who waits for its replacement `stalls`."""

    gpu: int
    begin_ps: int
    end_ps: float
    detection_ps: int
    stalls: bool

    def noticed_before(self, clock_ps: int) -> bool:
        """Whether a step that begins then does without the GPU; a loss at that very time must be noticed first."""
        return self.begin_ps < clock_ps or (self.begin_ps == clock_ps and self.detection_ps == 0)


@dataclass
class _Renewal:
    """Events of one fault on one GPU, as far as anybody has asked: (begin, end) in seconds."""

    word: np.uint64
    mean_time_between_s: float
    duration_s: float
    known: list[tuple[float, float]]
    drawn: int = 0

    def until(self, time_s: float) -> list[tuple[float, float]]:
        """All events that begin before a time."""
        while self.known[-1][1] < time_s:
            begin = self.known[-1][1] - self.mean_time_between_s * math.log(uniform(self.word, self.drawn))
            self.drawn += 1
            self.known.append((begin, begin + self.duration_s))
        return self.known

    def forget(self, time_s: float) -> None:
        """Drop what is over, but for the last, from which the next is counted."""
        self.known = [*(event for event in self.known[:-1] if event[1] > time_s), self.known[-1]]


class Faults:
    """The faults of a run; asked step by step, in order."""

    def __init__(self, scenario: Scenario, placement: Placement) -> None:
        self._seed = scenario.spec.seed
        self._faults = scenario.spec.faults
        self._placement = placement
        n_gpus = scenario.cluster.n_gpus
        self._random: dict[tuple[int, int], _Renewal] = {}
        for i, fault in enumerate(self._faults):
            if fault.mean_time_between_s is not None:
                for gpu in range(n_gpus) if fault.gpu is None else [fault.gpu]:
                    word = np.uint64(key(self._seed, FAULT, 0, i, gpu))
                    start = [(-math.inf, fault.start_s)]  # the first follows start_s
                    self._random[i, gpu] = _Renewal(word, fault.mean_time_between_s, _lasts(fault), start)
        self._n_gpus = n_gpus
        self._horizon_s = 1e-3 if self._random else math.inf
        self._losses: list[Loss] = []
        self._losses_until_s = -math.inf

    def run(self, step: int, clock_ps: int, attempt: Callable[[Callable[[Program], Program]], R]) -> R:
        """Run a step that begins at a time.

        `attempt` runs it, with what makes of a program one with all that goes wrong. Random events are drawn as far
        as the step may reach; if it reaches further it is attempted again with more.
        """
        while True:
            gpus, links = self._rows(clock_ps / PS_PER_S, clock_ps / PS_PER_S + self._horizon_s)

            def ill(program: Program, gpus: Rows = gpus, links: Rows = links) -> Program:
                if not self._faults:
                    return program
                return dataclasses.replace(self._jittered(program, step), slow_gpus=gpus, slow_links=links)

            ran = attempt(ill)
            if ran.makespan_ps <= self._horizon_s * PS_PER_S:
                return ran
            self._horizon_s *= 4

    def back(self, clock_ps: int, n_gpus: int) -> float:
        """When some of the first GPUs are there, from a time on: that time itself, or that of a replacement, or inf."""
        while self.gone(clock_ps)[:n_gpus].all():
            first = min(loss.end_ps for loss in self._losses if loss.gpu < n_gpus and loss.end_ps > clock_ps)
            if math.isinf(first):
                return math.inf
            clock_ps = int(first)
        return clock_ps

    def gone(self, clock_ps: int) -> NDArray[np.bool_]:
        """GPUs that are lost at a time and nobody waits for, [G]."""
        self._decide((clock_ps + 1) / PS_PER_S)
        gone = np.zeros(self._n_gpus, dtype=np.bool_)
        for loss in self._losses:
            if not loss.stalls and loss.noticed_before(clock_ps) and clock_ps < loss.end_ps:
                gone[loss.gpu] = True
        return gone

    def next_loss(self, after_ps: int, before_ps: int, known: Collection[int]) -> Loss | None:
        """The first loss between two times that nobody waits for, but for GPUs that are known to be lost."""
        self._decide(before_ps / PS_PER_S)
        between = [
            loss
            for loss in self._losses
            if not loss.stalls
            and after_ps <= loss.begin_ps < before_ps
            and not loss.noticed_before(after_ps)
            and loss.gpu not in known
        ]
        return min(between, key=lambda loss: (loss.begin_ps, loss.gpu), default=None)

    def _decide(self, until_s: float) -> None:
        """Find the losses before a time, and who waits for a replacement."""
        if until_s <= self._losses_until_s:
            return
        found = []
        for i, fault in enumerate(self._faults):
            if fault.kind == "gpu-failure":
                for gpu, begin, end in self._events(i, until_s):
                    if self._losses_until_s <= begin < until_s:
                        found.append((begin, gpu, end, fault))
        for begin, gpu, end, fault in sorted(found, key=lambda event: event[:2]):
            lost = np.zeros(self._n_gpus, dtype=np.bool_)
            for loss in self._losses:
                lost[loss.gpu] |= loss.end_ps > begin * PS_PER_S
            if lost[gpu]:
                continue
            lost[gpu] = True
            stalls = fault.orphans == "stall" and has_orphans(self._placement, usable_slots(self._placement, lost))
            times = int(picoseconds(begin)), _picoseconds(end), int(picoseconds(fault.detection_s))
            self._losses.append(Loss(gpu, *times, stalls))
        self._losses_until_s = until_s

    def over(self, clock_ps: int) -> None:
        """Nothing before this time will be asked for again."""
        self._losses = [loss for loss in self._losses if loss.end_ps > clock_ps]
        for events in self._random.values():
            events.forget(clock_ps / PS_PER_S)

    def _events(self, i: int, until_s: float) -> Iterator[tuple[int, float, float]]:
        """(GPU, begin, end) of a fault, in seconds, as far as they begin before a time."""
        fault = self._faults[i]
        for gpu in range(self._n_gpus) if fault.gpu is None else [fault.gpu]:
            random = self._random.get((i, gpu))
            for begin, end in random.until(until_s) if random else [(fault.start_s, fault.start_s + _lasts(fault))]:
                if math.isfinite(begin) and begin < until_s:
                    yield gpu, begin, end

    def _rows(self, begin_s: float, end_s: float) -> tuple[Rows, Rows]:
        """What is slow in an interval: slow_gpus and slow_links of a Program, in ps after its begin."""
        gpus: list[tuple[float, ...]] = []
        links: list[tuple[float, ...]] = []

        def interval(begin: float, end: float) -> tuple[float, float]:
            return float(picoseconds(begin - begin_s)), _picoseconds(end - begin_s)

        for i, fault in enumerate(self._faults):
            if fault.kind not in ("slow-gpu", "gpu-pause", "slow-link"):
                continue
            for gpu, begin, end in self._events(i, end_s):
                if end <= begin_s:
                    continue
                if fault.kind == "slow-link":
                    assert fault.level is not None
                    links.append((LEVELS.index(fault.level), gpu, *interval(begin, end), fault.factor or 1.0))
                else:
                    factor = math.inf if fault.kind == "gpu-pause" else fault.factor or 1.0
                    gpus.append((gpu, *interval(begin, end), factor))
        self._decide(end_s)
        gpus += [
            (loss.gpu, *interval(loss.begin_ps / PS_PER_S, loss.end_ps / PS_PER_S), math.inf)
            for loss in self._losses
            if loss.stalls and loss.end_ps > begin_s * PS_PER_S and loss.begin_ps < end_s * PS_PER_S
        ]
        return np.array(gpus, dtype=np.float64).reshape(-1, 4), np.array(links, dtype=np.float64).reshape(-1, 5)

    def _jittered(self, program: Program, step: int) -> Program:
        """With the durations and latencies of this step."""
        for i, fault in enumerate(self._faults):
            if not fault.kind.endswith("jitter") or fault.cv is None:
                continue
            lognormal = fault.distribution != "exponential"
            if fault.kind == "compute-jitter":
                factor = np.empty(program.duration_ps.shape)
                jitter(self._seed, step, i, fault.cv, lognormal, factor)
                duration = whole_ps(program.duration_ps * factor)
                if program.compute_factor is not None:
                    factor = factor * program.compute_factor
                program = dataclasses.replace(program, duration_ps=duration, compute_factor=factor)
            else:
                latency = latencies(program)
                factor = np.empty((len(latency), latency[0].size))
                jitter(self._seed, step, i, fault.cv, lognormal, factor)
                drawn = np.maximum(1, whole_ps(latency * factor.reshape(latency.shape)))
                program = dataclasses.replace(program, latency_ps=drawn)
        return program


def _lasts(fault: FaultSpec) -> float:
    """Seconds from the begin of an event to its end."""
    lasts = fault.recovery_s if fault.kind == "gpu-failure" else fault.duration_s
    return math.inf if lasts is None else lasts


def _picoseconds(seconds: float) -> float:
    return math.inf if math.isinf(seconds) else float(picoseconds(seconds))
