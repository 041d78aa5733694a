"""GShard: top-2, whose second expert may be drawn or left out at random.

Lepikhin et al. 2020, algorithm 1; Lingvo `Top2GatingOnLogits`. The first
expert has the largest p = softmax over all; the second, by policy, "all": the
next largest; "sampling": the largest of the others' logits plus Gumbel noise;
"random": the next largest, kept with probability g2 / second_expert_threshold.
In its default form (`legacy_mtf_behavior`) both gates are divided by their sum
+ 1e-9 first, so that g2 is at most 0.5; in the newer form they are p until
capacity has acted and are then divided by the sum of those that are left
(`apply_capacity(..., renormalise=True)`). Its capacity is choice-major with
Lingvo's rounding: overflow "drop-by-choice", rounding "lingvo".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import ROUTER, SECOND_EXPERT, key, uniform
from moesim.errors import ParameterError
from moesim.routing.gate import top_k_softmax
from moesim.routing.strategy import Strategy
from moesim.routing.substitution import router_scores
from moesim.types import Assignment, Draw

POLICIES = ("all", "sampling", "random")


@dataclass(frozen=True, kw_only=True)
class GShardParameters:
    """`second_expert_policy`: all, sampling or random; `second_expert_threshold` is that of random."""

    second_expert_policy: str = "all"
    second_expert_threshold: float = 0.5
    legacy_mtf_behavior: bool = True


def route(
    logits: NDArray[np.float32], top_k: int, parameters: GShardParameters, state: NDArray[np.float32] | None, draw: Draw
) -> Assignment:
    """Top-2 of logits [T, E]; a second expert that was left out is -1 with weight 0."""
    policy = parameters.second_expert_policy
    noise = np.zeros(logits.shape if policy == "sampling" else (len(logits), 1), dtype=np.float32)
    if policy == "sampling":
        _gumbel(draw.seed, draw.step, draw.layer, draw.first_token, noise)
    elif policy == "random":
        _uniform(draw.seed, draw.step, draw.layer, draw.first_token, noise[:, 0])
    return top_2(logits, noise, parameters)


def top_2(logits: NDArray[np.float32], noise: NDArray[np.float32], parameters: GShardParameters) -> Assignment:
    """The same for given random numbers: Gumbel noise [T, E] of "sampling", uniform numbers [T, 1] of "random"."""
    expert, weight = top_k_softmax(logits, 2)
    if parameters.second_expert_policy == "sampling":
        others = logits + noise
        np.put_along_axis(others, expert[:, :1], -np.inf, axis=1)
        expert[:, 1] = others.argmax(axis=1)
        weight = np.take_along_axis(router_scores(logits, by_sigmoid=False), expert, axis=1)
    if parameters.legacy_mtf_behavior:
        weight = weight / (weight.sum(axis=1, keepdims=True) + np.float32(1e-9))
    if parameters.second_expert_policy == "random":
        threshold = np.float32(max(parameters.second_expert_threshold, 1e-9))
        left_out = noise[:, 0] >= weight[:, 1] / threshold
        expert[left_out, 1] = -1
        weight[left_out, 1] = 0.0
    return Assignment.of(expert, weight)


@njit
def _uniform(seed: int, step: int, layer: int, first: int, out: NDArray[np.float32]) -> None:
    for t in range(out.shape[0]):
        out[t] = np.float32(uniform(key(seed, ROUTER, step, layer, first + t), 0))


@njit
def _gumbel(seed: int, step: int, layer: int, first: int, out: NDArray[np.float32]) -> None:
    for t in range(out.shape[0]):
        word = key(seed, SECOND_EXPERT, step, layer, first + t)
        for e in range(out.shape[1]):
            out[t, e] = np.float32(-np.log(-np.log(uniform(word, e))))


def check(n_experts: int, top_k: int, parameters: GShardParameters) -> None:
    """GShard is top-2."""
    if top_k != 2:
        raise ParameterError("top_k", top_k, "2, as gshard sends a token to two experts")
    if parameters.second_expert_policy not in POLICIES:
        raise ParameterError("second_expert_policy", parameters.second_expert_policy, "one of " + ", ".join(POLICIES))
    if parameters.second_expert_threshold < 0:
        raise ParameterError("second_expert_threshold", parameters.second_expert_threshold, "0 or more")


STRATEGY = Strategy(name="gshard", route=route, parameters=GShardParameters, check=check)
