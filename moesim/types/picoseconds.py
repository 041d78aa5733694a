"""Simulated time: whole picoseconds in 64 bits, and the one rule that makes them from seconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_PS = 2**62
"""Picoseconds that sums in 64 bits hold: of a run, and of all GPUs in a step."""
PS_PER_S = 1e12


def picoseconds(seconds: ArrayLike) -> NDArray[np.int64]:
    """Seconds as whole picoseconds, rounded up; at most MAX_PS.

    A time that a formula gives is never shortened, and what floats add to a
    whole number is taken off first: 1 ns is 1000 ps, not 1001.
    """
    return whole_ps(np.asarray(seconds, dtype=np.float64) * PS_PER_S)


def whole_ps(ps: ArrayLike) -> NDArray[np.int64]:
    """Picoseconds that were multiplied or divided, as whole ones again, by the rule of `picoseconds`."""
    return np.ceil(np.round(np.minimum(np.asarray(ps, dtype=np.float64), MAX_PS), 3)).astype(np.int64)
