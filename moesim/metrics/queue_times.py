"""Where the time of a step with expert queues went. All times are int64 picoseconds, so every sum is exact."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.types import Part, QueuedRun


def breakdown_of_nodes(run: QueuedRun, n_gpus: int) -> NDArray[np.int64]:
    """Time of each part on each GPU, [G, parts]; every row sums to the step time.

    Each instant belongs to one part: while a task runs to its kind; else, while
    a message to or from the GPU is under way (from when it was ready to leave
    until it landed), to dispatch, or to combine if no dispatch is; else to wait,
    which is for queues and computing elsewhere.
    """
    parts = np.zeros((n_gpus, len(Part)), dtype=np.int64)
    task = run.destination < 0
    np.add.at(parts, (run.gpu[task], run.kind[task]), (run.end_ps - run.start_ps)[task])
    message = np.flatnonzero(~task)
    at_gpu = np.concatenate([run.gpu[message], run.destination[message]])
    message = np.concatenate([message, message])
    order = np.argsort(at_gpu, kind="stable")
    message, first = message[order], np.searchsorted(at_gpu[order], np.arange(n_gpus + 1))
    by_gpu = np.argsort(run.gpu[task], kind="stable")
    tasks, first_task = np.flatnonzero(task)[by_gpu], np.searchsorted(run.gpu[task][by_gpu], np.arange(n_gpus + 1))
    for x in range(n_gpus):
        own = message[first[x] : first[x + 1]]
        busy = tasks[first_task[x] : first_task[x + 1]]
        dispatch, combine = (own[run.kind[own] == kind] for kind in (Part.DISPATCH, Part.COMBINE))
        parts[x, Part.DISPATCH], parts[x, Part.COMBINE] = _exposed(run, busy, dispatch, combine)
        parts[x, Part.WAIT] = run.makespan_ps - parts[x].sum()
    return parts


def _exposed(run: QueuedRun, *nodes: NDArray[np.int64]) -> list[int]:
    """Time in which each of the later kinds of nodes is under way and none of the kinds before it is."""
    times = np.concatenate([np.concatenate([run.start_ps[own], run.end_ps[own]]) for own in nodes])
    order = np.argsort(times, kind="stable")
    length = np.diff(times[order], append=times[order][-1:])
    free = np.ones(len(times), dtype=np.bool_)
    result, offset = [], 0
    for own in nodes:
        change = np.zeros(len(times), dtype=np.int64)
        change[offset : offset + len(own)] = 1
        change[offset + len(own) : offset + 2 * len(own)] = -1
        offset += 2 * len(own)
        active = np.cumsum(change[order]) > 0
        result.append(int(length[free & active].sum()))
        free &= ~active
    return result[1:]


def path_of_nodes(run: QueuedRun, n_gpus: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The chain of tasks and messages that made the step as long as it was: time by part [parts] and by GPU [G].

    Back from the last end, from each node to the one that let it begin; a node
    costs what passed until its successor began, so that both arrays sum to the
    step time. Of messages it is the sender's time, with all queueing at ports.
    """
    by_part = np.zeros(len(Part), dtype=np.int64)
    by_gpu = np.zeros(n_gpus, dtype=np.int64)
    if len(run.end_ps) == 0:
        return by_part, by_gpu
    node, until = int(run.end_ps.argmax()), run.makespan_ps
    while node >= 0:
        cost = until - int(run.start_ps[node])
        by_part[run.kind[node]] += cost
        by_gpu[run.gpu[node]] += cost
        node, until = int(run.cause[node]), int(run.start_ps[node])
    return by_part, by_gpu
