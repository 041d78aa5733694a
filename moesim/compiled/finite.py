"""One pass over a matrix that asks whether it can be compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit

_EXPONENT = np.int32(0x7F800000)


@njit
def all_finite(x: NDArray[np.float32]) -> bool:
    """Whether x [T, E], C-contiguous, has neither NaN nor an infinity: no float32 with all exponent bits set."""
    bits = x.view(np.int32)
    for t in range(bits.shape[0]):
        row, found = bits[t], np.int32(0)
        for e in range(row.shape[0]):
            found |= np.int32((row[e] & _EXPONENT) == _EXPONENT)
        if found:
            return False
    return True
