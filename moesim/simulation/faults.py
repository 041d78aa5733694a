"""What goes wrong in a run: from the scenario's `faults` to the slow intervals and jitter of each step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from moesim.engine import jitter, latencies
from moesim.kernels.random import FAULT, key, uniform
from moesim.scenario import Scenario
from moesim.types import LEVELS, Program

PICO = 1e12


class Run(Protocol):
    """What an interpreter makes of a program."""

    @property
    def makespan_ps(self) -> int: ...  # noqa: D102


R = TypeVar("R", bound=Run)

_EVENT = {"gpu", "from_s", "for_s", "every_s"}
NEEDED = {
    "slow-gpu": {"factor"},
    "stopped-gpu": {"gpu", "for_s"},
    "slow-link": {"level", "factor"},
    "compute-jitter": {"cv"},
    "message-jitter": {"cv"},
}
ALLOWED = {
    "slow-gpu": _EVENT | {"factor"},
    "stopped-gpu": _EVENT,
    "slow-link": _EVENT | {"level", "factor"},
    "compute-jitter": {"cv", "distribution"},
    "message-jitter": {"cv", "distribution"},
}


def check_faults(scenario: Scenario) -> None:
    """Refuse faults that say too little, too much, or cannot be."""
    n_gpus, network = scenario.cluster.n_gpus, scenario.spec.simulation.network
    for i, fault in enumerate(scenario.spec.faults):
        where, given = f"faults.{i}", fault.model_fields_set - {"kind"}
        for name in sorted(given - ALLOWED[fault.kind]):
            raise scenario.error(f"{where}.{name}", getattr(fault, name), f"no {name} for a {fault.kind}")
        needed = NEEDED[fault.kind] - ({"gpu"} if fault.every_s is not None else set())
        for name in sorted(needed - {name for name in given if getattr(fault, name) is not None}):
            raise scenario.error(where, "nothing", f"{name}, which a {fault.kind} needs")
        if fault.every_s is not None and fault.for_s is None:
            raise scenario.error(where, "every_s without for_s", "for_s: what happens again must end")
        if fault.gpu is not None and fault.gpu >= n_gpus:
            raise scenario.error(f"{where}.gpu", fault.gpu, f"0 to {n_gpus - 1}")
        queued = scenario.spec.simulation.experts == "queued"
        if fault.kind in ("slow-link", "message-jitter") and network != "port" and not queued:
            raise scenario.error(f"{where}.kind", fault.kind, "simulation.network: port, which has messages")
        if fault.distribution == "exponential" and fault.cv is not None and fault.cv > 1:
            raise scenario.error(f"{where}.cv", fault.cv, "at most 1 for an exponential")


@dataclass
class _Renewal:
    """Events of one fault on one GPU, as far as anybody has asked: (begin, end) in seconds."""

    word: np.uint64
    every_s: float
    for_s: float
    known: list[tuple[float, float]]
    drawn: int = 0

    def until(self, time_s: float) -> list[tuple[float, float]]:
        """All events that begin before a time."""
        while self.known[-1][1] < time_s:
            begin = self.known[-1][1] - self.every_s * math.log(uniform(self.word, self.drawn))
            self.drawn += 1
            self.known.append((begin, begin + self.for_s))
        return self.known

    def forget(self, time_s: float) -> None:
        """Drop what is over, but for the last, from which the next is counted."""
        self.known = [*(event for event in self.known[:-1] if event[1] > time_s), self.known[-1]]


class Faults:
    """The faults of a run; asked step by step, in order."""

    def __init__(self, scenario: Scenario) -> None:
        self._seed = scenario.spec.seed
        self._faults = scenario.spec.faults
        n_gpus = scenario.cluster.n_gpus
        self._random: dict[tuple[int, int], _Renewal] = {}
        for i, fault in enumerate(self._faults):
            if fault.every_s is not None and fault.for_s is not None:
                for gpu in range(n_gpus) if fault.gpu is None else [fault.gpu]:
                    word = np.uint64(key(self._seed, FAULT, 0, i, gpu))
                    start = [(-math.inf, fault.from_s)]  # the first follows from_s
                    self._random[i, gpu] = _Renewal(word, fault.every_s, fault.for_s, start)
        self._n_gpus = n_gpus
        self._horizon_s = 1.0

    def run(self, program: Program, step: int, clock_ps: int, interpret: Callable[[Program], R]) -> tuple[Program, R]:
        """Run a step that begins at a time: the program with all that goes wrong in it, and how it ran.

        Random events are drawn as far as the step may reach; if it reaches further it is run again with more.
        """
        if not self._faults:
            return program, interpret(program)
        program = self._jittered(program, step)
        while True:
            gpus, links = self._rows(clock_ps / PICO, clock_ps / PICO + self._horizon_s)
            program = dataclasses.replace(program, slow_gpus=gpus, slow_links=links)
            run = interpret(program)
            if not self._random or run.makespan_ps <= self._horizon_s * PICO:
                return program, run
            self._horizon_s *= 4

    def over(self, clock_ps: int) -> None:
        """Nothing before this time will be asked for again."""
        for events in self._random.values():
            events.forget(clock_ps / PICO)

    def _rows(self, begin_s: float, end_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What is slow in an interval: slow_gpus and slow_links of a Program, in ps after its begin."""
        gpus: list[tuple[float, ...]] = []
        links: list[tuple[float, ...]] = []
        for i, fault in enumerate(self._faults):
            if fault.kind.endswith("jitter"):
                continue
            lasts = math.inf if fault.for_s is None else fault.for_s
            for gpu in range(self._n_gpus) if fault.gpu is None else [fault.gpu]:
                random = self._random.get((i, gpu))
                events = random.until(end_s) if random else [(fault.from_s, fault.from_s + lasts)]
                for begin, end in events:
                    if math.isfinite(begin) and begin < end_s and end > begin_s:
                        interval = (round((begin - begin_s) * PICO), _picoseconds(end - begin_s))
                        if fault.kind == "slow-link":
                            assert fault.level is not None
                            links.append((LEVELS.index(fault.level), gpu, *interval, fault.factor or 1.0))
                        else:
                            factor = math.inf if fault.kind == "stopped-gpu" else fault.factor or 1.0
                            gpus.append((gpu, *interval, factor))
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
                duration = np.rint(program.duration_ps * factor).astype(np.int64)
                if program.compute_factor is not None:
                    factor = factor * program.compute_factor
                program = dataclasses.replace(program, duration_ps=duration, compute_factor=factor)
            else:
                latency = latencies(program)
                factor = np.empty((len(latency), latency[0].size))
                jitter(self._seed, step, i, fault.cv, lognormal, factor)
                drawn = np.maximum(1, np.rint(latency * factor.reshape(latency.shape))).astype(np.int64)
                program = dataclasses.replace(program, latency_ps=drawn)
        return program


def _picoseconds(seconds: float) -> float:
    return math.inf if math.isinf(seconds) else round(seconds * PICO)
