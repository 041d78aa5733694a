"""Substitution of choices at inference, which works with any router and without training.

`substitute` trades a token's near-equal experts for less loaded ones, in the
spirit of LASER (Shahout et al. 2025): where scores are clear the best experts
stay, where they are close the load decides. `group_mask` limits a token to its
best groups of experts, for instance nodes (DeepSeek-V3, section 2.1.2), for
routers that have no such limit of their own. Rerouting what is over capacity
is a policy of `apply_capacity`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.compiled.exponential import largest, sigmoid, softmax
from moesim.compiled.jit import njit
from moesim.errors import ParameterError
from moesim.routing.groups import choose_groups
from moesim.types import Assignment


def substitute(
    assignment: Assignment,
    scores: ArrayLike,
    *,
    threshold: float = 0.9,
    load: NDArray[np.int64] | None = None,
) -> Assignment:
    """Trade near-equal choices for less loaded experts, token after token.

    With s the score of a token's last choice, experts with scores above
    s / threshold stay chosen; its other places go to the least loaded of those
    with scores from s * threshold, the better score and then the lower index
    first among equals. The load counts all choices of the tokens before it,
    whatever their rank: an idealisation, as ranks would have to tell each other.

    Args:
        assignment: T tokens with K choices, before any capacity.
        scores: [T, E], positive where an expert may be chosen (probabilities, sigmoids).
        threshold: above 0 and at most 1; 1 trades exact ties only.
        load: [E] assignments of tokens before these, updated in place (default: none).

    Returns:
        An assignment whose `expert` has the new choices, each weighing its score times the ratio of the
        token's old weights to their scores.

    Raises:
        ParameterError: scores of another shape or NaN, a load that is none, or a threshold outside (0, 1].
    """
    matrix = np.ascontiguousarray(scores, dtype=np.float32)
    n_tokens = len(assignment.expert)
    if matrix.ndim != 2 or len(matrix) != n_tokens or matrix.shape[1] <= assignment.expert.max(initial=0):
        raise ParameterError("scores", f"shape {matrix.shape}", f"shape ({n_tokens}, experts)")
    if np.isnan(matrix).any():
        raise ParameterError("scores", "NaN", "numbers that can be compared")
    if not 0 < threshold <= 1:
        raise ParameterError("threshold", threshold, "above 0 and at most 1")
    if load is None:
        load = np.zeros(matrix.shape[1], dtype=np.int64)
    elif load.shape != (matrix.shape[1],) or load.dtype != np.int64:
        raise ParameterError("load", f"{load.dtype} of shape {load.shape}", f"int64 of shape ({matrix.shape[1]},)")
    expert, weight = assignment.expert.copy(), assignment.weight.copy()
    _substitute(matrix, np.float32(threshold), load, expert, weight)
    return dataclasses.replace(assignment, expert=expert, weight=weight, served=expert)


@njit
def _substitute(
    scores: NDArray[np.float32],
    threshold: np.float32,
    load: NDArray[np.int64],
    expert: NDArray[np.int32],
    weight: NDArray[np.float32],
) -> None:
    for t in range(expert.shape[0]):
        row, chosen = scores[t], expert[t]
        last, old_score, old_weight, places = np.float32(np.inf), np.float32(0), np.float32(0), 0
        for j in range(chosen.shape[0]):
            if chosen[j] >= 0:
                last = min(last, row[chosen[j]])
                old_score += row[chosen[j]]
                old_weight += weight[t, j]
                places += 1
        ratio = old_weight / old_score if old_score > 0 else np.float32(0)
        lower, upper = last * threshold, last / threshold
        filled = 0
        for j in range(chosen.shape[0]):
            if chosen[j] >= 0 and row[chosen[j]] > upper:
                chosen[filled] = chosen[j]
                filled += 1
        for place in range(filled, places):
            chosen[place] = _least_loaded(row, lower, upper, load, chosen[filled:place])
        for place in range(places):
            weight[t, place] = row[chosen[place]] * ratio
            load[chosen[place]] += 1
        for place in range(places, chosen.shape[0]):
            chosen[place] = -1
            weight[t, place] = 0


@njit
def _least_loaded(
    row: NDArray[np.float32],
    lower: np.float32,
    upper: np.float32,
    load: NDArray[np.int64],
    taken: NDArray[np.int32],
) -> int:
    """The expert with the smallest load and a score in [lower, upper] that is not taken."""
    best = -1
    for e in range(row.shape[0]):
        if row[e] < lower or row[e] > upper:
            continue
        free = True
        for other in taken:
            free &= other != e
        if free and (best < 0 or load[e] < load[best] or (load[e] == load[best] and row[e] > row[best])):
            best = e
    return best


def group_mask(scores: ArrayLike, *, n_group: int, topk_group: int, summed: int) -> NDArray[np.bool_]:
    """The experts [T, E] of each token's `topk_group` best groups of `n_group` consecutive equal ones.

    A group's score is the sum of its `summed` best of `scores` [T, E].

    Raises:
        ParameterError: scores of another shape, groups that do not divide the experts, or more of them than there are.
    """
    matrix = np.ascontiguousarray(scores, dtype=np.float32)
    if matrix.ndim != 2:
        raise ParameterError("scores", f"shape {matrix.shape}", "shape (tokens, experts)")
    n_experts = matrix.shape[1]
    if n_group < 1 or n_experts % n_group:
        raise ParameterError("n_group", n_group, f"a number that divides the {n_experts} experts")
    if not 1 <= topk_group <= n_group:
        raise ParameterError("topk_group", topk_group, f"1 to n_group ({n_group})")
    if not 1 <= summed <= n_experts // n_group:
        raise ParameterError("summed", summed, f"1 to the {n_experts // n_group} experts of a group")
    kept = np.empty((len(matrix), n_group), dtype=np.bool_)
    choose_groups(matrix, summed, topk_group, kept)
    return np.repeat(kept, n_experts // n_group, axis=1)


def router_scores(logits: NDArray[np.float32], *, by_sigmoid: bool) -> NDArray[np.float32]:
    """What a router makes of logits [T, E] before any bias: sigmoids, or probabilities over the experts, [T, E]."""
    scores = np.empty_like(logits)
    _score(logits, by_sigmoid, scores)
    return scores


@njit
def _score(logits: NDArray[np.float32], by_sigmoid: bool, scores: NDArray[np.float32]) -> None:
    n_experts = logits.shape[1]
    power, no_bias = np.empty(n_experts, dtype=np.int32), np.zeros(n_experts, dtype=np.float32)
    out, biased = np.empty(n_experts, dtype=np.float32), np.empty(n_experts, dtype=np.float32)
    scale = power.view(np.float32)
    for t in range(logits.shape[0]):
        if by_sigmoid:
            sigmoid(logits, t, no_bias, out, biased, power, scale)
            scores[t] = out
        else:
            total = softmax(logits, t, largest(logits, t), out, power, scale)
            for e in range(n_experts):
                scores[t, e] = out[e] / total
