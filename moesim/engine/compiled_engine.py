"""The compiled interpreter of a program: one sweep over its operations, no event heap.

It runs what needs no events: nothing but the program happens in a step. Every
operation starts when its predecessors and the one before it on its stream have
ended; an exchange moves when its last participant has entered. That is all
that the SimPy interpreter does too, so both agree to the picosecond.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.engine.admission import admitted, check_admission
from moesim.engine.closed_form import transfer_ps
from moesim.engine.faults import task_end
from moesim.engine.ports import exchange, free_ports, latencies, node_copies
from moesim.types import Part, Program, Timeline


def run_compiled(program: Program) -> Timeline:
    """Run a program to its end.

    Raises:
        ConservationError: a slot was sent more tokens than it admits.
    """
    check_admission(program)
    waits_for = program.waits_for()
    counts = np.array([len(before) for before in waits_for], dtype=np.int64)
    start = np.zeros((program.n_operations, program.n_gpus), dtype=np.int64)
    end = np.zeros_like(start)
    first = np.concatenate([[0], np.cumsum(counts)])
    before = np.array([p for earlier in waits_for for p in earlier], dtype=np.int64)
    if program.network == "port" and program.n_gpus > 1:
        _sweep_ports(
            program.duration_ps,
            program.exchange_row,
            program.kind == Part.DISPATCH,
            program.copy_rule == "per-node",
            program.synchronous,
            program.copies,
            node_copies(program),
            _stacked(program, "out_ps"),
            _stacked(program, "in_ps"),
            latencies(program),
            program.slow_gpus,
            program.slow_links,
            program.gpus_per_node,
            free_ports(program.n_gpus),
            first,
            before,
            start,
            end,
        )
    else:
        _sweep(
            program.duration_ps,
            transfer_ps(program),
            program.exchange_row >= 0,
            program.slow_gpus,
            first,
            before,
            start,
            end,
        )
    return Timeline(start_ps=start, end_ps=end, admitted=admitted(program), n_events=start.size)


def _stacked(program: Program, name: str) -> NDArray[np.int64]:
    """A rate of both payloads, [combine or dispatch, ...]."""
    return np.stack([getattr(program.combine, name), getattr(program.dispatch, name)])


@njit
def _begin(
    first: NDArray[np.int64], before: NDArray[np.int64], o: int, start: NDArray[np.int64], end: NDArray[np.int64]
) -> None:
    """Operation o waits for before[first[o]:first[o + 1]], which are earlier ones."""
    for k in range(first[o], first[o + 1]):
        p = before[k]
        for x in range(start.shape[1]):
            start[o, x] = max(start[o, x], end[p, x])


@njit
def _sweep(
    duration: NDArray[np.int64],
    transfer: NDArray[np.int64],
    is_exchange: NDArray[np.bool_],
    slow_gpus: NDArray[np.float64],
    first: NDArray[np.int64],
    before: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
) -> None:
    """Fill start and end [O, G]; an exchange takes its closed form after the last entry."""
    n_ops, n_gpus = start.shape
    for o in range(n_ops):
        _begin(first, before, o, start, end)
        if is_exchange[o]:
            entered = start[o, 0]
            for x in range(1, n_gpus):
                entered = max(entered, start[o, x])
            for x in range(n_gpus):
                end[o, x] = entered + transfer[o, x]
        else:
            for x in range(n_gpus):
                end[o, x] = task_end(start[o, x], duration[o, x], x, slow_gpus)


@njit
def _sweep_ports(
    duration: NDArray[np.int64],
    row: NDArray[np.int64],
    is_dispatch: NDArray[np.bool_],
    per_node: bool,
    synchronous: bool,
    copies: NDArray[np.int64],
    nodes: NDArray[np.int64],
    out_ps: NDArray[np.int64],
    in_ps: NDArray[np.int64],
    latency: NDArray[np.int64],
    slow_gpus: NDArray[np.float64],
    slow_links: NDArray[np.float64],
    m: int,
    free: NDArray[np.int64],
    first: NDArray[np.int64],
    before: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
) -> None:
    """The same with every message at its ports; `row` of the matrix of each exchange, -1 = compute."""
    n_ops, n_gpus = start.shape
    arrival = np.empty((n_gpus, n_gpus), dtype=np.int64)
    for o in range(n_ops):
        _begin(first, before, o, start, end)
        if row[o] < 0:
            for x in range(n_gpus):
                end[o, x] = task_end(start[o, x], duration[o, x], x, slow_gpus)
            continue
        payload = 1 if is_dispatch[o] else 0
        exchange(
            is_dispatch[o],
            per_node,
            start[o],
            copies[row[o]],
            nodes[row[o]],
            out_ps[payload],
            in_ps[payload],
            latency[o],
            slow_links,
            m,
            free,
            end[o],
            arrival,
        )
        if synchronous:
            end[o] = end[o].max()
