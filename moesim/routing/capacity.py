"""Capacity: how many assignments an expert takes, which ones it refuses, and where those go.

C = ceil(tokens x choices / experts x capacity_factor) over each scope (Switch
Transformers, section 2.2), rounded as the library one names, and at least
`minimum`. Which scope it is decides much: at few tokens a rank, "source-rank"
drops what "global" keeps. A policy admits in some order, and some then offer
the refused assignments to other experts of their token.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import ParameterError
from moesim.routing.admission import (
    Bins,
    Candidates,
    admit_by_choice,
    admit_by_position,
    admit_by_score,
    draw_scores,
    fill_bins,
    reroute,
)
from moesim.routing.policies import FALLBACKS, OVERFLOWS, SCOPES, Overflow
from moesim.routing.rounding import ROUNDINGS, SIGNED
from moesim.types import (
    NOT_DROPPED,
    TO_LOCAL_EXPERT,
    TO_NEXT_CHOICE,
    Assignment,
)


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
    device: ArrayLike | None = None,
    seed: int | None = None,
    tries: int = 1,
    renormalise: bool = False,
    fallback: str = "residual",
    pad: bool = False,
) -> Assignment:
    """Serve what fits, reroute what the policy reroutes and drop the rest; the request stays as it is.

    "drop-by-position" is first come, first served. Megatron's policy of that
    name and DeepSpeed's top-1 gate rank a 0/1 mask instead, so that on some
    devices which tokens stay is a matter of tie-breaking; how many is the same.

    Args:
        assignment: T tokens with K choices.
        n_experts: E.
        capacity_factor: of the even share; 1.0 = no slack. With rounding "tutel" 0 = the largest load, and below 0
            that load, but at most the capacity of the factor's absolute value.
        overflow: a key of OVERFLOWS.
        scope: a key of SCOPES.
        minimum: least capacity of an expert in a scope, in assignments.
        rounding: a key of ROUNDINGS, the library whose capacity formula it is.
        scores: [T, E] or [T, K], by what "drop-by-probability" ranks assignments and "drop-by-priority" tokens, by the
            largest of each (default: the weights; published code takes the softmax over all experts). A matrix of E
            columns is [T, E], where K = E too: column e is expert e, whatever the order of the choices. The reroute
            policies and "expanded-drop" need [T, E]; a rerouted assignment weighs its new expert's score.
        source: [T], the rank (scope "source-rank", "expanded-drop") or sequence (scope "sequence") of each token.
        device: [E], the rank that holds each expert, for scope "device" and "expanded-drop".
        seed: of "drop-at-random".
        tries: of "reroute-to-next", experts that are offered to a refused assignment.
        renormalise: divide the weights of a token's served choices by their sum, at least 1.2e-7 (DeepSpeed); those
            of its dropped ones become 0.
        fallback: a key of FALLBACKS, what the cause of a drop names: the residual path alone, or the shared expert.
        pad: count the rows that fill every expert up to its capacity in each scope (Megatron `pad_to_capacity`).

    Returns:
        The assignment with `served`, `dropped`, `rerouted`, `cause` and `capacity` (one number per scope, in the
        order of their ids), and with `pad` `padding`.

    Raises:
        ParameterError: an argument that the policy needs is missing, unknown or of the wrong shape.
    """
    _check_names(overflow=(overflow, OVERFLOWS), scope=(scope, SCOPES), rounding=(rounding, ROUNDINGS))
    _check_names(fallback=(fallback, FALLBACKS))
    _check_numbers(capacity_factor, rounding, minimum, tries)
    n_tokens, top_k = assignment.expert.shape
    if assignment.expert.size and int(assignment.expert.max()) >= n_experts:
        raise ParameterError("n_experts", n_experts, f"more than expert {assignment.expert.max()}")
    group, tokens_of_group = _groups(scope, source, n_tokens)
    bin_of, n_bins = _bins_of_a_scope(scope, device, n_experts)
    bins = np.empty((n_tokens, top_k), dtype=np.int32)
    fill_bins(assignment.served, group, bin_of, n_bins, bins)
    capacity = ROUNDINGS[rounding](tokens_of_group, n_bins, top_k, abs(capacity_factor))
    if capacity_factor <= 0:
        load = np.bincount(bins[bins >= 0], minlength=len(capacity) * n_bins).reshape(-1, n_bins).max(axis=1)
        capacity = np.minimum(load, capacity) if capacity_factor < 0 else load
    capacity = np.maximum(capacity, minimum)

    policy, room = OVERFLOWS[overflow], np.repeat(capacity, n_bins)
    ranked_by = _draws(seed, bins.shape) if policy.order == "draw" else _ranked_by(assignment, scores, n_experts)
    admitted = np.zeros(bins.shape, dtype=np.bool_)
    _ADMISSIONS[policy.order](bins, ranked_by, room, admitted)
    served = np.where(admitted, assignment.served, np.int32(-1))
    weight, cause, rerouted = assignment.weight, assignment.cause, assignment.rerouted
    if policy.reroutes_as != NOT_DROPPED:
        weight = weight.copy()
        candidates = _candidates(policy, served, n_experts, scores, source, device, tries, ranked_by)
        refused = ((assignment.served >= 0) & ~admitted).ravel()  # what was dropped before stays so
        candidates = candidates._replace(order=candidates.order[refused[candidates.order]])
        reroute(assignment.expert, Bins(group, bin_of, n_bins, room), candidates, served, weight)
        moved = (served >= 0) & ~admitted
        cause = np.where(moved, policy.reroutes_as, cause)
        rerouted = rerouted | moved
    dropped = (assignment.served >= 0) & (served < 0)
    return dataclasses.replace(
        assignment,
        weight=_renormalised(weight, served) if renormalise else weight,
        served=served,
        dropped=assignment.dropped | dropped,
        rerouted=rerouted,
        cause=np.where(dropped, np.int8(FALLBACKS[fallback]), cause).astype(np.int8, copy=False),
        capacity=capacity,
        padding=room.reshape(-1, n_bins) if pad else None,
    )


Admission = Callable[[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]], None]
"""(bins, score of each assignment, room, admitted): uses up room and marks in admitted what is served."""


def _by_priority(
    bins: NDArray[np.int32], ranked_by: NDArray[np.float32], room: NDArray[np.int64], admitted: NDArray[np.bool_]
) -> None:
    order = np.argsort(-ranked_by.max(axis=1, initial=-np.inf), kind="stable")
    admit_by_choice(bins, order, room, admitted)


_ADMISSIONS: Mapping[str, Admission] = {
    "position": lambda bins, _, room, admitted: admit_by_position(bins, room, admitted),
    "choice": lambda bins, _, room, admitted: admit_by_choice(bins, np.arange(len(bins)), room, admitted),
    "priority": _by_priority,
    "score": admit_by_score,
    "draw": admit_by_score,
}


def _check_numbers(capacity_factor: float, rounding: str, minimum: int, tries: int) -> None:
    known = isinstance(capacity_factor, Real) and math.isfinite(capacity_factor)
    if not known or (capacity_factor <= 0 and rounding not in SIGNED):
        raise ParameterError("capacity_factor", capacity_factor, "a positive number")
    for name, value, least in (("minimum", minimum, 0), ("tries", tries, 1)):
        if value < least:
            raise ParameterError(name, value, f"{least} or more")


def _bins_of_a_scope(scope: str, device: ArrayLike | None, n_experts: int) -> tuple[NDArray[np.int64], int]:
    """What shares a capacity: the bin of each expert [E], and how many bins there are."""
    if scope != "device":
        return np.arange(n_experts, dtype=np.int64), n_experts
    devices, bin_of = np.unique(_ids("device", device, n_experts, "scope 'device'"), return_inverse=True)
    return bin_of.astype(np.int64), len(devices)


def _draws(seed: int | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if seed is None:
        raise ParameterError("seed", None, "a number for overflow 'drop-at-random'")
    draws = np.empty(shape, dtype=np.float32)
    draw_scores(seed, draws)
    return draws


def _renormalised(weight: NDArray[np.float32], served: NDArray[np.int32]) -> NDArray[np.float32]:
    kept = np.where(served >= 0, weight, np.float32(0))
    return np.asarray(kept / np.maximum(kept.sum(axis=1, keepdims=True), np.finfo(np.float32).eps))


def _check_names(**names: tuple[str, Mapping[str, object]]) -> None:
    for argument, (found, known) in names.items():
        if found not in known:
            raise ParameterError(argument, found, "one of " + ", ".join(known))


def _ids(argument: str, ids: ArrayLike | None, length: int, needed_by: str) -> NDArray[np.int64]:
    """One whole number for each token or expert."""
    if ids is None:
        raise ParameterError(argument, None, f"an id for each of {length}, as {needed_by} needs")
    array = np.asarray(ids)
    if array.shape != (length,) or not np.issubdtype(array.dtype, np.integer):
        raise ParameterError(argument, f"{array.dtype} of shape {array.shape}", f"{length} whole numbers")
    return array.astype(np.int64)


def _groups(scope: str, source: ArrayLike | None, n_tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The scope of each token [T], numbered from 0, and the number of tokens in each."""
    if scope in {"global", "device"}:
        return np.zeros(n_tokens, dtype=np.int64), np.array([n_tokens], dtype=np.int64)
    _, group, count = np.unique(
        _ids("source", source, n_tokens, f"scope {scope!r}"), return_inverse=True, return_counts=True
    )
    return group.astype(np.int64), count.astype(np.int64)


def _ranked_by(assignment: Assignment, scores: ArrayLike | None, n_experts: int) -> NDArray[np.float32]:
    """A score for each assignment, [T, K]."""
    if scores is None:
        return np.ascontiguousarray(assignment.weight, dtype=np.float32)
    array = np.asarray(scores, dtype=np.float32)
    n_tokens, top_k = assignment.expert.shape
    if array.shape not in {(n_tokens, top_k), (n_tokens, n_experts)}:
        raise ParameterError(
            "scores", f"shape {array.shape}", f"shape ({n_tokens}, {top_k}) or ({n_tokens}, {n_experts})"
        )
    if np.isnan(array).any():
        raise ParameterError("scores", "NaN", "numbers that can be compared")
    if array.shape[1] == n_experts:
        array = np.take_along_axis(array, np.maximum(assignment.expert, 0), axis=1)
    return np.ascontiguousarray(np.where(assignment.expert >= 0, array, np.float32(-np.inf)))


def _candidates(
    policy: Overflow,
    served: NDArray[np.int32],
    n_experts: int,
    scores: ArrayLike | None,
    source: ArrayLike | None,
    device: ArrayLike | None,
    tries: int,
    ranked_by: NDArray[np.float32],
) -> Candidates:
    """The experts that a policy offers to the refused."""
    matrix = np.ascontiguousarray(np.empty((0, 0)) if scores is None else scores, dtype=np.float32)
    n_tokens = len(served)
    if matrix.shape != (n_tokens, n_experts):
        found = None if scores is None else f"shape {matrix.shape}"
        raise ParameterError("scores", found, f"shape ({n_tokens}, {n_experts}), all experts', as rerouting needs")
    if policy.reroutes_as != TO_LOCAL_EXPERT:
        return Candidates(
            scores=matrix,
            allowed=np.ones((1, n_experts), dtype=np.bool_),
            own=np.zeros(n_tokens, dtype=np.int64),
            order=np.arange(served.size, dtype=np.int64),
            tries=tries if policy.reroutes_as == TO_NEXT_CHOICE else n_experts,
            one_by_one=policy.reroutes_as != TO_NEXT_CHOICE,
        )
    rank_of_token = _ids("source", source, n_tokens, "overflow 'expanded-drop'")
    rank_of_expert = _ids("device", device, n_experts, "overflow 'expanded-drop'")
    ranks, own = np.unique(rank_of_token, return_inverse=True)
    return Candidates(
        scores=matrix,
        allowed=ranks[:, None] == rank_of_expert[None, :],
        own=own.astype(np.int64),
        order=np.argsort(-ranked_by.ravel(), kind="stable"),
        tries=n_experts,
        one_by_one=True,
    )
