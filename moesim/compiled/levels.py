"""The level of a copy, as compiled code finds it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit


@njit
def level_above(a: int, b: int, units: NDArray[np.int64]) -> int:
    """The level of a copy between two GPUs of different nodes, 1 at least.

    Args:
        a: one GPU.
        b: the other.
        units: GPUs of a unit of each level between the node and the whole, ascending.
    """
    k = 0
    while k < len(units) and a // units[k] != b // units[k]:
        k += 1
    return k + 1
