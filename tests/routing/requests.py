"""Assignments as they are asked for."""

from __future__ import annotations

import numpy as np

from moesim import Assignment


def request(expert: list[list[int]], weight: list[list[float]] | None = None) -> Assignment:
    """An assignment from nested lists."""
    experts = np.array(expert, dtype=np.int32)
    weights = np.ones(experts.shape) if weight is None else np.array(weight)
    return Assignment.of(experts, weights.astype(np.float32))
