"""GShard: top-2, whose second expert may be left out at random.

Lepikhin et al. 2020, algorithm 1; Lingvo `Top2GatingOnLogits` in its default
form (legacy_mtf_behavior): both gates are divided by their sum + 1e-9 before
anything is dropped; with `second_expert_threshold` > 0 (policy "random") the
second is kept with probability g2 / threshold. Its capacity is choice-major
with Lingvo's rounding: overflow "drop-by-choice", rounding "lingvo".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ParameterError
from moesim.kernels.jit import njit
from moesim.kernels.random import ROUTER, key, uniform
from moesim.routing.gate import top_k_softmax
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class GShardParameters:
    """`second_expert_threshold`: 0 keeps every second expert, above it with probability g2 / threshold (at most 1)."""

    second_expert_threshold: float = 0.0


def route(logits: NDArray[np.float32], top_k: int, parameters: Any, state: Any, draw: Draw) -> Assignment:
    """Top-2 of logits [T, E]; a second expert that was left out is -1 with weight 0."""
    u = np.zeros(len(logits), dtype=np.float32)
    if parameters.second_expert_threshold > 0:
        _draw(draw.seed, draw.step, draw.layer, draw.first_token, u)
    return top_2(logits, u, parameters.second_expert_threshold)


def top_2(logits: NDArray[np.float32], u: NDArray[np.float32], threshold: float) -> Assignment:
    """The same for given uniform numbers u [T]."""
    expert, weight = top_k_softmax(logits, 2)
    weight /= weight.sum(axis=1, keepdims=True) + np.float32(1e-9)
    if threshold > 0:
        left_out = u >= weight[:, 1] / np.float32(threshold)
        expert[left_out, 1] = -1
        weight[left_out, 1] = 0.0
    return Assignment.of(expert, weight)


@njit
def _draw(seed: int, step: int, layer: int, first: int, u: NDArray[np.float32]) -> None:
    for t in range(u.shape[0]):
        u[t] = np.float32(uniform(key(seed, ROUTER, step, layer, first + t), 0))


def check(n_experts: int, top_k: int, parameters: Any) -> None:
    """GShard is top-2."""
    if top_k != 2:
        raise ParameterError("top_k", top_k, "2, as gshard sends a token to two experts")
    if parameters.second_expert_threshold < 0:
        raise ParameterError("second_expert_threshold", parameters.second_expert_threshold, "0 or more")


STRATEGY = Strategy(name="gshard", route=route, parameters=GShardParameters, check=check)
