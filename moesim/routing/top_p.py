"""Top-p: as many experts as it takes to hold a share of the probability.

Huang et al. 2024, Harder Tasks Need More Experts; `top_p_sampling` of
Dynamic_MoE. Experts in the order of their softmax probability, up to and
including the first with which the sum exceeds `top_p`; the weights are the
probabilities, not renormalised. All of them where no sum exceeds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.kernels.jit import njit
from moesim.kernels.topk import top_k_of
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class TopPParameters:
    """`top_p`: the share of probability that the chosen experts must exceed together."""

    top_p: float = 0.4


def route(logits: NDArray[np.float32], top_k: int, parameters: Any, state: Any, draw: Draw) -> Assignment:
    """Up to `top_k` experts a token (E = no bound, as published); unused choices are -1."""
    expert = np.empty((len(logits), top_k), dtype=np.int32)
    weight = np.empty((len(logits), top_k), dtype=np.float32)
    _route(logits, np.float32(parameters.top_p), expert, weight)
    return Assignment.of(expert, weight)


@njit
def _route(
    logits: NDArray[np.float32], top_p: np.float32, expert: NDArray[np.int32], weight: NDArray[np.float32]
) -> None:
    for t in range(logits.shape[0]):
        row, chosen = logits[t], weight[t]
        top_k_of(row, expert[t], chosen)
        peak, total = chosen[0], np.float32(0.0)
        for e in range(row.shape[0]):
            total += np.exp(row[e] - peak)
        held = np.float32(0.0)
        for j in range(chosen.shape[0]):
            if held > top_p:
                expert[t, j] = -1
                chosen[j] = np.float32(0.0)
            else:
                chosen[j] = np.exp(chosen[j] - peak) / total
                held += chosen[j]


def check(n_experts: int, top_k: int, parameters: Any) -> None:
    """A share of the probability."""
    if not 0 < parameters.top_p <= 1:
        raise InputError(f"top_p above 0 and at most 1, not {parameters.top_p}")


STRATEGY = Strategy(name="top-p", route=route, parameters=TopPParameters, check=check)
