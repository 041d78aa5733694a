"""Llama 4: the top-k logits, each weighed by its own sigmoid.

HF `Llama4Router`: all logits but the k largest become -inf, then the sigmoid
of each; nothing is normalised. The models use top_k 1 and one shared expert.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit
from moesim.kernels.topk import top_k_of
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class Llama4Parameters:
    """Llama 4 routing has none at inference."""


def route(logits: NDArray[np.float32], top_k: int, parameters: Any, state: Any, draw: Draw) -> Assignment:
    """Top-k of logits [T, E]; weight = sigmoid of the chosen logit."""
    expert = np.empty((len(logits), top_k), dtype=np.int32)
    weight = np.empty((len(logits), top_k), dtype=np.float32)
    _route(logits, expert, weight)
    return Assignment.of(expert, weight)


@njit
def _route(logits: NDArray[np.float32], expert: NDArray[np.int32], weight: NDArray[np.float32]) -> None:
    for t in range(logits.shape[0]):
        top_k_of(logits[t], expert[t], weight[t])
        for j in range(expert.shape[1]):
            weight[t, j] = _sigmoid(weight[t, j])


@njit
def _sigmoid(x: float) -> float:
    """Of either sign without overflow."""
    if x >= 0:
        return float(1.0 / (1.0 + np.exp(-x)))
    e = np.exp(x)
    return float(e / (1.0 + e))


STRATEGY = Strategy(name="llama4", route=route, parameters=Llama4Parameters, order_only=True)
