"""From token copies between GPUs to counts on physical links and ports of the two levels.

Direct collectives send every pair's count over its own link. A per-node
collective sends a token once to the GPU of the same index in each other node,
which forwards it inside that node. Combine goes the same ways back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit
from moesim.types import ACROSS_NODES, WITHIN_NODE


@njit
def add_links(
    copies: NDArray[np.int64],
    node_copies: NDArray[np.int64],
    per_node: bool,
    m: int,
    forward: bool,
    copy_bytes: int,
    messages: NDArray[np.int64],
    carried: NDArray[np.int64],
) -> None:
    """Add one exchange to the messages and bytes of each link, both [2 levels, from G, to G].

    Args:
        copies: [G, G] tokens from source to destination of the dispatch; the diagonal is local and left out.
        node_copies: [G, N] from source to node, read only if `per_node`.
        per_node: two-hop; else direct.
        m: GPUs of a node.
        forward: dispatch; else combine, which goes back.
        copy_bytes: bytes of one copy.
        messages: one more for each link that carries anything.
        carried: bytes.
    """
    n_gpus = copies.shape[0]
    for d in range(n_gpus):
        for first in range(m if per_node else n_gpus):
            # who sends to d: all sources of an index by way of the GPU of that index in d's node, or each source itself
            sender = d // m * m + first if per_node else first
            if sender == d:
                continue
            count = copies[sender, d]
            if per_node:
                count = 0
                for s in range(first, n_gpus, m):
                    count += copies[s, d]
            if count > 0:
                level = WITHIN_NODE if sender // m == d // m else ACROSS_NODES
                a, b = (sender, d) if forward else (d, sender)
                messages[level, a, b] += 1
                carried[level, a, b] += count * copy_bytes
    if not per_node:
        return
    for s in range(n_gpus):
        for node in range(n_gpus // m):
            if node != s // m and node_copies[s, node] > 0:
                j = node * m + s % m
                a, b = (s, j) if forward else (j, s)
                messages[ACROSS_NODES, a, b] += 1
                carried[ACROSS_NODES, a, b] += node_copies[s, node] * copy_bytes


def port_counts(
    copies: NDArray[np.int64],
    node_copies: NDArray[np.int64],
    *,
    copies_rule: str,
    gpus_per_node: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What each GPU's egress and ingress ports carry in dispatch, int64 [L, 2 levels, G]; combine swaps them.

    The sums of the links of `add_links` over destinations and sources.
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
