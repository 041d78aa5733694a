"""Loads of a power law, as the collector of the measured tables (helper.py of NVIDIA aiconfigurator) draws them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import uniform


@njit
def draw_power_law(word: np.uint64, exponent: float, tokens: int, top_k: int, load: NDArray[np.int64]) -> None:
    """Fill load [ranks, experts of a rank] with tokens, of one draw; the sum is tokens x top_k.

    E independent loads by inverse CDF of x^-exponent on [1, 0.8 T] (on [0.01,
    2] where there are not more assignments than experts), scaled to T K,
    rounded, limited to T an expert; what is over or missing is spread one token
    at a time over the ranks, from the most or to the least loaded expert of each.
    """
    ep, local = load.shape
    n_experts, total = ep * local, tokens * top_k
    if exponent == 1.0:
        exponent = 1.0 + 1e-9  # the limit, a logarithm, to within rounding
    low, high = (1.0, 0.8 * tokens) if total > n_experts else (0.01, 2.0)
    power = 1.0 - exponent
    bottom, top = low**power, high**power
    drawn = np.empty(n_experts)
    for e in range(n_experts):
        drawn[e] = ((top - bottom) * uniform(word, e) + bottom) ** (1.0 / power)
    scale = total / drawn.sum()
    missing = total
    for e in range(n_experts):
        n = min(int(np.rint(drawn[e] * scale)), tokens)
        load[e // local, e % local] = n
        missing -= n
    rank = 0
    while missing > 0:
        missing -= _fill(load[rank], -(-missing // (ep - rank)), tokens)
        rank = (rank + 1) % ep
    while missing < 0:
        fullest = load[rank].argmax()
        if load[rank, fullest] > 0:
            load[rank, fullest] -= 1
            missing += 1
        rank = (rank + 1) % ep


@njit
def _fill(row: NDArray[np.int64], more: int, limit: int) -> int:
    """Give `more` tokens to a rank, one at a time to its least loaded expert below the limit; how many it took."""
    order = np.argsort(row)
    level, given = 0, 0
    n = row.shape[0]
    # how far the least loaded ones rise together: the first `level` of them reach the same height
    while level < n and given < more:
        height = row[order[level]]
        level += 1
        ceiling = min(limit, row[order[level]] if level < n else limit)
        rise = min((ceiling - height) * level, more - given)
        each, rest = rise // level, rise % level
        for i in range(level):
            row[order[i]] = height + each + (1 if i < rest else 0)
        given += rise
        if ceiling == limit:
            break
    return given
