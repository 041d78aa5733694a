"""Softmax over all experts, then the top k: Qwen-MoE and OLMoE.

HF `Qwen3MoeTopKRouter`, `OlmoeTopKRouter`: p = softmax(float32 logits), the k
largest, and with `norm_topk_prob` divided by their sum (no epsilon). Without
it a row sums to less than 1, the less the more experts there are. Selection
compares logits, which order as their probabilities do but do not underflow.
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
class SoftmaxTopKParameters:
    """`norm_topk_prob`: renormalise the weights to sum to 1 (Qwen3: on, OLMoE and Qwen2: off)."""

    norm_topk_prob: bool = False


def route(logits: NDArray[np.float32], top_k: int, parameters: Any, state: Any, draw: Draw) -> Assignment:
    """Top-k of logits [T, E], weights from the softmax over all E."""
    expert = np.empty((len(logits), top_k), dtype=np.int32)
    weight = np.empty((len(logits), top_k), dtype=np.float32)
    softmax_top_k(logits, parameters.norm_topk_prob, expert, weight)
    return Assignment.of(expert, weight)


@njit
def softmax_top_k(
    logits: NDArray[np.float32],
    normalise: bool,
    expert: NDArray[np.int32],
    weight: NDArray[np.float32],
) -> None:
    """Fill expert and weight [T, K] from logits [T, E]; sums are over all E, or with `normalise` over the K chosen."""
    for t in range(logits.shape[0]):
        row, chosen = logits[t], weight[t]
        top_k_of(row, expert[t], chosen)
        peak, total = chosen[0], np.float32(0.0)
        if normalise:
            for j in range(chosen.shape[0]):
                total += np.exp(chosen[j] - peak)
        else:
            for e in range(row.shape[0]):
                total += np.exp(row[e] - peak)
        for j in range(chosen.shape[0]):
            chosen[j] = np.exp(chosen[j] - peak) / total


STRATEGY = Strategy(name="softmax-top-k", route=route, parameters=SoftmaxTopKParameters, order_only=True)
