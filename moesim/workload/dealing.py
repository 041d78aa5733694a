"""Dealing assignments out evenly: over ranks first, over the experts of each then, distinct ones to each token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import PATTERN, key, permutation

_MAX_ROUNDS = 2**32
"""Rounds of a purpose; orders of ranks have numbers below it, those of experts above."""
_STANDING = 2**60
"""Numbers of orders that no dealing draws are from here on."""


@njit
def deal(
    seed: int,
    step: int,
    layer: int,
    purpose: int,
    pool: NDArray[np.int64],
    width: NDArray[np.int64],
    column: NDArray[np.int64],
    out: NDArray[np.int32],
) -> None:
    """Fill out[t, column[t] : column[t] + width[t]] with distinct experts of a pool [R, m], for all tokens [T].

    Assignments are dealt one by one, in rounds of one a rank. After any number of
    them the counts of ranks differ by one at most, and so do those of the experts
    of a rank, which come in a random order, again and again. Each round has a
    random order of ranks where a token cannot meet an expert twice in that way,
    else all rounds have the same one. No token takes more than the R m experts.
    """
    n_ranks, n_local = pool.shape
    widest, equal = 0, True
    for t in range(width.shape[0]):
        equal = equal and width[t] == width[0]
        widest = max(widest, width[t])
    spanned = (widest + n_ranks - 2) // n_ranks + 1  # rounds that a token's assignments can be of, at most
    if equal and widest > 0 and n_ranks % widest == 0:
        spanned = 1  # they begin with a round or within it, and end with it at the latest
    ranks = np.empty(n_ranks, dtype=np.int64)
    permutation(key(seed, PATTERN, step, layer, purpose * 2 * _MAX_ROUNDS), ranks)
    local = np.empty((n_ranks, n_local), dtype=np.int64)
    for rank in range(n_ranks):
        permutation(key(seed, PATTERN, step, layer, (purpose * 2 + 1) * _MAX_ROUNDS + rank), local[rank])
    place, round_number = 0, 0
    for t in range(out.shape[0]):
        for i in range(width[t]):
            if place == n_ranks:
                place, round_number = 0, round_number + 1
                if spanned <= n_local:
                    permutation(key(seed, PATTERN, step, layer, purpose * 2 * _MAX_ROUNDS + round_number), ranks)
            rank = ranks[place]
            out[t, column[t] + i] = pool[rank, local[rank, round_number % n_local]]
            place += 1


@njit
def _fill_order(seed: int, step: int, layer: int, purpose: int, number: int, out: NDArray[np.int64]) -> None:
    permutation(key(seed, PATTERN, step, layer, _STANDING + purpose * _MAX_ROUNDS + number), out)


def order_of(seed: int, step: int, layer: int, purpose: int, number: int, n: int) -> NDArray[np.int64]:
    """A random order of 0..n-1."""
    order = np.empty(n, dtype=np.int64)
    _fill_order(seed, step, layer, purpose, number, order)
    return order
