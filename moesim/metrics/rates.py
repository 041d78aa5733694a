"""Rates of a whole run: shares of assignments and tokens, and what imbalance costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def mean_rate(part: NDArray[np.int64], whole: NDArray[np.int64]) -> float | None:
    """Mean of part / whole over (step, layer) where `whole` is above 0, such as a drop rate; None if it is nowhere."""
    asked = whole > 0
    return float((part[asked] / whole[asked]).mean()) if asked.any() else None


def imbalance_penalty(step_ps: Sequence[int], even_ps: Sequence[int]) -> float | None:
    """How many times longer the steps took than with their load spread evenly; None if those took no time.

    Args:
        step_ps: time of each step in picoseconds.
        even_ps: time of the same steps with an even load.
    """
    even = sum(even_ps)
    return sum(step_ps) / even if even else None
