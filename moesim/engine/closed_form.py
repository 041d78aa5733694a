"""Closed form of an exchange: last entry + latency + the GPU's busiest port."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.links import port_counts
from moesim.types import Exchange, Part, Program


def transfer_ps(program: Program) -> NDArray[np.int64]:
    """Picoseconds from the last entry of each operation to its end on each GPU, [O, G]; 0 for compute.

    Every GPU sends a flag to every other, so each level that exists costs its
    latency; on it a GPU is busy for the longer of what its egress and its
    ingress port carry. Levels work side by side, except that a per-node
    collective passes one after the other and pays both latencies. One GPU
    alone exchanges nothing. Where exchanges end together, that of the busiest GPU counts for all.
    """
    n_gpus, m = program.n_gpus, program.gpus_per_node
    result = np.zeros((program.n_operations, n_gpus), dtype=np.int64)
    if n_gpus == 1:
        return result
    sent, received = port_counts(program.copies, program.node_copies, copy_rule=program.copy_rule, gpus_per_node=m)
    levels = [level for level, exists in enumerate((min(m, n_gpus) > 1, n_gpus > m)) if exists]
    both_hops = program.copy_rule == "per-node"
    by_kind: dict[int, NDArray[np.int64]] = {
        Part.DISPATCH: _gpu_ps(program.dispatch, sent, received, levels, both_hops),
        Part.COMBINE: _gpu_ps(program.combine, received, sent, levels, both_hops),
    }
    for o in np.flatnonzero(program.exchange_row >= 0):
        own = by_kind[int(program.kind[o])][program.exchange_row[o]]
        result[o] = own.max() if program.synchronous else own
    return result


def _gpu_ps(
    exchange: Exchange,
    out: NDArray[np.int64],
    into: NDArray[np.int64],
    levels: list[int],
    both_hops: bool,
) -> NDArray[np.int64]:
    """Latency and port time of each layer and GPU, [L, G]."""
    busy = np.maximum(out * exchange.out_ps, into * exchange.in_ps)[:, levels]  # [L, levels, G]
    latency = exchange.latency_ps[levels]
    if both_hops:
        return np.asarray(busy.max(axis=1) + latency.sum(), dtype=np.int64)
    return np.asarray((busy + latency[None, :, None]).max(axis=1), dtype=np.int64)
