"""DeepSeek-V3: sigmoid scores, a bias that only selects, groups by their two best experts.

DeepSeek-AI 2024, section 2.1.2; HF `DeepseekV3TopkRouter`. With s = sigmoid(x)
and c = s + bias: the score of a group of experts is the sum of its two largest
c; the `topk_group` best of `n_group` groups stay; the top k of c among them
are chosen. Weights are s, without the bias, over their sum + 1e-20, times
`routed_scaling_factor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.kernels.jit import njit
from moesim.kernels.topk import top_k_of
from moesim.routing.groups import check_groups
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class DeepSeekV3Parameters:
    """Names and meaning of the model's configuration; V3 has 8 groups, 4 kept, and a factor of 2.5."""

    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0


def route(logits: NDArray[np.float32], top_k: int, parameters: Any, state: Any, draw: Draw) -> Assignment:
    """Route logits [T, E]; `state` is the selection bias, float32 [E], or None for zero."""
    expert = np.empty((len(logits), top_k), dtype=np.int32)
    weight = np.empty((len(logits), top_k), dtype=np.float32)
    bias = np.zeros(logits.shape[1], dtype=np.float32) if state is None else state
    _route(
        logits,
        bias,
        parameters.n_group,
        parameters.topk_group,
        parameters.norm_topk_prob,
        float(parameters.routed_scaling_factor),
        expert,
        weight,
    )
    return Assignment.of(expert, weight)


@njit
def _route(
    logits: NDArray[np.float32],
    bias: NDArray[np.float32],
    n_group: int,
    topk_group: int,
    normalise: bool,
    scaling: float,
    expert: NDArray[np.int32],
    weight: NDArray[np.float32],
) -> None:
    n_experts = logits.shape[1]
    size = n_experts // n_group
    score = np.empty(n_experts, dtype=np.float32)
    corrected = np.empty(n_experts, dtype=np.float32)
    group_score = np.empty(n_group, dtype=np.float32)
    best_group = np.empty(topk_group, dtype=np.int32)
    best_value = np.empty(topk_group, dtype=np.float32)
    kept = np.empty(n_group, dtype=np.bool_)
    for t in range(logits.shape[0]):
        for e in range(n_experts):
            score[e] = np.float32(1.0) / (np.float32(1.0) + np.exp(-logits[t, e]))
            corrected[e] = score[e] + bias[e]
        if topk_group < n_group:
            for g in range(n_group):
                group_score[g] = _sum_of_two_best(corrected[g * size : (g + 1) * size])
            top_k_of(group_score, best_group, best_value)
            kept[:] = False
            for best in best_group:
                kept[best] = True
            for g in range(n_group):
                if not kept[g]:
                    corrected[g * size : (g + 1) * size] = -np.inf
        top_k_of(corrected, expert[t], weight[t])
        total = np.float32(0.0)
        for j in range(expert.shape[1]):
            weight[t, j] = score[expert[t, j]]
            total += weight[t, j]
        divisor = total + np.float32(1e-20) if normalise else np.float32(1.0)
        for j in range(expert.shape[1]):
            weight[t, j] = weight[t, j] / divisor * np.float32(scaling)


@njit
def _sum_of_two_best(x: NDArray[np.float32]) -> np.float32:
    first, second = max(x[0], x[1]), min(x[0], x[1])
    for i in range(2, x.shape[0]):
        if x[i] > first:
            first, second = x[i], first
        elif x[i] > second:
            second = x[i]
    return np.float32(first + second)


def check(n_experts: int, top_k: int, parameters: Any) -> None:
    """A group's score is the sum of two experts, so it must have them."""
    check_groups(n_experts, top_k, parameters)
    if parameters.n_group > 1 and n_experts // parameters.n_group < 2:
        raise InputError(f"groups of two experts at least, not {n_experts} experts in {parameters.n_group} groups")


STRATEGY = Strategy(name="deepseek-v3", route=route, parameters=DeepSeekV3Parameters, check=check)
