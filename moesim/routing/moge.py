"""Mixture of grouped experts: the same number of experts from every group.

Tang et al. 2025, Pangu Pro MoE, section 2: p = softmax over all experts; of
each of `n_group` equal groups, one a device, the top_k / n_group most probable;
weights are p times `routed_scaling_factor`. So every device gets the same
number of assignments from every token, whatever the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ParameterError
from moesim.routing.gate import GateParameters
from moesim.routing.gate import route as route_gate
from moesim.routing.strategy import Strategy
from moesim.routing.substitution import router_scores
from moesim.types import Assignment, Draw

_BY_LOGIT = GateParameters(score="softmax-of-chosen")


@dataclass(frozen=True, kw_only=True)
class MogeParameters:
    """`norm_topk_prob`: divide the weights of a token by their sum; Pangu Pro has 8 groups of 8 experts."""

    n_group: int = 1
    norm_topk_prob: bool = False
    routed_scaling_factor: float = 1.0


def route(
    logits: NDArray[np.float32], top_k: int, parameters: MogeParameters, state: NDArray[np.float32] | None, draw: Draw
) -> Assignment:
    """Route logits [T, E]; choices are in the order of the groups, the best of each first."""
    n_tokens, n_experts = logits.shape
    n_group, size = parameters.n_group, n_experts // parameters.n_group
    quota = top_k // n_group
    within = route_gate(logits.reshape(n_tokens * n_group, size), quota, _BY_LOGIT, None, draw).expert
    first = np.arange(n_group, dtype=np.int32)[None, :, None] * np.int32(size)
    expert = (within.reshape(n_tokens, n_group, quota) + first).reshape(n_tokens, top_k)
    weight = np.take_along_axis(router_scores(logits, by_sigmoid=False), expert, axis=1)
    if parameters.norm_topk_prob:
        weight /= weight.sum(axis=1, keepdims=True)
    return Assignment.of(expert, weight * np.float32(parameters.routed_scaling_factor))


def check(n_experts: int, top_k: int, parameters: MogeParameters) -> None:
    """Equal groups, and equal quotas that fit them."""
    n_group = parameters.n_group
    if n_group < 1 or n_experts % n_group:
        raise ParameterError("n_group", n_group, f"a number that divides the {n_experts} experts")
    if top_k % n_group:
        raise ParameterError("top_k", top_k, f"a multiple of n_group ({n_group})")


STRATEGY = Strategy(name="moge", route=route, parameters=MogeParameters, check=check, obeys_mask=False)
