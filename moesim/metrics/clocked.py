"""A program and its timeline as what the results keep of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.metrics.conservation import check_program
from moesim.metrics.latency import breakdown, critical_path
from moesim.metrics.traffic import gpu_bytes, link_traffic
from moesim.types import PARTS, Clocked, Program, Tasks, Timeline


def clocked(
    program: Program, timeline: Timeline, *, dispatch_bytes: int, combine_bytes: int, keep_tasks: bool
) -> Clocked:
    """Parts, critical path and traffic of a step.

    Args:
        program: what was to be done.
        timeline: when it was done.
        dispatch_bytes: of one copy of a token.
        combine_bytes: of one copy on its way back.
        keep_tasks: also give a row for every operation on every GPU.

    Raises:
        ConservationError: tokens or time were lost.
    """
    check_program(program, timeline)
    critical, critical_gpu = critical_path(program, timeline)
    messages, carried = link_traffic(program, dispatch_bytes=dispatch_bytes, combine_bytes=combine_bytes)
    tasks = None
    if keep_tasks:
        tasks = _tasks(
            program, timeline, gpu_bytes(program, dispatch_bytes=dispatch_bytes, combine_bytes=combine_bytes)
        )
    return Clocked(
        makespan_ps=int(timeline.end_ps.max()),
        parts_ps=breakdown(program, timeline),
        critical_ps=critical,
        critical_gpu_ps=critical_gpu,
        messages=messages,
        bytes=carried,
        n_events=timeline.n_events,
        tasks=tasks,
    )


def _tasks(program: Program, timeline: Timeline, sent: NDArray[np.int64]) -> Tasks:
    """Rows in the order of GPUs, then of operations."""
    n_ops, n_gpus = timeline.start_ps.shape
    return Tasks(
        gpu=np.repeat(np.arange(n_gpus), n_ops),
        stream=np.tile(program.stream, n_gpus),
        layer=np.tile(program.layer, n_gpus),
        kind=np.tile(np.array(PARTS)[program.kind], n_gpus),
        start_ps=timeline.start_ps.T.ravel(),
        end_ps=timeline.end_ps.T.ravel(),
        bytes=sent.T.ravel(),
    )
