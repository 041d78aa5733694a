"""The rule of `moesim.types.picoseconds` for one number in compiled code."""

from __future__ import annotations

import math

from moesim.compiled.jit import njit
from moesim.types.picoseconds import MAX_PS


@njit
def whole_picoseconds(ps: float) -> int:
    """Picoseconds that were multiplied or divided, rounded up to whole ones; at most MAX_PS."""
    return math.ceil(round(min(ps, MAX_PS), 3))
