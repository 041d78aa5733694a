"""DeepSeek-V2: softmax scores, groups by their best expert, no normalisation.

HF `DeepseekV2TopkRouter`, `group_limited_greedy`: p = softmax over all
experts; the score of a group is its largest p (V3 takes the sum of the two
best); the `topk_group` best of `n_group` groups stay; the top k of p among
them, each times `routed_scaling_factor`. `n_group` 1 is its `greedy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit
from moesim.kernels.topk import top_k_of
from moesim.routing.groups import check_groups
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class DeepSeekV2Parameters:
    """Names and meaning of the model's configuration; V2 has 8 groups, 3 kept, and a factor of 16."""

    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = False
    routed_scaling_factor: float = 1.0


def route(logits: NDArray[np.float32], top_k: int, parameters: Any, state: Any, draw: Draw) -> Assignment:
    """Route logits [T, E]."""
    expert = np.empty((len(logits), top_k), dtype=np.int32)
    weight = np.empty((len(logits), top_k), dtype=np.float32)
    _route(
        logits,
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
    n_group: int,
    topk_group: int,
    normalise: bool,
    scaling: float,
    expert: NDArray[np.int32],
    weight: NDArray[np.float32],
) -> None:
    n_experts = logits.shape[1]
    size = n_experts // n_group
    allowed = np.empty(n_experts, dtype=np.float32)
    group_best = np.empty(n_group, dtype=np.float32)
    best_group = np.empty(topk_group, dtype=np.int32)
    best_value = np.empty(topk_group, dtype=np.float32)
    for t in range(logits.shape[0]):
        row = logits[t]
        for g in range(n_group):
            group_best[g] = row[g * size : (g + 1) * size].max()
        top_k_of(group_best, best_group, best_value)
        peak, total = best_value[0], np.float32(0.0)
        for e in range(n_experts):
            total += np.exp(row[e] - peak)
        allowed[:] = -np.inf
        for best in best_group:
            allowed[best * size : (best + 1) * size] = row[best * size : (best + 1) * size]
        top_k_of(allowed, expert[t], weight[t])
        kept = np.float32(0.0)
        for j in range(expert.shape[1]):
            weight[t, j] = np.exp(weight[t, j] - peak) / total
            kept += weight[t, j]
        for j in range(expert.shape[1]):
            share = weight[t, j] / kept if normalise else weight[t, j]
            weight[t, j] = share * np.float32(scaling)


STRATEGY = Strategy(name="deepseek-v2", route=route, parameters=DeepSeekV2Parameters, check=check_groups)
