"""From token copies between GPUs to counts on physical links of the two levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit
from moesim.types import ACROSS_NODES, WITHIN_NODE


def link_counts(
    copies: NDArray[np.int64],
    node_copies: NDArray[np.int64],
    *,
    copies_rule: str,
    gpus_per_node: int,
) -> NDArray[np.int64]:
    """Counts per link in the direction of dispatch, int64 [L, 2 levels, G, G]; combine is its transpose.

    Direct collectives send every pair's count over its own link. A per-node
    collective sends a token once to the GPU of the same index in each other
    node, which forwards it inside that node.

    Args:
        copies: [L, G, G] counts from source to destination; the diagonal is local and left out.
        node_copies: [L, G, N] counts from source to node, read only for "per-node".
        copies_rule: the collective's rule (NetworkSpec.copies).
        gpus_per_node: m, so that node of rank r = r // m.
    """
    n_layers, n_gpus, _ = copies.shape
    gpu = np.arange(n_gpus)
    node = gpu // gpus_per_node
    same_node = node[:, None] == node[None, :]
    links = np.zeros((n_layers, 2, n_gpus, n_gpus), dtype=np.int64)
    if copies_rule == "per-node":
        n_nodes = n_gpus // gpus_per_node
        # axes: layer, source node, source index, destination; summed over source nodes it is what an index hands on
        forwarded = copies.reshape(n_layers, n_nodes, gpus_per_node, n_gpus).sum(axis=1)
        links[:, WITHIN_NODE] = np.where(same_node, forwarded[:, gpu % gpus_per_node, :], 0)
        for n in range(n_nodes):
            proxy = n * gpus_per_node + gpu % gpus_per_node
            links[:, ACROSS_NODES, gpu, proxy] = np.where(node == n, 0, node_copies[:, :, n])
    else:
        links[:, WITHIN_NODE] = np.where(same_node, copies, 0)
        links[:, ACROSS_NODES] = np.where(same_node, 0, copies)
    links[:, :, gpu, gpu] = 0
    return links


def port_counts(
    copies: NDArray[np.int64],
    node_copies: NDArray[np.int64],
    *,
    copies_rule: str,
    gpus_per_node: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What each GPU's egress and ingress ports carry in dispatch, int64 [L, 2 levels, G]; combine swaps them.

    The sums of `link_counts` over destinations and sources, without the links.
    """
    n_layers, n_gpus, _ = copies.shape
    sent = np.zeros((n_layers, 2, n_gpus), dtype=np.int64)
    received = np.zeros_like(sent)
    _port_counts(copies, node_copies, copies_rule == "per-node", gpus_per_node, sent, received)
    return sent, received


@njit
def _port_counts(
    copies: NDArray[np.int64],
    node_copies: NDArray[np.int64],
    per_node: bool,
    m: int,
    sent: NDArray[np.int64],
    received: NDArray[np.int64],
) -> None:
    n_layers, n_gpus, _ = copies.shape
    for layer in range(n_layers):
        for s in range(n_gpus):
            for d in range(n_gpus):
                # who sends it to d: a GPU of d's node where it was passed on, else its source
                sender = d // m * m + s % m if per_node else s
                if sender != d:
                    level = WITHIN_NODE if sender // m == d // m else ACROSS_NODES
                    sent[layer, level, sender] += copies[layer, s, d]
                    received[layer, level, d] += copies[layer, s, d]
            for n in range(node_copies.shape[2] if per_node else 0):
                if n != s // m:
                    sent[layer, ACROSS_NODES, s] += node_copies[layer, s, n]
                    received[layer, ACROSS_NODES, n * m + s % m] += node_copies[layer, s, n]
