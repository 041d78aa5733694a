"""The evenly loaded twin of a step, against which the imbalance penalty is measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit
from moesim.types import Placement, Traffic


def balanced_traffic(
    traffic: Traffic,
    placement: Placement,
    *,
    gpus_per_node: int,
    copies_rule: str,
    usable: NDArray[np.bool_] | None = None,
) -> Traffic:
    """The same number of processed assignments and of copies per source and level, spread evenly.

    Assignments go evenly over the ranks that hold slots and, within each, over
    its slots; each source's copies of a level evenly over the destinations of
    that level; what a source keeps for itself stays. Remainders go to the
    lowest index. The placement, the capacity result and the network are the same.

    Args:
        traffic: of the step.
        placement: the GPU of each slot.
        gpus_per_node: of the cluster.
        copies_rule: the collective's (NetworkSpec.copies).
        usable: slots [S] that take anything; None = all.
    """
    n_ranks = placement.n_ranks
    own = np.arange(len(placement.rank)) if usable is None else np.flatnonzero(usable)
    rank_of = placement.rank[own]
    slots = np.bincount(rank_of, minlength=n_ranks)
    holders = np.flatnonzero(slots)
    per_rank = np.zeros((len(traffic.slot_tokens), n_ranks), dtype=np.int64)
    per_rank[:, holders] = _spread(traffic.slot_tokens.sum(axis=1)[:, None], np.arange(len(holders)), len(holders))
    by_rank = np.argsort(rank_of, kind="stable")
    place = np.empty_like(by_rank)  # of a slot among those of its rank
    place[by_rank] = np.arange(len(by_rank)) - (np.cumsum(slots) - slots)[rank_of[by_rank]]
    slot_tokens = np.zeros_like(traffic.slot_tokens)
    slot_tokens[:, own] = _spread(per_rank[:, rank_of], place, slots[rank_of])
    rank = np.arange(n_ranks)
    node = rank // gpus_per_node
    same_node = node[:, None] == node
    holds = (slots > 0) & (rank[:, None] != rank)
    copies = traffic.copies.copy()
    _spread_copies(copies, np.stack([holds & same_node, holds & ~same_node], axis=1))
    node_copies = traffic.node_copies
    if copies_rule == "per-node":
        node_copies = node_copies.copy()
        node_holds = np.bincount(node, weights=slots) > 0
        _spread_copies(node_copies, (node_holds & (np.arange(len(node_holds)) != node[:, None]))[:, None])
    return Traffic(slot_tokens=slot_tokens, copies=copies, node_copies=node_copies)


@njit
def _spread_copies(copies: NDArray[np.int64], wanted: NDArray[np.bool_]) -> None:
    """Spread what each source sends to each set of destinations evenly over them, in place.

    Args:
        copies: [L, G, destinations].
        wanted: the sets [G, sets, destinations]; they do not overlap.
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
                row = copies[layer, source]
                total = 0
                for i in range(n):
                    total += row[own[i]]
                share, rest = total // n, total % n
                for i in range(n):
                    row[own[i]] = share + (i < rest)


def _spread(total: NDArray[np.int64], place: NDArray[np.int64], n: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """What is at each place [S] when totals [L, S] are each cut in n nearly equal parts, the first larger by one."""
    share, rest = np.divmod(total, n)
    return np.asarray(share + (place < rest), dtype=np.int64)
