"""Draws from a discrete law in constant time: Walker's alias tables.

Walker 1977, built as Vose 1991 does. Each of the E columns of a table has the
same chance and holds two outcomes, its own and an alias; a threshold says
which. A column is one 64-bit word, the threshold in its upper half (in units
of 2^-32) and the alias in its lower, so that a draw is one random word and one
look-up. Probabilities are right to 2^-32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit

_LOW, _S32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_UNIT = 2.0**32


@njit
def fill_alias_table(weight: NDArray[np.float64], table: NDArray[np.uint64]) -> None:
    """Fill table [E] for outcomes in proportion to weight [E], not negative and with a finite positive sum.

    An outcome of weight 0 is never drawn.
    """
    n = weight.shape[0]
    share = weight * (n / weight.sum())  # of one column
    small, large = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    n_small, n_large = 0, 0
    for i in range(n):
        if share[i] < 1.0:
            small[n_small] = i
            n_small += 1
        else:
            large[n_large] = i
            n_large += 1
    while n_small > 0 and n_large > 0:
        n_small -= 1
        lesser, greater = small[n_small], large[n_large - 1]
        table[lesser] = (np.uint64(share[lesser] * _UNIT) << _S32) | np.uint64(greater)
        share[greater] -= 1.0 - share[lesser]
        if share[greater] < 1.0:
            n_large -= 1
            small[n_small] = greater
            n_small += 1
    for i in range(n_large):
        table[large[i]] = (_LOW << _S32) | np.uint64(large[i])
    heaviest = np.uint64(np.argmax(weight))
    for i in range(n_small):  # full within rounding; a column that weighs nothing must never be drawn
        alias = np.uint64(small[i]) if weight[small[i]] > 0.0 else heaviest
        table[small[i]] = ((_LOW if weight[small[i]] > 0.0 else np.uint64(0)) << _S32) | alias


@njit
def alias_draw(table: NDArray[np.uint64], word: np.uint64) -> int:
    """The outcome that 64 random bits stand for: the upper half picks a column of table [E], the lower one decides."""
    column = ((word >> _S32) * np.uint64(table.shape[0])) >> _S32
    entry = table[column]
    return int(column) if (word & _LOW) < (entry >> _S32) else int(entry & _LOW)
