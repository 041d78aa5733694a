"""Where the time of a step went. All times are int64 picoseconds, so every sum is exact.

Both functions read programs whose operations run one after the other on every
GPU (overlap: none).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.types import PARTS, Program, Timeline

_WAIT = PARTS.index("wait")


def breakdown(program: Program, timeline: Timeline) -> NDArray[np.int64]:
    """Time of each part on each GPU, [G, parts]; every row sums to the step time.

    A task counts as its kind. An exchange counts as wait until its last
    participant has entered, then as dispatch or combine. A GPU that has
    finished before the others waits.
    """
    start, end = timeline.start_ps, timeline.end_ps
    parts = np.zeros((program.n_gpus, len(PARTS)), dtype=np.int64)
    for o, kind in enumerate(program.kind):
        begin = start[o]
        if program.exchange_layer[o] >= 0:
            last_entry = start[o].max()
            parts[:, _WAIT] += last_entry - start[o]
            begin = last_entry
        parts[:, kind] += end[o] - begin
    parts[:, _WAIT] += end.max() - end[-1]
    return parts


def critical_path(program: Program, timeline: Timeline) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The chain of operations that made the step as long as it was: time by part [parts] and by GPU [G].

    Back from the last end: a task costs its duration; an exchange costs what
    it took after its last entry and leads to the GPU that entered last (the
    lowest index of several). Both arrays sum to the step time; there is no
    wait in them.
    """
    start, end = timeline.start_ps, timeline.end_ps
    by_part = np.zeros(len(PARTS), dtype=np.int64)
    by_gpu = np.zeros(program.n_gpus, dtype=np.int64)
    gpu = int(end[-1].argmax())
    for o in range(program.n_operations - 1, -1, -1):
        exchange = program.exchange_layer[o] >= 0
        begin = start[o].max() if exchange else start[o, gpu]
        cost = end[o, gpu] - begin
        by_part[program.kind[o]] += cost
        by_gpu[gpu] += cost
        if exchange:
            gpu = int(start[o].argmax())
    return by_part, by_gpu
