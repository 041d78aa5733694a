"""ST-MoE: top-k of the softmax over all experts, raw probabilities as weights.

Zoph et al. 2022; flaxformer `TokensChooseMaskedRouter` (top-2). The choice is
that of `softmax-top-k` without normalisation; its capacity is choice-major
with flaxformer's rounding, which leaves top_k out: overflow "drop-by-choice",
rounding "flaxformer".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.routing.softmax_top_k import softmax_top_k
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class StMoeParameters:
    """ST-MoE routing has none at inference."""


def route(logits: NDArray[np.float32], top_k: int, parameters: Any, state: Any, draw: Draw) -> Assignment:
    """Top-k of logits [T, E]; weight = softmax probability."""
    expert = np.empty((len(logits), top_k), dtype=np.int32)
    weight = np.empty((len(logits), top_k), dtype=np.float32)
    softmax_top_k(logits, False, expert, weight)
    return Assignment.of(expert, weight)


STRATEGY = Strategy(name="st-moe", route=route, parameters=StMoeParameters, order_only=True)
