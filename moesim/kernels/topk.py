"""Selection of the k largest, one tie rule for all: the lowest index first.

Scores become integers of the same order, in blocks of eight whose maxima are
kept. Taking the largest is then a search among the maxima and in one block,
which costs the same for every row: no branch depends on how the scores lie,
and compilers turn the loops over a block into vector instructions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit

BLOCK = 8
KEY_OF_ZERO = np.int32(0)
LEAST = np.int32(-(2**31))
"""Below the key of every score, -inf included: what is taken, masked or beyond the last one."""
_MAGNITUDE = np.int32(0x7FFFFFFF)
_SIGN_SHIFT = np.int32(31)


@njit
def key_blocks(n: int) -> NDArray[np.int32]:
    """Room for the keys of n scores, int32 [blocks, BLOCK], as `load` and `take` want it."""
    return np.full(((n + BLOCK - 1) // BLOCK, BLOCK), LEAST, dtype=np.int32)


@njit
def load(score: NDArray[np.float32], keys: NDArray[np.int32]) -> None:
    """Fill keys [blocks, BLOCK] from scores [N] without NaN; -0 equals 0."""
    bits, flat = score.view(np.int32), keys.reshape(keys.size)
    for e in range(bits.shape[0]):
        value = KEY_OF_ZERO if bits[e] == LEAST else bits[e]
        flat[e] = value ^ ((value >> _SIGN_SHIFT) & _MAGNITUDE)


@njit
def take(keys: NDArray[np.int32], best: NDArray[np.int32], index: NDArray[np.int32]) -> None:
    """Move the largest of keys to index [K], descending, equal ones by index; `best` [blocks] is scratch."""
    n_blocks = keys.shape[0]
    for b in range(n_blocks):
        best[b] = _largest(keys[b])
    for j in range(index.shape[0]):
        top = best[0]
        for b in range(1, n_blocks):
            top = max(top, best[b])
        b = 0
        while best[b] != top:
            b += 1
        block = keys[b]
        i = 0
        while block[i] != top:
            i += 1
        index[j] = b * BLOCK + i
        block[i] = LEAST
        best[b] = _largest(block)


@njit
def _largest(block: NDArray[np.int32]) -> np.int32:
    top = block[0]
    for i in range(1, BLOCK):
        top = max(top, block[i])
    return np.int32(top)


@njit
def top_k_of(score: NDArray[np.float32], index: NDArray[np.int32], value: NDArray[np.float32]) -> None:
    """Write the indices of the K largest of score [E] to index [K], descending, and their scores to value [K].

    Equal scores rank by index. K <= E; scores are not NaN. In a loop over
    tokens, `load` and `take` with room of their own save its allocation.
    """
    keys = key_blocks(score.shape[0])
    load(score, keys)
    take(keys, np.empty(keys.shape[0], dtype=np.int32), index)
    for j in range(index.shape[0]):
        value[j] = score[index[j]]
