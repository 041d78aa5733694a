"""Capacity: how many assignments an expert takes, and which ones it refuses.

C = ceil(tokens x choices / experts x capacity_factor) over each scope (Switch
Transformers, section 2.2), rounded as the library one names, and at least
`minimum`. Which scope it is decides much: at few tokens a rank, "source-rank"
drops what "global" keeps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError
from moesim.kernels.jit import njit
from moesim.kernels.random import CAPACITY, key, uniform
from moesim.routing.rounding import ROUNDINGS
from moesim.types import OVER_CAPACITY, Assignment

OVERFLOWS: Mapping[str, str] = {
    "drop-by-position": "the earliest token is served, all its choices before those of the next (Megatron, DeepSpeed)",
    "drop-by-choice": "all first choices are served before any second one, the earliest token first (GShard, V-MoE)",
    "drop-by-priority": "the token with the largest score is served, choice by choice (batch-prioritised, V-MoE)",
    "drop-by-probability": "the largest weight is served, the earliest token among equals (Megatron)",
    "drop-at-random": "assignments are served in a random order (DeepSpeed's random token selection); needs a seed",
}
SCOPES: Mapping[str, str] = {
    "global": "all tokens of the step share an expert's capacity",
    "source-rank": "the tokens of each source rank have a share of their own (Megatron, DeepSpeed)",
    "sequence": "the tokens of each sequence have a share of their own (HF Switch)",
}


def apply_capacity(
    assignment: Assignment,
    *,
    n_experts: int,
    capacity_factor: float,
    overflow: str = "drop-by-position",
    scope: str = "global",
    minimum: int = 0,
    rounding: str = "megatron",
    scores: ArrayLike | None = None,
    source: ArrayLike | None = None,
    seed: int | None = None,
) -> Assignment:
    """Serve what fits and drop the rest; the request stays as it is.

    Args:
        assignment: T tokens with K choices.
        n_experts: E.
        capacity_factor: of the even share; 1.0 = no slack.
        overflow: a key of OVERFLOWS.
        scope: a key of SCOPES.
        minimum: least capacity of an expert in a scope, in assignments.
        rounding: a key of ROUNDINGS, the library whose capacity formula it is.
        scores: [T, K], by what "drop-by-probability" ranks assignments and "drop-by-priority" tokens, by the
            largest of each (default: the weights; published code takes the softmax over all experts).
        source: [T], the rank (scope "source-rank") or sequence (scope "sequence") of each token.
        seed: of "drop-at-random".

    Returns:
        The assignment with `served`, `dropped`, `cause` and `capacity` (one number per scope, in the order of
        their ids).

    Raises:
        InputError: an unknown policy or scope, a factor that is not positive, `source` or `seed` missing.
    """
    if overflow not in OVERFLOWS:
        raise InputError(f"overflow: found {overflow!r}, wanted one of {', '.join(OVERFLOWS)}")
    if not (math.isfinite(capacity_factor) and capacity_factor > 0):
        raise InputError(f"capacity_factor: found {capacity_factor!r}, wanted a positive number")
    if rounding not in ROUNDINGS:
        raise InputError(f"rounding: found {rounding!r}, wanted one of {', '.join(ROUNDINGS)}")
    if minimum < 0:
        raise InputError(f"minimum: found {minimum}, wanted 0 or more")
    n_tokens, top_k = assignment.expert.shape
    if assignment.expert.size and int(assignment.expert.max()) >= n_experts:
        raise InputError(f"n_experts: found {n_experts}, wanted more than expert {assignment.expert.max()}")
    group, tokens_of_group = _groups(scope, source, n_tokens)
    capacity = np.maximum(ROUNDINGS[rounding](tokens_of_group, n_experts, top_k, capacity_factor), minimum)
    served = np.full(assignment.expert.shape, -1, dtype=np.int32)
    _admit(
        _order(assignment, overflow, scores, seed),
        assignment.served.ravel(),
        group,
        capacity,
        np.zeros((len(capacity), n_experts), dtype=np.int64),
        served.ravel(),
    )
    dropped = (assignment.served >= 0) & (served < 0)
    return dataclasses.replace(
        assignment,
        served=served,
        dropped=assignment.dropped | dropped,
        cause=np.where(dropped, OVER_CAPACITY, assignment.cause).astype(np.int8),
        capacity=capacity,
    )


def _groups(scope: str, source: ArrayLike | None, n_tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The scope of each token [T], numbered from 0, and the number of tokens in each."""
    if scope not in SCOPES:
        raise InputError(f"scope: found {scope!r}, wanted one of {', '.join(SCOPES)}")
    if scope == "global":
        return np.zeros(n_tokens, dtype=np.int64), np.array([n_tokens], dtype=np.int64)
    if source is None:
        raise InputError(
            f"source: missing, wanted the {scope.replace('source-', '')} of each token for scope {scope!r}"
        )
    ids = np.asarray(source)
    if ids.shape != (n_tokens,):
        raise InputError(f"source: found shape {ids.shape}, wanted one id for each of {n_tokens} tokens")
    _, group, count = np.unique(ids, return_inverse=True, return_counts=True)
    return group.astype(np.int64), count.astype(np.int64)


def _order(assignment: Assignment, overflow: str, scores: ArrayLike | None, seed: int | None) -> NDArray[np.int64]:
    """Flat (token, choice) positions in the order in which they ask for a place."""
    n_tokens, top_k = assignment.expert.shape
    position = np.arange(n_tokens * top_k, dtype=np.int64)
    rank_by = assignment.weight if scores is None else np.asarray(scores, dtype=np.float32)
    if rank_by.shape != assignment.expert.shape:
        raise InputError(f"scores: found shape {rank_by.shape}, wanted {assignment.expert.shape}")
    if overflow == "drop-by-probability":
        return np.argsort(-rank_by.ravel(), kind="stable").astype(np.int64)
    if overflow == "drop-at-random":
        if seed is None:
            raise InputError("seed: missing, wanted a number for overflow 'drop-at-random'")
        draw = np.empty(n_tokens * top_k)
        _draw(seed, draw)
        return np.argsort(draw, kind="stable").astype(np.int64)
    by_choice = position.reshape(n_tokens, top_k).T
    if overflow == "drop-by-choice":
        return by_choice.ravel()
    if overflow == "drop-by-priority":
        first = np.argsort(-rank_by.max(axis=1, initial=-np.inf), kind="stable")
        return by_choice[:, first].ravel()
    return position


@njit
def _draw(seed: int, out: NDArray[np.float64]) -> None:
    """Fill out [N] with a uniform number for each assignment."""
    for i in range(out.shape[0]):
        out[i] = uniform(key(seed, CAPACITY, 0, 0, i), 0)


@njit
def _admit(
    order: NDArray[np.int64],
    expert: NDArray[np.int32],
    group: NDArray[np.int64],
    capacity: NDArray[np.int64],
    taken: NDArray[np.int64],
    served: NDArray[np.int32],
) -> None:
    """Serve flat assignments [T*K] in `order` until capacity [n_scopes]; `taken` [n_scopes, E] counts places."""
    top_k = expert.shape[0] // max(1, group.shape[0])
    for position in order:
        e = expert[position]
        if e >= 0:
            g = group[position // top_k]
            if taken[g, e] < capacity[g]:
                taken[g, e] += 1
                served[position] = e
