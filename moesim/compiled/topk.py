"""Selection of the k largest, one tie rule for all: the lowest index first.

A score becomes an integer that orders as scores do and, among equals, the
lowest index first; so no two keys are equal and the largest says where it is.
The maxima of blocks of eight keys are kept: taking one is a maximum over them
and one over a block, without a branch that depends on how the scores lie.
Functions take a matrix and the number of a row, for the reason that
`exponential` gives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit

BLOCK = 8
LEAST = np.int64(-(2**63))
"""Below the key of every score, -inf included: what is taken, or beyond the last one."""
_NEGATIVE_ZERO, _ZERO = np.int32(-(2**31)), np.int32(0)
_MAGNITUDE, _SIGN_SHIFT = np.int32(0x7FFFFFFF), np.int32(31)
_SCORE, _FIRST, _INDEX = np.int64(2**32), np.int64(2**31), np.int64(2**32 - 1)
_ONE_BLOCK = np.uint64(BLOCK)
_1, _2, _3, _4, _5, _6, _7 = (np.uint64(i) for i in range(1, BLOCK))


@njit
def room_for_keys(n: int) -> NDArray[np.int64]:
    """Room for the keys of n scores in whole blocks, int64 [>= n]."""
    return np.full((n + BLOCK - 1) // BLOCK * BLOCK, LEAST, dtype=np.int64)


@njit
def sortable(score: NDArray[np.float32], out: NDArray[np.int32]) -> None:
    """Fill out [N] with integers that order as scores [N] without NaN do; -0 equals 0."""
    bits = score.view(np.int32)
    for e in range(bits.shape[0]):
        value = _ZERO if bits[e] == _NEGATIVE_ZERO else bits[e]
        out[e] = value ^ ((value >> _SIGN_SHIFT) & _MAGNITUDE)


@njit
def load(bits: NDArray[np.int32], t: int, order: NDArray[np.int32], keys: NDArray[np.int64]) -> None:
    """Fill keys from row t of scores [T, N] without NaN, given by their bits; `order` [N] is scratch."""
    for e in range(bits.shape[1]):
        value = _ZERO if bits[t, e] == _NEGATIVE_ZERO else bits[t, e]
        order[e] = value ^ ((value >> _SIGN_SHIFT) & _MAGNITUDE)
    for e in range(bits.shape[1]):
        keys[e] = np.int64(order[e]) * _SCORE + (_FIRST - e)


@njit
def load_groups(
    bits: NDArray[np.int32],
    t: int,
    groups: NDArray[np.int32],
    n_groups: int,
    size: int,
    origin: NDArray[np.int32],
    keys: NDArray[np.int64],
) -> int:
    """Fill keys from the first `n_groups` of these groups of `size` one after the other, and origin with their indices.

    The scores are row t of those with these bits [T, N]. Returns how many there are.
    """
    n = np.uint64(0)
    for k in range(n_groups):
        first = np.uint64(groups[k] * size)  # indices without a sign, as signed sums are checked for wrapping around
        for i in range(np.uint64(size)):
            bit = bits[t, first + i]
            value = _ZERO if bit == _NEGATIVE_ZERO else bit
            order = value ^ ((value >> _SIGN_SHIFT) & _MAGNITUDE)
            keys[n + i] = np.int64(order) * _SCORE + (_FIRST - np.int64(n + i))
            origin[n + i] = np.int32(first + i)
        n += np.uint64(size)
    return int(n)


@njit
def take(keys: NDArray[np.int64], n: int, best: NDArray[np.int64], index: NDArray[np.int32], t: int) -> None:
    """Move the largest of the first n keys to row t of index [T, K], descending, equal scores by index.

    `best` [>= blocks] is scratch; keys beyond the n-th in its block must be LEAST.
    """
    n_blocks = (n + BLOCK - 1) // BLOCK
    for b in range(n_blocks):
        best[b] = _largest(keys, np.uint64(b))
    for j in range(index.shape[1]):
        top = best[0]
        for b in range(1, n_blocks):
            top = max(top, best[b])
        i = np.uint64(_FIRST - (top & _INDEX))
        index[t, j] = i
        keys[i] = LEAST
        best[i // _ONE_BLOCK] = _largest(keys, i // _ONE_BLOCK)


@njit
def _largest(keys: NDArray[np.int64], b: np.uint64) -> np.int64:
    """The largest key of block b."""
    i = b * _ONE_BLOCK
    a, c, d = max(keys[i], keys[i + _1]), max(keys[i + _2], keys[i + _3]), max(keys[i + _4], keys[i + _5])
    return np.int64(max(max(a, c), max(d, max(keys[i + _6], keys[i + _7]))))  # noqa: PLW3301 a tree, not a chain


@njit
def top_k_of(score: NDArray[np.float32], index: NDArray[np.int32], value: NDArray[np.float32]) -> None:
    """Write the indices of the K largest of score [E] to index [K], descending, and their scores to value [K].

    Equal scores rank by index. K <= E; scores are not NaN. In a loop over
    tokens, `load` and `take` with room of their own save its allocation.
    """
    n = score.shape[0]
    keys = room_for_keys(n)
    load(score.view(np.int32).reshape(1, n), 0, np.empty(n, dtype=np.int32), keys)
    take(keys, n, np.empty(keys.shape[0] // BLOCK, dtype=np.int64), index.reshape(1, index.shape[0]), 0)
    for j in range(index.shape[0]):
        value[j] = score[index[j]]
