"""Bytes and messages of a step on the physical links of each level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.links import add_links, port_counts
from moesim.types import Part, Program, QueuedRun


def link_traffic(
    program: Program, *, dispatch_bytes: int, combine_bytes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Messages and bytes over each link in a step, [levels, from G, to G] each.

    A message is an exchange in which the link carries anything; bytes of one copy are given for both payloads.
    """
    levels = program.levels
    messages = np.zeros((levels.n_levels, program.n_gpus, program.n_gpus), dtype=np.int64)
    carried = np.zeros_like(messages)
    per_node = program.copy_rule == "per-node"
    none, units = np.zeros((0, 0), dtype=np.int64), np.array(levels.units, dtype=np.int64)
    for o in np.flatnonzero(program.exchange_row >= 0):
        row, forward = program.exchange_row[o], bool(program.kind[o] == Part.DISPATCH)
        add_links(
            program.copies[row],
            program.node_copies[row] if per_node else none,
            per_node,
            program.gpus_per_node,
            units,
            forward,
            dispatch_bytes if forward else combine_bytes,
            messages,
            carried,
        )
    return messages, carried


def gpu_copies(program: Program) -> NDArray[np.int64]:
    """Copies that each GPU sends in each exchange, over all levels, and assignments of its experts, [O, G]; else 0."""
    out, back = port_counts(
        program.copies,
        program.node_copies,
        copy_rule=program.copy_rule,
        gpus_per_node=program.gpus_per_node,
        levels=program.levels,
    )
    copies = np.zeros((program.n_operations, program.n_gpus), dtype=np.int64)
    for o in np.flatnonzero(program.exchange_row >= 0):
        row = int(program.exchange_row[o])
        copies[o] = (out if program.kind[o] == Part.DISPATCH else back)[row].sum(axis=0)
    for i, experts in enumerate(program.expert_rows()):
        if experts >= 0:
            for gpu in range(program.expert_tp):  # each of those that share a slot computes all of its tokens
                np.add.at(copies[i], program.slot_rank + gpu, program.slot_tokens[experts])
    return copies


def uplinks_busy_ps(program: Program) -> NDArray[np.int64]:
    """How long the busiest shared uplink of each level but the last carries in a step, up or down, [levels - 1].

    An uplink that is never full counts as idle.
    """
    levels = program.levels
    busy = np.zeros((2, levels.n_levels - 1, program.n_gpus), dtype=np.int64)
    if not (program.dispatch.has_uplinks or program.combine.has_uplinks):
        return np.zeros(levels.n_levels - 1, dtype=np.int64)
    out, back = port_counts(
        program.copies,
        program.node_copies,
        copy_rule=program.copy_rule,
        gpus_per_node=program.gpus_per_node,
        levels=levels,
    )
    for o in np.flatnonzero(program.exchange_row >= 0):
        forward = program.kind[o] == Part.DISPATCH
        payload = program.dispatch if forward else program.combine
        sent, received = (out, back) if forward else (back, out)
        for side, copies in enumerate((sent[program.exchange_row[o]], received[program.exchange_row[o]])):
            busy[side] += _above(copies) * payload.uplink_ps[:, None]
    return _busiest(busy, levels.sizes(program.gpus_per_node))


def queued_uplinks_busy_ps(run: QueuedRun, program: Program) -> NDArray[np.int64]:
    """The same of a step with expert queues, whose exchanges have the rates of a program."""
    levels = program.levels
    carried = np.zeros((2, levels.n_levels, program.n_gpus), dtype=np.int64)
    busy = np.zeros((2, levels.n_levels - 1, program.n_gpus), dtype=np.int64)
    for kind, payload in ((Part.DISPATCH, program.dispatch), (Part.COMBINE, program.combine)):
        if payload.has_uplinks:
            own = (run.kind == kind) & (run.destination >= 0)
            carried[:] = 0
            np.add.at(carried[0], (run.level[own], run.gpu[own]), run.tokens[own])
            np.add.at(carried[1], (run.level[own], run.destination[own]), run.tokens[own])
            for side in range(2):
                busy[side] += _above(carried[side]) * payload.uplink_ps[:, None]
    return _busiest(busy, levels.sizes(program.gpus_per_node))


def _above(copies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Copies of each GPU that leave its unit of each level but the last, [levels - 1, G], of those by level."""
    return copies[:0:-1].cumsum(axis=0)[::-1]


def _busiest(busy: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest sum over the GPUs of a unit, of what is [up or down, levels - 1, G]."""
    n_gpus = busy.shape[2]
    units = [np.add.reduceat(busy[:, k], np.arange(0, n_gpus, size), axis=1) for k, size in enumerate(sizes)]
    return np.array([own.max() for own in units], dtype=np.int64)
