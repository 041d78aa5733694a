"""Top-p: as many experts as it takes to hold a share of the probability.

Huang et al. 2024, Harder Tasks Need More Experts; `top_p_sampling` of
Dynamic_MoE. Experts in the order of their softmax probability, up to and
including the first with which the sum exceeds `top_p`; the weights are the
probabilities, not renormalised. All of them where no sum exceeds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ParameterError
from moesim.routing.gate import top_k_softmax
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class TopPParameters:
    """`top_p`: the share of probability that the chosen experts must exceed together."""

    top_p: float = 0.4


def route(
    logits: NDArray[np.float32], top_k: int, parameters: TopPParameters, state: NDArray[np.float32] | None, draw: Draw
) -> Assignment:
    """Up to `top_k` experts a token (E = no bound, as published); unused choices are -1."""
    expert, weight = top_k_softmax(logits, top_k)
    held = np.cumsum(weight, axis=1, dtype=np.float32)
    unused = np.zeros(expert.shape, dtype=np.bool_)
    unused[:, 1:] = held[:, :-1] > np.float32(parameters.top_p)
    expert[unused] = -1
    weight[unused] = 0.0
    return Assignment.of(expert, weight)


def check(n_experts: int, top_k: int, parameters: TopPParameters) -> None:
    """A share of the probability."""
    if not 0 < parameters.top_p <= 1:
        raise ParameterError("top_p", parameters.top_p, "above 0 and at most 1")


STRATEGY = Strategy(name="top-p", route=route, parameters=TopPParameters, check=check)
