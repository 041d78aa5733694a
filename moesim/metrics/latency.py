"""Where the time of a step went. All times are int64 picoseconds, so every sum is exact."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.types import Part, Program, Timeline


def breakdown(program: Program, timeline: Timeline) -> NDArray[np.int64]:
    """Time of each part on each GPU, [G, parts]; every row sums to the step time.

    Each instant belongs to one part: while a task runs to its kind; else, while
    an exchange runs, to wait until its last participant has entered and then to
    dispatch or combine, which is the communication that no computing hides. A
    GPU that has finished before the others waits, and so does one that is lost.
    """
    exchange = program.exchange_row >= 0
    parts = np.zeros((program.n_gpus, len(Part)), dtype=np.int64)
    start = timeline.start_ps
    entered = start.reshape(len(start), program.n_groups, program.group_gpus).max(axis=2)
    last_entry = np.repeat(entered, program.group_gpus, axis=1)  # of the group of each GPU
    start, end = until_lost(program, timeline)
    _fill(program.kind, exchange, last_entry, start, end, parts)
    parts[:, Part.WAIT] += timeline.makespan_ps - end.max(axis=0)
    return parts


def until_lost(program: Program, timeline: Timeline) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When each operation began and ended on each GPU, [O, G] each; one that is lost does nothing from then on."""
    if program.lost_ps is None:
        return timeline.start_ps, timeline.end_ps
    return np.minimum(timeline.start_ps, program.lost_ps), np.minimum(timeline.end_ps, program.lost_ps)


@njit
def _fill(
    kind: NDArray[np.int64],
    exchange: NDArray[np.bool_],
    last_entry: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    parts: NDArray[np.int64],
) -> None:
    """Tasks follow one another, and so do exchanges: each exchange is cut by the tasks that overlap it."""
    n_ops, n_gpus = start.shape
    tasks = np.empty(n_ops, dtype=np.int64)
    n_tasks = 0
    for o in range(n_ops):
        if not exchange[o]:
            tasks[n_tasks] = o
            n_tasks += 1
    for x in range(n_gpus):
        for k in range(n_tasks):
            parts[x, kind[tasks[k]]] += end[tasks[k], x] - start[tasks[k], x]
        first = 0  # task that ends after the exchange at hand has begun
        for o in range(n_ops):
            if not exchange[o]:
                continue
            while first < n_tasks and end[tasks[first], x] <= start[o, x]:
                first += 1
            entered = min(last_entry[o, x], end[o, x])  # the last, unless this GPU was lost before
            waited = entered - start[o, x]
            moved = end[o, x] - entered
            k = first
            while k < n_tasks and start[tasks[k], x] < end[o, x]:
                a, b = start[tasks[k], x], end[tasks[k], x]
                waited -= max(0, min(b, entered) - max(a, start[o, x]))
                moved -= max(0, min(b, end[o, x]) - max(a, entered))
                k += 1
            parts[x, Part.WAIT] += waited
            parts[x, kind[o]] += moved


def critical_path(program: Program, timeline: Timeline) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The chain of operations that made the step as long as it was: time by part [parts] and by GPU [G].

    Back from the last end: a task costs its duration; an exchange costs what
    it took after its last entry and leads to the GPU that entered last (the
    lowest index of several); what ended last of all that an operation waited
    for comes next (the latest in the program of several). Both arrays sum to
    the step time; there is no wait in them but until a lost GPU is noticed.
    """
    start, end = timeline.start_ps, timeline.end_ps
    _, worked_until = until_lost(program, timeline)
    waits_for = program.waits_for()
    by_part = np.zeros(len(Part), dtype=np.int64)
    by_gpu = np.zeros(program.n_gpus, dtype=np.int64)
    finished = end.max(axis=0)
    gpu = int(finished.argmax())
    first = gpu // program.group_gpus * program.group_gpus
    start = start[:, first : first + program.group_gpus]  # of those that it exchanges with
    o = int(np.flatnonzero(end[:, gpu] == finished[gpu])[-1])
    while True:
        exchange = program.exchange_row[o] >= 0
        begin = start[o].max() if exchange else start[o, gpu - first]
        cost = end[o, gpu] - begin
        worked = max(0, worked_until[o, gpu] - begin)
        by_part[program.kind[o]] += worked
        by_part[Part.WAIT] += cost - worked
        by_gpu[gpu] += cost
        if exchange:
            gpu = first + int(start[o].argmax())
        before = [p for p in waits_for[o] if end[p, gpu] == begin]
        if not before:
            return by_part, by_gpu
        o = before[-1]
