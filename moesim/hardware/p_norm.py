"""Two parts of a kernel that overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def p_norm(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]], norm: float) -> NDArray[np.float64]:
    """Seconds that two parts take which overlap, (a^norm + b^norm)^(1/norm) of their seconds a and b.

    That is their sum at 1 and the longer one at infinity. The ratio of the shorter to the longer one is raised to the
    power, so that nothing overflows; two parts of no time take none.
    """
    longer, shorter = np.maximum(a, b), np.minimum(a, b)
    ratio = np.divide(shorter, longer, out=np.zeros_like(longer), where=longer > 0)
    return np.asarray(longer * (1.0 + ratio**norm) ** (1.0 / norm), dtype=np.float64)
