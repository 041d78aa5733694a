"""The evenly loaded twin of a step, against which the imbalance penalty is measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
    rank = placement.rank if usable is None else np.where(usable, placement.rank, np.int32(-1))
    slots = np.bincount(rank[rank >= 0], minlength=n_ranks)
    holders = np.flatnonzero(slots)
    per_rank = _spread(traffic.slot_tokens.sum(axis=1), len(holders))  # [L, holders]
    slot_tokens = np.zeros_like(traffic.slot_tokens)
    for i, holder in enumerate(holders):
        slot_tokens[:, rank == holder] = _spread(per_rank[:, i], int(slots[holder]))
    copies = np.zeros_like(traffic.copies)
    node = np.arange(n_ranks) // gpus_per_node
    for source in range(n_ranks):
        copies[:, source, source] = traffic.copies[:, source, source]
        for level in (node == node[source], node != node[source]):
            wanted = np.flatnonzero(level & (slots > 0) & (np.arange(n_ranks) != source))
            if len(wanted):
                copies[:, source, wanted] = _spread(traffic.copies[:, source, wanted].sum(axis=1), len(wanted))
    node_copies = traffic.node_copies
    if copies_rule == "per-node":
        node_copies = _even_nodes(node_copies, node, slots)
    return Traffic(slot_tokens=slot_tokens, copies=copies, node_copies=node_copies)


def _even_nodes(node_copies: NDArray[np.int64], node: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct tokens of each source spread evenly over the other nodes that hold slots."""
    even = node_copies.copy()
    n_nodes = node_copies.shape[2]
    holds = np.bincount(node, weights=slots, minlength=n_nodes) > 0
    for source, own in enumerate(node):
        wanted = np.flatnonzero(holds & (np.arange(n_nodes) != own))
        if len(wanted):
            even[:, source, wanted] = _spread(node_copies[:, source, wanted].sum(axis=1), len(wanted))
    return even


def _spread(total: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Each total [L] in n nearly equal parts [L, n], the first ones larger by one."""
    share, rest = np.divmod(total, n)
    return np.asarray(share[:, None] + (np.arange(n) < rest[:, None]), dtype=np.int64)
