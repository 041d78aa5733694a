"""Closed form of an exchange: last entry + latency + the busiest port of the GPU, shared uplinks included."""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.links import port_counts
from moesim.types import Exchange, Part, Program


def transfer_ps(program: Program) -> NDArray[np.int64]:
    """Picoseconds from the last entry of each operation to its end on each GPU, [O, G]; 0 for compute.

    Every GPU sends a flag to every other, so each level that exists costs its
    latency; a GPU is busy for the longest of what each of its egress and
    ingress ports carries, and of what the shared uplinks of the units that it
    stands in carry up and down, which cost the longest latency above them. Levels
    work side by side, except that a per-node collective passes one after the
    other, within nodes and above them, and pays both latencies. One GPU
    alone exchanges nothing. Where exchanges end together, that of the busiest GPU counts for all.
    """
    n_gpus = program.n_gpus
    result = np.zeros((program.n_operations, n_gpus), dtype=np.int64)
    if n_gpus == 1:
        return result
    sent, received = port_counts(
        program.copies,
        program.node_copies,
        copy_rule=program.copy_rule,
        gpus_per_node=program.gpus_per_node,
        levels=program.levels,
    )
    by_kind: dict[int, NDArray[np.int64]] = {
        Part.DISPATCH: _gpu_ps(program, program.dispatch, sent, received),
        Part.COMBINE: _gpu_ps(program, program.combine, received, sent),
    }
    for o in np.flatnonzero(program.exchange_row >= 0):
        own = by_kind[int(program.kind[o])][program.exchange_row[o]]
        result[o] = own.max() if program.synchronous else own
    return result


def _gpu_ps(program: Program, exchange: Exchange, out: NDArray[np.int64], into: NDArray[np.int64]) -> NDArray[np.int64]:
    """Latency and port time of each layer and GPU, [L, G], of copies [L, levels, G]."""
    levels = program.levels
    sizes = [1, *np.minimum(levels.sizes(program.gpus_per_node), program.n_gpus).tolist(), program.n_gpus]
    exist = [level for level in range(levels.n_levels) if sizes[level + 1] > sizes[level]]
    latency: list[int] = exchange.latency_ps.tolist()
    busy: list[tuple[NDArray[np.int64], int]] = []  # [L, G] with the latency that comes on top
    for port in dict.fromkeys(levels.ports[level] for level in exist):
        own = [level for level in exist if levels.ports[level] == port]
        sent, received = (_over(way, own) for way in (out, into))
        carried = np.maximum(sent * exchange.out_ps[port], received * exchange.in_ps[port])
        busy.append((carried, max(latency[level] for level in own)))
    for k, copy_ps in enumerate(exchange.uplink_ps.tolist()):
        above = [level for level in exist if level > k]
        if copy_ps and above:
            first = np.arange(0, program.n_gpus, sizes[k + 1])
            up, down = (np.add.reduceat(_over(way, above), first, axis=1) for way in (out, into))
            unit_ps = np.repeat(np.maximum(up, down) * copy_ps, sizes[k + 1], axis=1)[:, : program.n_gpus]
            busy.append((unit_ps, max(latency[level] for level in above)))
    in_turn = program.copy_rule == "per-node"
    wire = (latency[0] if 0 in exist else 0) + max((latency[level] for level in exist if level), default=0)
    times = [carried + (0 if in_turn else own) for carried, own in busy]
    return np.asarray(reduce(np.maximum, times) + (wire if in_turn else 0), dtype=np.int64)


def _over(copies: NDArray[np.int64], levels: list[int]) -> NDArray[np.int64]:
    """Copies [L, levels, G] over all of these levels, [L, G]."""
    return copies[:, levels[0]] if len(levels) == 1 else copies[:, levels].sum(axis=1)
