"""A control: distinct experts drawn uniformly, whatever the logits say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import ROUTER, key, uniform
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class RandomParameters:
    """Random routing has none."""


def route(
    logits: NDArray[np.float32], top_k: int, parameters: RandomParameters, state: NDArray[np.float32] | None, draw: Draw
) -> Assignment:
    """`top_k` distinct experts a token, uniform over all sets; each weighs 1 / top_k."""
    expert = np.empty((len(logits), top_k), dtype=np.int32)
    _draw_experts(draw.seed, draw.step, draw.layer, draw.first_token, logits.shape[1], expert)
    return Assignment.of(expert, np.full(expert.shape, 1.0 / top_k, dtype=np.float32))


@njit
def _draw_experts(
    seed: int,
    step: int,
    layer: int,
    first: int,
    n_experts: int,
    expert: NDArray[np.int32],
) -> None:
    """Fill expert [T, K] by the first K places of a Fisher-Yates shuffle of each token."""
    order = np.empty(n_experts, dtype=np.int32)
    for e in range(n_experts):
        order[e] = e
    k = expert.shape[1]
    taken = np.empty(k, dtype=np.int64)
    for t in range(expert.shape[0]):
        word = key(seed, ROUTER, step, layer, first + t)
        for j in range(k):
            taken[j] = j + int(uniform(word, j) * (n_experts - j))
            order[j], order[taken[j]] = order[taken[j]], order[j]
            expert[t, j] = order[j]
        for j in range(k - 1, -1, -1):  # back to the identity, so that a token does not depend on those before it
            order[j], order[taken[j]] = order[taken[j]], order[j]


STRATEGY = Strategy(name="random", route=route, parameters=RandomParameters, obeys_mask=False)
