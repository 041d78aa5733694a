"""Counts of assignments per expert, and per source rank and expert; -1 is no assignment and counts nowhere.

An increment waits for the one before it where both are of the same counter,
or where the processor takes them to be. Neighbouring tokens share a source
rank, so the tokens are read in four runs at once, a quarter of them each,
whose ranks differ. Counters of one expert would not, so there each run has
counters of its own. Both are many times faster than one counter after another.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit

_RUNS = 4


def count_by_source(
    expert: NDArray[np.int32], source: NDArray[np.int32], n_ranks: int, n_experts: int
) -> NDArray[np.int64]:
    """Assignments of each source rank to each expert, int64 [R, E].

    Args:
        expert: [T, K], from -1 (none) to n_experts - 1; not checked.
        source: [T] rank of each token, from 0 to n_ranks - 1; not checked.
        n_ranks: R.
        n_experts: E.
    """
    counts = np.zeros((n_ranks, n_experts + 1), dtype=np.int64)
    _count_by_source(expert, source, counts)
    return counts[:, 1:]


def count(expert: NDArray[np.int32], n_experts: int, where: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Assignments to each expert, int64 [E].

    Args:
        expert: [T, K], from -1 (none) to n_experts - 1; not checked.
        n_experts: E.
        where: [T, K], which assignments to count (default: all).
    """
    if where is not None and not where.any():
        return np.zeros(n_experts, dtype=np.int64)
    counts = np.zeros((_RUNS, n_experts + 1), dtype=np.int64)
    _count((expert if where is None else np.where(where, expert, np.int32(-1))).ravel(), counts)
    return np.asarray(counts.sum(axis=0)[1:], dtype=np.int64)


@njit
def _count_by_source(expert: NDArray[np.int32], source: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
    """Add to counts [R, 1 + E], whose first column takes what is no assignment."""
    n_tokens, top_k = expert.shape
    quarter = n_tokens // _RUNS
    for i in range(quarter):
        for run in range(_RUNS):
            t = run * quarter + i
            row = counts[np.uint64(source[t])]
            for j in range(top_k):
                row[np.uint64(expert[t, j] + 1)] += 1
    for t in range(_RUNS * quarter, n_tokens):
        for j in range(top_k):
            counts[source[t], expert[t, j] + 1] += 1


@njit
def _count(expert: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
    """Add flat assignments [N] to counts [runs, 1 + E], whose first column takes what is no assignment."""
    quarter = expert.shape[0] // _RUNS
    for i in range(quarter):
        for run in range(_RUNS):
            counts[run, np.uint64(expert[run * quarter + i] + 1)] += 1
    for i in range(_RUNS * quarter, expert.shape[0]):
        counts[0, expert[i] + 1] += 1
