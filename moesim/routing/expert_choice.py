"""Expert choice: every expert takes the tokens it likes best, as many as it has room for.

Zhou et al. 2022, section 3.2; V-MoE `get_top_items_per_expert_dispatcher`.
p = softmax over the experts of each token; expert e takes the C tokens with
the largest p[:, e], the earliest among equals, C = ceil(T * top_k / E) (at most
T), so that top_k is the mean number of experts a token gets; some get none.
Balance is perfect by construction, but a token's experts depend on the other
tokens of the batch, later ones included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class ExpertChoiceParameters:
    """Expert choice has none except top_k, the mean number of experts a token."""


def route(
    logits: NDArray[np.float32],
    top_k: int,
    parameters: ExpertChoiceParameters,
    state: NDArray[np.float32] | None,
    draw: Draw,
) -> Assignment:
    """Let the experts choose among all tokens of logits [T, E].

    Returns [T, K] with K the most experts that any token got; a token's
    experts are in the order of their index, weights are p.
    """
    n_tokens, n_experts = logits.shape
    capacity = min(n_tokens, -(-n_tokens * top_k // n_experts))
    p = np.empty_like(logits)
    _softmax(logits, p)
    chosen = np.zeros(logits.shape, dtype=np.bool_)
    tokens = np.argsort(-p, axis=0, kind="stable")[:capacity]  # [C, E]
    chosen[tokens, np.arange(n_experts)] = True
    width = max(1, int(chosen.sum(axis=1).max(initial=0)))
    expert = np.full((n_tokens, width), -1, dtype=np.int32)
    weight = np.zeros((n_tokens, width), dtype=np.float32)
    token, e = np.nonzero(chosen)
    place = (np.cumsum(chosen, axis=1) - 1)[token, e]
    expert[token, place] = e
    weight[token, place] = p[token, e]
    return Assignment.of(expert, weight)


@njit
def _softmax(logits: NDArray[np.float32], p: NDArray[np.float32]) -> None:
    """Fill p [T, E] with the softmax of each token over the experts."""
    for t in range(logits.shape[0]):
        peak, total = logits[t].max(), np.float32(0.0)
        for e in range(logits.shape[1]):
            p[t, e] = np.float32(np.exp(logits[t, e] - peak))
            total += p[t, e]
        for e in range(logits.shape[1]):
            p[t, e] /= total


STRATEGY = Strategy(
    name="expert-choice", route=route, parameters=ExpertChoiceParameters, scope="batch", obeys_mask=False
)
