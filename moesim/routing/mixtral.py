"""Mixtral: softmax over the top-k logits.

Jiang et al. 2024, section 2.1; HF `MixtralTopKRouter` takes the softmax over
all experts and renormalises the k largest, which is the same function.
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
class MixtralParameters:
    """Mixtral routing has none at inference."""


def route(logits: NDArray[np.float32], top_k: int, parameters: Any, state: Any, draw: Draw) -> Assignment:
    """Top-k of logits [T, E]; the weights of a token sum to 1."""
    expert = np.empty((len(logits), top_k), dtype=np.int32)
    weight = np.empty((len(logits), top_k), dtype=np.float32)
    softmax_top_k(logits, True, expert, weight)
    return Assignment.of(expert, weight)


STRATEGY = Strategy(name="mixtral", route=route, parameters=MixtralParameters, order_only=True)
