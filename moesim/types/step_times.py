"""What the clock and the links say of one step, however it was run."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """What ran when, N rows: int64 [N] each, `kind` text [N]; times in picoseconds after the step's begin."""

    gpu: NDArray[np.int64]
    stream: NDArray[np.int64]
    layer: NDArray[np.int64]
    kind: NDArray[np.str_]
    start_ps: NDArray[np.int64]
    end_ps: NDArray[np.int64]
    bytes: NDArray[np.int64]
    tokens: NDArray[np.int64]
    """Assignments of experts and of queued groups, copies that are sent; 0 of other tasks."""


@dataclass(frozen=True, kw_only=True)
class QueueTotals:
    """Of the expert queues of a step: tokens that waited, the sum of their waits, the longest wait and queue."""

    tokens: int
    wait_ps: int
    longest_wait_ps: int
    longest_queue: int


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Times and traffic of one step; G GPUs, integer picoseconds.

    `parts_ps` int64 [G, parts], each row summing to `makespan_ps`;
    `critical_ps` [parts] and `critical_gpu_ps` [G] the critical path by part
    and by GPU, summing to it too; `messages` and `bytes` int64 [levels, G, G]
    over each link; `tasks` the rows of the timeline, None where they are not kept.
    """

    makespan_ps: int
    parts_ps: NDArray[np.int64]
    critical_ps: NDArray[np.int64]
    critical_gpu_ps: NDArray[np.int64]
    messages: NDArray[np.int64]
    bytes: NDArray[np.int64]
    n_events: int
    tasks: Tasks | None = None
    queues: QueueTotals | None = None
    """Only where experts are queued."""
    uplinks_ps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    """How long the busiest uplink of each level but the last carries, int64 [levels - 1]; 0 where none is ever full."""
