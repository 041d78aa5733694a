"""The evenly loaded twin of a step, against which the imbalance penalty is measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.types import TWO_LEVELS, NetworkLevels, Placement, Traffic, nodes_of


def balanced_traffic(
    traffic: Traffic,
    placement: Placement,
    *,
    gpus_per_node: int,
    copy_rule: str,
    usable: NDArray[np.bool_] | None = None,
    levels: NetworkLevels = TWO_LEVELS,
) -> Traffic:
    """The same number of processed assignments and of copies per source and level, spread evenly.

    Assignments go evenly over the ranks that hold slots and, within each, over
    its slots; each source's copies of a level evenly over the destinations of
    that level; what a source keeps for itself stays. Remainders go to the
    lowest index. Copies that go to every GPU ("all") do not depend on the load and
    stay as they are. The placement, the capacity result and the network are the same.
    Expert-parallel groups keep what is theirs.

    Args:
        traffic: of the step.
        placement: the GPU of each slot.
        gpus_per_node: of the cluster.
        copy_rule: the collective's (NetworkSpec.copies).
        usable: slots [S] that take anything; None = all.
        levels: of the network.
    """
    rank = placement.rank if usable is None else np.where(usable, placement.rank, np.int32(-1))
    shared_by = placement.expert_tp
    if placement.n_groups == 1:
        between = levels.between(placement.n_ranks, gpus_per_node)
        return _balanced(traffic, rank, shared_by, gpus_per_node, copy_rule, between)
    even = Traffic(
        slot_tokens=np.zeros_like(traffic.slot_tokens),
        copies=np.zeros_like(traffic.copies),
        node_copies=np.zeros_like(traffic.node_copies),
    )
    for gpus, slots in placement.groups():
        part, nodes = _part_of(traffic, gpus, slots, gpus_per_node)
        own = np.where(rank[slots] < 0, np.int32(-1), rank[slots] - np.int32(gpus.start))
        a_node = min(gpus_per_node, placement.group_gpus)
        between = levels.between(placement.group_gpus, a_node)
        spread = _balanced(part, own, shared_by, a_node, copy_rule, between)
        even.slot_tokens[:, slots] = spread.slot_tokens
        even.copies[:, gpus, gpus] = spread.copies
        even.node_copies[:, gpus, nodes] = spread.node_copies
    return even


def _part_of(traffic: Traffic, gpus: slice, slots: slice, gpus_per_node: int) -> tuple[Traffic, slice]:
    """What belongs to a group of consecutive GPUs, with the nodes that it is on; it sends nothing out of it."""
    nodes = nodes_of(gpus, gpus_per_node)
    node_copies = traffic.node_copies[:, gpus, nodes] if traffic.node_copies.size else traffic.node_copies
    part = Traffic(
        slot_tokens=traffic.slot_tokens[:, slots],
        copies=np.ascontiguousarray(traffic.copies[:, gpus, gpus]),
        node_copies=np.ascontiguousarray(node_copies),
    )
    return part, nodes


def _balanced(
    traffic: Traffic,
    rank: NDArray[np.int32],
    shared_by: int,
    gpus_per_node: int,
    copy_rule: str,
    between: NDArray[np.int64],
) -> Traffic:
    """The same of one group; `rank` [S] is -1 for slots that take nothing, each slot is on `shared_by` GPUs.

    `between` [G, G] is the level of a copy between each two of its GPUs.
    """
    n_ranks = len(between)
    slots = np.bincount(rank[rank >= 0], minlength=n_ranks)
    holders = np.flatnonzero(slots)
    per_rank = np.zeros((len(traffic.slot_tokens), n_ranks), dtype=np.int64)
    share = _spread(traffic.slot_tokens.sum(axis=1)[:, None], np.arange(len(holders)), max(1, len(holders)))
    per_rank[:, holders] = share
    by_rank = np.argsort(rank, kind="stable")[np.count_nonzero(rank < 0) :]  # slots that take anything
    own = rank[by_rank]
    place = np.arange(len(by_rank)) - (np.cumsum(slots) - slots)[own]  # of a slot among those of its rank
    slot_tokens = np.zeros_like(traffic.slot_tokens)
    slot_tokens[:, by_rank] = _spread(per_rank[:, own], place, slots[own])
    if copy_rule == "all":
        return Traffic(slot_tokens=slot_tokens, copies=traffic.copies, node_copies=traffic.node_copies)
    gpu = np.arange(n_ranks)
    node, own_rank = gpu // gpus_per_node, gpu // shared_by * shared_by  # where a GPU keeps what it does not send
    holds = (slots > 0) & (own_rank[:, None] != gpu)
    copies = np.zeros_like(traffic.copies)
    copies[:, gpu, own_rank] = traffic.copies[:, gpu, own_rank]
    used = range(max(2, int(between.max()) + 1))
    _spread_copies(traffic.copies, np.stack([holds & (between == level) for level in used], axis=1), copies)
    if shared_by > 1:
        copies = np.repeat(copies[:, :, ::shared_by], shared_by, axis=2)
    node_copies = traffic.node_copies
    if copy_rule == "per-node":
        node_copies = node_copies.copy()
        node_holds = np.bincount(node, weights=slots) > 0
        to_node = between[:, ::gpus_per_node]
        wanted = np.stack([node_holds & (to_node == level) for level in used[1:]], axis=1)
        _spread_copies(traffic.node_copies, wanted, node_copies)
    return Traffic(slot_tokens=slot_tokens, copies=copies, node_copies=node_copies)


@njit
def _spread_copies(copies: NDArray[np.int64], wanted: NDArray[np.bool_], out: NDArray[np.int64]) -> None:
    """Spread what each source sends to each set of destinations evenly over them.

    Args:
        copies: [L, G, destinations].
        wanted: the sets [G, sets, destinations]; they do not overlap.
        out: [L, G, destinations], written where a destination is in a set.
    """
    own = np.empty(copies.shape[2], dtype=np.uint64)  # unsigned indices need no test for negative ones
    for source in range(copies.shape[1]):
        for k in range(wanted.shape[1]):
            n = 0
            for d in range(copies.shape[2]):
                if wanted[source, k, d]:
                    own[n] = d
                    n += 1
            for layer in range(copies.shape[0] if n else 0):
                total = 0
                for i in range(n):
                    total += copies[layer, source, own[i]]
                share, rest = total // n, total % n
                for i in range(n):
                    out[layer, source, own[i]] = share + (i < rest)


def _spread(total: NDArray[np.int64], place: NDArray[np.int64], n: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """What is at each place [S] when totals [L, S] are each cut in n nearly equal parts, the first larger by one."""
    share, rest = np.divmod(total, n)
    return np.asarray(share + (place < rest), dtype=np.int64)
