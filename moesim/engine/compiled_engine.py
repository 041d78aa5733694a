"""The compiled interpreter of a program: one sweep over its operations, no event heap.

It runs what needs no events: nothing but the program happens in a step. Every
operation starts when its predecessors and the one before it on its stream have
ended; an exchange moves when its last participant has entered. That is all
that the SimPy interpreter does too, so both agree to the picosecond.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.engine.admission import admitted, check_admission
from moesim.engine.closed_form import transfer_ps
from moesim.engine.faults import task_end
from moesim.engine.port_exchange import exchange, latencies, node_copies, used_uplinks
from moesim.engine.ports import Ports, free_ports, free_uplinks
from moesim.types import Part, Program, Timeline


def run_compiled(program: Program) -> Timeline:
    """Run a program to its end.

    Raises:
        ConservationError: a slot was sent more tokens than it admits.
    """
    check_admission(program)
    waits = _waits(program)
    start = np.zeros((program.n_operations, program.n_gpus), dtype=np.int64)
    end = np.zeros_like(start)
    if program.network == "port" and program.n_gpus > 1:
        _sweep_ports(waits, program.duration_ps, program.slow_gpus, _exchanges(program), start, end)
    else:
        is_exchange = program.exchange_row >= 0
        _sweep(waits, program.duration_ps, program.slow_gpus, transfer_ps(program), is_exchange, start, end)
    return Timeline(start_ps=start, end_ps=end, admitted=admitted(program), n_events=start.size)


class _Waits(NamedTuple):
    """What operations wait for: operation o for those of `before[first[o] : first[o + 1]]`, which are earlier ones."""

    first: NDArray[np.int64]
    before: NDArray[np.int64]


class _Exchanges(NamedTuple):
    """The exchanges of a program and the ports that they go through; O operations, G GPUs, L matrices.

    Attributes:
        row: of the matrix of each exchange, [O]; -1 = compute.
        is_dispatch: else combine, [O].
        per_node: two-hop; else direct.
        synchronous: whether each ends on all GPUs at once.
        copies, node_copies: [L, G, G] and [L, G, N].
        out_ps, in_ps: of both payloads, [combine or dispatch, P, G].
        latency_ps: of each operation, [O, N, G].
        slow_links: as of a Program.
        gpus_per_node: of the cluster.
        free: when each port is free, [out or in, P, G]; exchanges move it on.
        units, port: of the levels of the network, as Ports has them.
        uplink_ps: of both payloads, [combine or dispatch, N - 1], or [.., 0] where none can be full.
        uplink_free: when each uplink is free, as Ports has it; exchanges move it on.
    """

    row: NDArray[np.int64]
    is_dispatch: NDArray[np.bool_]
    per_node: bool
    synchronous: bool
    copies: NDArray[np.int64]
    node_copies: NDArray[np.int64]
    out_ps: NDArray[np.int64]
    in_ps: NDArray[np.int64]
    latency_ps: NDArray[np.int64]
    slow_links: NDArray[np.float64]
    gpus_per_node: int
    free: NDArray[np.int64]
    units: NDArray[np.int64]
    port: NDArray[np.int64]
    uplink_ps: NDArray[np.int64]
    uplink_free: NDArray[np.int64]


def _waits(program: Program) -> _Waits:
    waits_for = program.waits_for()
    counts = np.array([len(before) for before in waits_for], dtype=np.int64)
    return _Waits(
        first=np.concatenate([[0], np.cumsum(counts)]),
        before=np.array([p for earlier in waits_for for p in earlier], dtype=np.int64),
    )


def _exchanges(program: Program) -> _Exchanges:
    return _Exchanges(
        row=program.exchange_row,
        is_dispatch=program.kind == Part.DISPATCH,
        per_node=program.copy_rule == "per-node",
        synchronous=program.synchronous,
        copies=program.copies,
        node_copies=node_copies(program),
        out_ps=np.stack([program.combine.out_ps, program.dispatch.out_ps]),
        in_ps=np.stack([program.combine.in_ps, program.dispatch.in_ps]),
        latency_ps=latencies(program),
        slow_links=program.slow_links,
        gpus_per_node=program.gpus_per_node,
        free=free_ports(program.n_gpus, program.levels),
        units=np.array(program.levels.units, dtype=np.int64),
        port=np.array(program.levels.ports, dtype=np.int64),
        uplink_ps=np.stack([used_uplinks(program, program.combine), used_uplinks(program, program.dispatch)]),
        uplink_free=free_uplinks(program.n_gpus, program.gpus_per_node, program.levels),
    )


@njit
def _begin(waits: _Waits, o: int, start: NDArray[np.int64], end: NDArray[np.int64]) -> None:
    """Operation o begins on each GPU when all that it waits for has ended there."""
    for k in range(waits.first[o], waits.first[o + 1]):
        p = waits.before[k]
        for x in range(start.shape[1]):
            start[o, x] = max(start[o, x], end[p, x])


@njit
def _sweep(
    waits: _Waits,
    duration: NDArray[np.int64],
    slow_gpus: NDArray[np.float64],
    transfer: NDArray[np.int64],
    is_exchange: NDArray[np.bool_],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
) -> None:
    """Fill start and end [O, G]; an exchange takes its closed form after the last entry."""
    n_ops, n_gpus = start.shape
    for o in range(n_ops):
        _begin(waits, o, start, end)
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
    waits: _Waits,
    duration: NDArray[np.int64],
    slow_gpus: NDArray[np.float64],
    exchanges: _Exchanges,
    start: NDArray[np.int64],
    end: NDArray[np.int64],
) -> None:
    """Fill start and end [O, G] with every message at its ports."""
    n_ops, n_gpus = start.shape
    arrival = np.empty((n_gpus, n_gpus), dtype=np.int64)
    for o in range(n_ops):
        _begin(waits, o, start, end)
        row = exchanges.row[o]
        if row < 0:
            for x in range(n_gpus):
                end[o, x] = task_end(start[o, x], duration[o, x], x, slow_gpus)
            continue
        forward = exchanges.is_dispatch[o]
        payload = 1 if forward else 0
        ports = Ports(
            exchanges.out_ps[payload],
            exchanges.in_ps[payload],
            exchanges.latency_ps[o],
            exchanges.slow_links,
            exchanges.gpus_per_node,
            exchanges.free,
            exchanges.units,
            exchanges.port,
            exchanges.uplink_ps[payload],
            exchanges.uplink_free,
        )
        copies, nodes = exchanges.copies[row], exchanges.node_copies[row]
        exchange(forward, exchanges.per_node, start[o], copies, nodes, ports, end[o], arrival)
        if exchanges.synchronous:
            end[o] = end[o].max()
