"""A step that was run, in either way, as what the results keep of it."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from moesim.metrics.conservation import check_program
from moesim.metrics.latency import breakdown, critical_path, until_lost
from moesim.metrics.queue_times import breakdown_of_nodes, path_of_nodes
from moesim.metrics.traffic import gpu_copies, link_traffic, queued_uplinks_busy_ps, uplinks_busy_ps
from moesim.types import PARTS, Part, Program, QueuedRun, QueueTotals, StepTimes, Tasks, Timeline


def step_times(
    program: Program, timeline: Timeline, *, dispatch_bytes: int, combine_bytes: int, keep_tasks: bool
) -> StepTimes:
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
    return StepTimes(
        makespan_ps=timeline.makespan_ps,
        parts_ps=breakdown(program, timeline),
        critical_ps=critical,
        critical_gpu_ps=critical_gpu,
        messages=messages,
        bytes=carried,
        n_events=timeline.n_events,
        tasks=_tasks(program, timeline, dispatch_bytes, combine_bytes) if keep_tasks else None,
        uplinks_ps=uplinks_busy_ps(program),
    )


def later(step: StepTimes, waited_ps: int) -> StepTimes:
    """A step whose GPUs all wait for so long before anything of it runs."""
    parts, critical, critical_gpu = step.parts_ps.copy(), step.critical_ps.copy(), step.critical_gpu_ps.copy()
    parts[:, Part.WAIT] += waited_ps
    critical[Part.WAIT] += waited_ps
    critical_gpu[critical_gpu.argmax()] += waited_ps
    tasks = step.tasks
    if tasks is not None:
        tasks = replace(tasks, start_ps=tasks.start_ps + waited_ps, end_ps=tasks.end_ps + waited_ps)
    return replace(
        step,
        makespan_ps=step.makespan_ps + waited_ps,
        parts_ps=parts,
        critical_ps=critical,
        critical_gpu_ps=critical_gpu,
        tasks=tasks,
    )


def queued_step_times(
    run: QueuedRun, program: Program, *, dispatch_bytes: int, combine_bytes: int, keep_tasks: bool
) -> StepTimes:
    """The same of a step with expert queues; the program has the rates of its exchanges."""
    n_gpus, n_levels = program.n_gpus, program.levels.n_levels
    critical, critical_gpu = path_of_nodes(run, n_gpus)
    copy_bytes = np.zeros(len(Part), dtype=np.int64)
    copy_bytes[[Part.DISPATCH, Part.COMBINE]] = dispatch_bytes, combine_bytes
    node_bytes = run.tokens * copy_bytes[run.kind]
    sent = run.destination >= 0
    link = run.level[sent], run.gpu[sent], run.destination[sent]
    messages = np.zeros((n_levels, n_gpus, n_gpus), dtype=np.int64)
    carried = np.zeros_like(messages)
    np.add.at(messages, link, 1)
    np.add.at(carried, link, node_bytes[sent])
    _, _, since, until, tokens = run.waits.T
    return StepTimes(
        makespan_ps=run.makespan_ps,
        parts_ps=breakdown_of_nodes(run, n_gpus),
        critical_ps=critical,
        critical_gpu_ps=critical_gpu,
        messages=messages,
        bytes=carried,
        n_events=run.n_events,
        tasks=_node_tasks(run, node_bytes) if keep_tasks else None,
        queues=QueueTotals(
            tokens=int(tokens.sum()),
            wait_ps=int(((until - since) * tokens).sum()),
            longest_wait_ps=int((until - since).max(initial=0)),
            longest_queue=run.longest_queue,
        ),
        uplinks_ps=queued_uplinks_busy_ps(run, program),
    )


def _tasks(program: Program, timeline: Timeline, dispatch_bytes: int, combine_bytes: int) -> Tasks:
    """Rows in the order of GPUs, then of operations."""
    n_ops, n_gpus = timeline.start_ps.shape
    tokens = gpu_copies(program)
    dispatch = (program.kind == Part.DISPATCH)[:, None]
    exchange = (program.exchange_row >= 0)[:, None]
    sent = np.where(exchange, tokens * np.where(dispatch, dispatch_bytes, combine_bytes), 0)
    start, end = until_lost(program, timeline)
    return Tasks(
        gpu=np.repeat(np.arange(n_gpus), n_ops),
        stream=np.tile(program.stream, n_gpus),
        layer=np.tile(program.layer, n_gpus),
        kind=np.tile(np.array(PARTS)[program.kind], n_gpus),
        start_ps=start.T.ravel(),
        end_ps=end.T.ravel(),
        bytes=sent.T.ravel(),
        tokens=tokens.T.ravel(),
    )


QUEUE, QUEUE_STREAM = "queue", 2


def _node_tasks(run: QueuedRun, node_bytes: NDArray[np.int64]) -> Tasks:
    """A row a task (stream 0), a message of its sender (stream 1) and a wait in a queue (stream 2)."""
    gpu, layer, since, until, tokens = run.waits.T
    rows = Tasks(
        gpu=np.concatenate([run.gpu, gpu]),
        stream=np.concatenate([(run.destination >= 0).astype(np.int64), np.full(len(gpu), QUEUE_STREAM)]),
        layer=np.concatenate([run.layer, layer]),
        kind=np.concatenate([np.array(PARTS)[run.kind], np.full(len(gpu), QUEUE)]),
        start_ps=np.concatenate([run.start_ps, since]),
        end_ps=np.concatenate([run.end_ps, until]),
        bytes=np.concatenate([node_bytes, np.zeros(len(gpu), dtype=np.int64)]),
        tokens=np.concatenate([run.tokens, tokens]),
    )
    order = np.lexsort((rows.end_ps, rows.start_ps, rows.stream, rows.gpu))
    return Tasks(**{field.name: getattr(rows, field.name)[order] for field in fields(rows)})
