"""From token copies between GPUs to counts on physical links and ports of each level.

Direct collectives send every pair's count over its own link. A per-node
collective sends a token once to the GPU of the same index in each other node,
whatever lies between them, which forwards it inside that node. Combine goes the
same ways back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.levels import level_above
from moesim.types import ACROSS_NODES, TWO_LEVELS, WITHIN_NODE, NetworkLevels


@njit
def add_links(
    copies: NDArray[np.int64],
    node_copies: NDArray[np.int64],
    per_node: bool,
    m: int,
    units: NDArray[np.int64],
    forward: bool,
    copy_bytes: int,
    messages: NDArray[np.int64],
    carried: NDArray[np.int64],
) -> None:
    """Add one exchange to the messages and bytes of each link, both [levels, from G, to G].

    Args:
        copies: [G, G] tokens from source to destination of the dispatch; the diagonal is local and left out.
        node_copies: [G, N] from source to node, read only if `per_node`.
        per_node: two-hop; else direct.
        m: GPUs of a node.
        units: GPUs of a unit of each level between the node and the whole.
        forward: dispatch; else combine, which goes back.
        copy_bytes: bytes of one copy.
        messages: one more for each link that carries anything.
        carried: bytes.
    """
    if per_node:
        _add_handed_on(copies, m, forward, copy_bytes, messages, carried)
        _add_node_copies(node_copies, m, units, forward, copy_bytes, messages, carried)
    else:
        _add_direct(copies, m, units, forward, copy_bytes, messages, carried)


@njit
def _add_direct(
    copies: NDArray[np.int64],
    m: int,
    units: NDArray[np.int64],
    forward: bool,
    copy_bytes: int,
    messages: NDArray[np.int64],
    carried: NDArray[np.int64],
) -> None:
    """Node by node, so that the rows and columns of one pair of nodes share their cache lines."""
    for source in range(0, copies.shape[0], m):
        for target in range(0, copies.shape[0], m):
            level = WITHIN_NODE if source == target else level_above(source, target, units)
            for s in range(source, source + m):
                for d in range(target, target + m):
                    if s != d and copies[s, d] > 0:
                        a, b = (s, d) if forward else (d, s)
                        messages[level, a, b] += 1
                        carried[level, a, b] += copies[s, d] * copy_bytes


@njit
def _add_handed_on(
    copies: NDArray[np.int64],
    m: int,
    forward: bool,
    copy_bytes: int,
    messages: NDArray[np.int64],
    carried: NDArray[np.int64],
) -> None:
    """Inside a node: from the GPU of an index, what all sources of that index have for the others."""
    handed = np.zeros((m, copies.shape[0]), dtype=np.int64)  # by index and destination
    for s in range(copies.shape[0]):
        for d in range(copies.shape[0]):
            handed[s % m, d] += copies[s, d]
    for d in range(copies.shape[0]):
        for index in range(m):
            j = d // m * m + index
            if j != d and handed[index, d] > 0:
                a, b = (j, d) if forward else (d, j)
                messages[WITHIN_NODE, a, b] += 1
                carried[WITHIN_NODE, a, b] += handed[index, d] * copy_bytes


@njit
def _add_node_copies(
    node_copies: NDArray[np.int64],
    m: int,
    units: NDArray[np.int64],
    forward: bool,
    copy_bytes: int,
    messages: NDArray[np.int64],
    carried: NDArray[np.int64],
) -> None:
    """Across nodes: to the GPU of the same index."""
    for s in range(node_copies.shape[0]):
        for node in range(node_copies.shape[1]):
            if node != s // m and node_copies[s, node] > 0:
                j = node * m + s % m
                level = level_above(s, j, units)
                a, b = (s, j) if forward else (j, s)
                messages[level, a, b] += 1
                carried[level, a, b] += node_copies[s, node] * copy_bytes


def port_counts(
    copies: NDArray[np.int64],
    node_copies: NDArray[np.int64],
    *,
    copy_rule: str,
    gpus_per_node: int,
    levels: NetworkLevels = TWO_LEVELS,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What each GPU sends and receives over each level in dispatch, int64 [L, levels, G]; combine swaps them.

    The sums of the links of `add_links` over destinations and sources.
    """
    n_layers, n_gpus, _ = copies.shape
    sent = np.zeros((n_layers, levels.n_levels, n_gpus), dtype=np.int64)
    received = np.zeros_like(sent)
    units = np.array(levels.units, dtype=np.int64)
    _port_counts(copies, node_copies, copy_rule == "per-node", gpus_per_node, units, sent, received)
    return sent, received


@njit
def _port_counts(
    copies: NDArray[np.int64],
    node_copies: NDArray[np.int64],
    per_node: bool,
    m: int,
    units: NDArray[np.int64],
    sent: NDArray[np.int64],
    received: NDArray[np.int64],
) -> None:
    n_layers, n_gpus, _ = copies.shape
    for layer in range(n_layers):
        for s in range(n_gpus):
            row = copies[layer, s]
            if per_node:
                _count_handed_on(row, s, m, sent[layer], received[layer])
                for node in range(n_gpus // m):
                    if node != s // m:
                        level = level_above(s, node * m, units)
                        sent[layer, level, s] += node_copies[layer, s, node]
                        received[layer, level, node * m + s % m] += node_copies[layer, s, node]
            elif len(units) > 0:
                _count_by_level(row, s, m, units, sent[layer], received[layer])
            else:
                _count_direct(row, s, m, sent[layer], received[layer])


@njit
def _count_direct(row: NDArray[np.int64], s: int, m: int, sent: NDArray[np.int64], received: NDArray[np.int64]) -> None:
    """Two levels: all as if it crossed nodes, in one run that vectorises, then what stays in the node put right."""
    total, near = 0, 0
    for d in range(row.shape[0]):
        total += row[d]
        received[ACROSS_NODES, d] += row[d]
    for d in range(s // m * m, s // m * m + m):
        near += row[d]
        received[ACROSS_NODES, d] -= row[d]
        received[WITHIN_NODE, d] += row[d]
    sent[ACROSS_NODES, s] += total - near
    sent[WITHIN_NODE, s] += near - row[s]
    received[WITHIN_NODE, s] -= row[s]  # what stays on the GPU uses no port


@njit
def _count_by_level(
    row: NDArray[np.int64],
    s: int,
    m: int,
    units: NDArray[np.int64],
    sent: NDArray[np.int64],
    received: NDArray[np.int64],
) -> None:
    """Node by node, where there are more than two levels."""
    for first in range(0, row.shape[0], m):
        level = WITHIN_NODE if first == s // m * m else level_above(s, first, units)
        for d in range(first, first + m):
            if d != s:
                sent[level, s] += row[d]
                received[level, d] += row[d]


@njit
def _count_handed_on(
    row: NDArray[np.int64], s: int, m: int, sent: NDArray[np.int64], received: NDArray[np.int64]
) -> None:
    """Inside each node the GPU of the source's index sends to the others."""
    for d in range(row.shape[0]):
        received[WITHIN_NODE, d] += row[d]
    for j in range(s % m, row.shape[0], m):
        received[WITHIN_NODE, j] -= row[j]
        first = j - s % m
        total = -row[j]
        for d in range(first, first + m):
            total += row[d]
        sent[WITHIN_NODE, j] += total
