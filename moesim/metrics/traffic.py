"""Bytes and messages of a step on the physical links of the two levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.links import link_counts
from moesim.types import PARTS, Program

_DISPATCH = PARTS.index("dispatch")


def link_bytes(program: Program, *, dispatch_bytes: int, combine_bytes: int) -> NDArray[np.int64]:
    """Bytes over each link in a step, [2 levels, from G, to G]; bytes of one copy are given for both payloads."""
    links = _links(program).sum(axis=0)
    return np.asarray(
        links * dispatch_bytes + links.transpose(0, 2, 1) * combine_bytes,
        dtype=np.int64,
    )


def link_messages(program: Program) -> NDArray[np.int64]:
    """Messages over each link in a step, [2, G, G]: one an exchange in which the link carries anything."""
    used = (_links(program) > 0).sum(axis=0)
    return np.asarray(used + used.transpose(0, 2, 1), dtype=np.int64)


def gpu_bytes(program: Program, *, dispatch_bytes: int, combine_bytes: int) -> NDArray[np.int64]:
    """Bytes that each GPU sends in each operation, over both levels, [O, G]; 0 for compute."""
    links = _links(program).sum(axis=1)  # [L, G, G]
    sent = np.zeros((program.n_operations, program.n_gpus), dtype=np.int64)
    for o, layer in enumerate(program.exchange_layer):
        if layer >= 0:
            dispatch = program.kind[o] == _DISPATCH
            sent[o] = (
                links[layer].sum(axis=1) * dispatch_bytes if dispatch else links[layer].sum(axis=0) * combine_bytes
            )
    return sent


def _links(program: Program) -> NDArray[np.int64]:
    return link_counts(
        program.copies,
        program.node_copies,
        copies_rule=program.copies_rule,
        gpus_per_node=program.gpus_per_node,
    )
