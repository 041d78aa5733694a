"""Programs of several expert-parallel groups: each runs as one of its own, as nothing passes between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.engine.closed_form import transfer_ps
from moesim.types import Exchange, Program, Timeline, nodes_of

Interpreter = Callable[[Program], Timeline]


def in_groups(interpret: Interpreter) -> Interpreter:
    """The interpreter that runs the groups of a program one by one; they begin together."""

    def run(program: Program) -> Timeline:
        if program.n_groups == 1:
            return interpret(program)
        parts = [interpret(group_program(program, group)) for group in range(program.n_groups)]
        return Timeline(
            start_ps=np.concatenate([part.start_ps for part in parts], axis=1),
            end_ps=np.concatenate([part.end_ps for part in parts], axis=1),
            admitted=np.concatenate([part.admitted for part in parts], axis=1),
            n_events=sum(part.n_events for part in parts),
        )

    return run


def transfers_ps(program: Program) -> NDArray[np.int64]:
    """Closed form of every exchange on each GPU, [O, G] (`closed_form.transfer_ps`), group by group."""
    if program.n_groups == 1:
        return transfer_ps(program)
    parts = [transfer_ps(group_program(program, group)) for group in range(program.n_groups)]
    return np.concatenate(parts, axis=1)


def group_program(program: Program, group: int) -> Program:
    """What the GPUs of one group do, numbered from 0, in nodes of their own."""
    n_gpus, n_slots = program.group_gpus, program.slot_tokens.shape[1] // program.n_groups
    first, last = group * n_gpus, (group + 1) * n_gpus
    gpus, slots = slice(first, last), slice(group * n_slots, (group + 1) * n_slots)
    nodes = nodes_of(gpus, program.gpus_per_node)
    node_copies = program.node_copies
    return dataclasses.replace(
        program,
        n_gpus=n_gpus,
        gpus_per_node=min(program.gpus_per_node, n_gpus),
        duration_ps=_own(program.duration_ps, gpus),
        copies=_own(program.copies[:, gpus], gpus),
        node_copies=_own(node_copies[:, gpus], nodes) if node_copies.size else node_copies,
        dispatch=_ports(program.dispatch, gpus),
        combine=_ports(program.combine, gpus),
        slot_tokens=_own(program.slot_tokens, slots),
        slot_capacity=_own(program.slot_capacity, slots),
        slot_rank=program.slot_rank[slots] - np.int32(first),
        n_groups=1,
        latency_ps=None if program.latency_ps is None else _own(program.latency_ps, gpus),
        slow_gpus=_of_group(program.slow_gpus, 0, gpus),
        slow_links=_of_group(program.slow_links, 1, gpus),
        compute_factor=None if program.compute_factor is None else _own(program.compute_factor, gpus),
        lost_ps=None if program.lost_ps is None else program.lost_ps[gpus],
    )


def _own(values: NDArray[Any], where: slice) -> NDArray[Any]:
    """Of the last axis, contiguous as compiled code wants it."""
    return np.ascontiguousarray(values[..., where])


def _ports(exchange: Exchange, gpus: slice) -> Exchange:
    return dataclasses.replace(exchange, out_ps=_own(exchange.out_ps, gpus), in_ps=_own(exchange.in_ps, gpus))


def _of_group(rows: NDArray[np.float64], column: int, gpus: slice) -> NDArray[np.float64]:
    """The rows of a table of faults whose GPU, in that column, is of the group, with its number there."""
    own: NDArray[np.float64] = rows[(rows[:, column] >= gpus.start) & (rows[:, column] < gpus.stop)]
    own[:, column] -= gpus.start
    return own
