"""Bytes and messages of a step on the physical links of each level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.links import add_links, port_counts
from moesim.types import Part, Program


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
