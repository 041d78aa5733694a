"""The call that routes logits by a named strategy, and what it asks of its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.compiled.finite import all_finite
from moesim.errors import InputError, ParameterError
from moesim.routing.registry import parameters_for
from moesim.routing.registry import strategy as named
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


def route(
    logits: ArrayLike,
    *,
    strategy: str,
    top_k: int,
    seed: int = 0,
    token_ids: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    **parameters: Any,
) -> Assignment:
    """Route tokens with a named strategy.

    Args:
        logits: [T, E], finite; converted to float32.
        strategy: a name of `moesim list strategies`.
        top_k: choices of a token.
        seed: seed of random strategies.
        token_ids: [T] vocabulary ids, for hashing strategies.
        bias: [E] added to the scores that are compared, not to the weights (strategies of the top-k gate).
        mask: bool [T, E], False where an expert is out of reach of a token (see `group_mask`); each token needs top_k
            others. Its logit becomes -inf; what a router that does not go by logits chooses nevertheless becomes -1.
        parameters: those of the strategy. Nothing here says whether the router is in training, so base, sinkhorn and
            noisy-top-k do as published for training unless `training=False` or `noise_std=0` says otherwise; a
            scenario decides by its phase.

    Returns:
        Assignment with expert int32 [T, K] and weight float32 [T, K], best choice first.

    Raises:
        ParameterError: names the argument, the value and what would be right (a ValueError).
    """
    matrix = _matrix(logits)
    try:
        found = named(strategy)
    except ParameterError:
        raise
    except InputError as error:
        raise ParameterError("strategy", strategy, str(error)) from None
    values = parameters_for(found, parameters)
    if not _is_whole(top_k):
        raise ParameterError("top_k", top_k, "a whole number")
    found.validate(matrix.shape[1], int(top_k), values)
    reach = None if mask is None else _mask(mask, matrix.shape, int(top_k))
    if reach is not None:
        matrix = np.where(reach, matrix, np.float32(-np.inf))
    state = None if bias is None else _bias(bias, matrix.shape[1], found)
    draw = Draw(seed=_seed(seed), token_ids=_ids(token_ids, len(matrix)))
    assignment = found.route(matrix, int(top_k), values, state, draw)
    if reach is None:
        return assignment
    assignment = _within(reach, assignment)
    kept, n_groups = found.groups(values)
    if kept < n_groups and found.obeys_mask and (assignment.expert < 0).any():
        token = int(np.flatnonzero((assignment.expert < 0).any(axis=1))[0])
        wanted = f"top_k ({top_k}) or more in the groups that it may use"
        raise ParameterError("mask", f"fewer experts for token {token}", wanted)
    return assignment


def _within(reach: NDArray[np.bool_], assignment: Assignment) -> Assignment:
    expert, weight = assignment.expert, assignment.weight
    chosen = (expert >= 0) & np.take_along_axis(reach, np.maximum(expert, 0), axis=1)
    return Assignment.of(np.where(chosen, expert, np.int32(-1)), np.where(chosen, weight, np.float32(0)))


def _matrix(logits: ArrayLike) -> NDArray[np.float32]:
    """Logits as the kernels want them: float32 [T, E], C-contiguous, comparable."""
    try:
        given = np.asarray(logits)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused as such
            matrix = np.ascontiguousarray(given.real, dtype=np.float32)
    except (TypeError, ValueError):
        raise ParameterError("logits", "no numbers in rows of one length", "shape (tokens, experts)") from None
    if np.iscomplexobj(given):
        raise ParameterError("logits", given.dtype, "real numbers")
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ParameterError("logits", f"shape {matrix.shape}", "shape (tokens, experts), one expert or more")
    if not all_finite(matrix):
        token, expert = np.argwhere(~np.isfinite(matrix))[0]
        found = f"{matrix[token, expert]} of token {token}, expert {expert}"
        raise ParameterError("logits", found, "finite numbers; `mask` says which experts are out of reach")
    return matrix


def _seed(seed: int) -> int:
    if not _is_whole(seed) or not 0 <= seed < 2**63:
        raise ParameterError("seed", seed, "a whole number from 0, below 2**63")
    return int(seed)


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _mask(mask: ArrayLike, shape: tuple[int, ...], top_k: int) -> NDArray[np.bool_]:
    array = np.asarray(mask)
    if array.shape != shape or array.dtype != np.bool_:
        raise ParameterError("mask", f"{array.dtype} of shape {array.shape}", f"bool of shape {shape}")
    within = array.sum(axis=1)
    if len(within) and within.min() < top_k:
        token = int(within.argmin())
        raise ParameterError("mask", f"{within[token]} experts for token {token}", f"top_k ({top_k}) or more")
    return array


def _ids(token_ids: ArrayLike | None, n_tokens: int) -> NDArray[np.int64] | None:
    if token_ids is None:
        return None
    ids = np.asarray(token_ids)
    if ids.shape != (n_tokens,) or not np.issubdtype(ids.dtype, np.integer):
        raise ParameterError("token_ids", f"{ids.dtype} of shape {ids.shape}", f"{n_tokens} whole numbers")
    return ids.astype(np.int64)


def _bias(bias: ArrayLike, n_experts: int, found: Strategy[Any]) -> NDArray[np.float32]:
    if not found.takes_bias:
        raise ParameterError("bias", f"one for {found.name}", "none, as this strategy has no selection bias")
    array = np.ascontiguousarray(bias, dtype=np.float32)
    if array.shape != (n_experts,):
        raise ParameterError("bias", f"shape {array.shape}", f"shape ({n_experts},), a number for each expert")
    if not np.isfinite(array).all():
        raise ParameterError("bias", array[~np.isfinite(array)][0].item(), "finite numbers")
    return array
