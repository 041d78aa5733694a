"""What the slots of a layer receive, and how many copies of tokens that takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.types import Placement, nodes_of


def traffic_of_layer(
    slot: NDArray[np.int32],
    source: NDArray[np.int32],
    placement: Placement,
    *,
    copy_rule: str,
    gpus_per_node: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Tokens per slot [S], copies from rank to rank [G, G] and, per-node only, distinct tokens per node [G, N].

    "per-selection" sends one copy for each served choice, "per-rank" and
    "per-node" one for each distinct rank; "per-node" also counts one for each
    distinct node, which is what crosses nodes. The diagonal holds what stays.
    Else the node matrix is [0, 0]. "all" sends each token to every GPU of its
    group, whatever it chose, once to each node. Where GPUs share a slot each of them gets the copy.

    Args:
        slot: [T, K] or -1.
        source: [T] rank of each token.
        placement: the rank of each slot.
        copy_rule: the collective's (NetworkSpec.copies).
        gpus_per_node: ranks of a node.
    """
    n_slots, n_ranks = placement.expert.shape[1], placement.n_ranks
    slot_tokens = np.zeros(n_slots, dtype=np.int64)
    copies = np.zeros((n_ranks, n_ranks), dtype=np.int64)
    per_node = copy_rule in ("per-node", "all")
    n_nodes = -(-n_ranks // gpus_per_node)
    nodes = np.zeros((n_ranks, n_nodes) if per_node else (0, 0), dtype=np.int64)
    distinct = copy_rule != "per-selection"
    _count(
        slot,
        source,
        placement.rank,
        gpus_per_node,
        distinct,
        per_node,
        slot_tokens,
        copies,
        nodes,
    )
    if copy_rule == "all":
        tokens = np.bincount(source, minlength=n_ranks)[:, None]
        for gpus, _ in placement.groups():
            copies[gpus, gpus] = nodes[gpus, nodes_of(gpus, gpus_per_node)] = tokens[gpus]
        return slot_tokens, copies, nodes
    shared_by = placement.expert_tp
    if shared_by > 1:  # slots are counted on the first of the GPUs that share them
        copies = np.repeat(copies[:, ::shared_by], shared_by, axis=1)
    return slot_tokens, copies, nodes


@njit
def _count(
    slot: NDArray[np.int32],
    source: NDArray[np.int32],
    rank_of: NDArray[np.int32],
    gpus_per_node: int,
    distinct: bool,
    per_node: bool,
    slot_tokens: NDArray[np.int64],
    copies: NDArray[np.int64],
    nodes: NDArray[np.int64],
) -> None:
    last_token = np.full(copies.shape[0], -1, dtype=np.int64)  # which token went last to a rank, to a node
    last_of_node = np.full(max(1, nodes.shape[1]), -1, dtype=np.int64)
    node_of = np.arange(copies.shape[0]) // gpus_per_node
    for t in range(slot.shape[0]):
        row = copies[np.uint64(source[t])]
        for j in range(slot.shape[1]):
            if slot[t, j] < 0:
                continue
            s = np.uint64(slot[t, j])  # unsigned indices need no test for negative ones
            slot_tokens[s] += 1
            rank = np.uint64(rank_of[s])
            if not distinct or last_token[rank] != t:
                row[rank] += 1
                last_token[rank] = t
            if per_node:
                node = np.uint64(node_of[rank])
                if last_of_node[node] != t:
                    nodes[np.uint64(source[t]), node] += 1
                    last_of_node[node] = t
