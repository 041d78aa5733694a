"""When faults happen: the events of a run's `faults`, which are a function of its seed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from moesim.compiled.random import FAULT, key, uniform
from moesim.types import TWO_LEVELS, NetworkLevels
from moesim.types.policies import Fault


@dataclass(frozen=True, kw_only=True)
class FaultEvent:
    """One fault hits one GPU; times in seconds of the run, an end of infinity is never."""

    gpu: int
    begin_s: float
    end_s: float


class FaultSchedule:
    """The faults of a run, and the events that each of them causes.

    Events with a mean time between them follow one another on each GPU, as its
    exponential distribution draws it. They are a function of the seed alone;
    those that were drawn are remembered.

    Args:
        faults: of the scenario, in its order.
        seed: of the run.
        n_gpus: of the cluster.
        levels: of its network.
    """

    def __init__(self, faults: Sequence[Fault], *, seed: int, n_gpus: int, levels: NetworkLevels = TWO_LEVELS) -> None:
        self.faults = tuple(faults)
        self.seed = seed
        self.n_gpus = n_gpus
        self.levels = levels
        self._drawn = {
            (i, gpu): _Renewals(np.uint64(key(seed, FAULT, 0, i, gpu)), fault)
            for i, fault in enumerate(self.faults)
            if fault.mean_time_between_s is not None
            for gpu in self._hit_by(fault)
        }

    @property
    def is_random(self) -> bool:
        """Whether any events are drawn."""
        return bool(self._drawn)

    def events(self, number: int, begin_s: float, end_s: float) -> Iterator[FaultEvent]:
        """Events of the fault of that number which begin before `end_s` and end after `begin_s`."""
        fault = self.faults[number]
        for gpu in self._hit_by(fault):
            if fault.mean_time_between_s is not None:
                yield from (
                    FaultEvent(gpu=gpu, begin_s=a, end_s=b) for a, b in self._drawn[number, gpu].between(begin_s, end_s)
                )
            elif fault.start_s < end_s and fault.start_s + duration_s(fault) > begin_s:
                yield FaultEvent(gpu=gpu, begin_s=fault.start_s, end_s=fault.start_s + duration_s(fault))

    def _hit_by(self, fault: Fault) -> Sequence[int]:
        return range(self.n_gpus) if fault.gpu is None else [fault.gpu]


def duration_s(fault: Fault) -> float:
    """Seconds from the begin of an event to its end."""
    lasts = fault.recovery_s if fault.kind == "gpu-failure" else fault.duration_s
    return math.inf if lasts is None else lasts


@dataclass
class _Renewals:
    """Events of one fault on one GPU, one after the other, as far as they have been drawn: begins and ends [N]."""

    word: np.uint64
    fault: Fault
    begins_s: list[float] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)

    def between(self, begin_s: float, end_s: float) -> Iterator[tuple[float, float]]:
        """Events that begin before `end_s` and end after `begin_s`."""
        mean_s, lasts_s = self.fault.mean_time_between_s, duration_s(self.fault)
        assert mean_s is not None
        while (last := self.ends_s[-1] if self.ends_s else self.fault.start_s) < end_s:
            begin = last - mean_s * math.log(uniform(self.word, len(self.begins_s)))
            self.begins_s.append(begin)
            self.ends_s.append(begin + lasts_s)
        for i in range(bisect_right(self.ends_s, begin_s), len(self.ends_s)):
            if self.begins_s[i] < end_s:
                yield self.begins_s[i], self.ends_s[i]
