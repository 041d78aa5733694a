"""Dummy tokens: engines run passes of them to warm up and pad batches with them, and recorders write their routes down.

They are alike, so that all of them take the same experts with the same weights,
and stand in runs of hundreds. A run of equal routes is taken for dummies where
real tokens would not give one of its length in a thousand such recordings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.types import Trace

ERROR_RATE = 1e-3
"""Probability that a recording of real tokens loses any of them, if the next token repeats a route independently."""
MIN_RUN, MIN_RUN_WITH_WEIGHTS = 16, 4
"""Shortest runs that are judged. Weights of real tokens are not equal to the last bit, so that fewer suffice."""
MOST_REPEATS_WITH_WEIGHTS = 15 / 16
"""A run of a route with equal weights is judged as if the route came again no more often than this: other runs of it,
such as the warm-up of a second recording, are no evidence that real tokens do, whose weights would differ."""
_PRIOR = 0.01
"""Repetitions that are assumed in one trial beyond those that were seen, so that none seen does not mean none."""


@dataclass(frozen=True)
class _Runs:
    """Runs of consecutive tokens with equal routes: `start`, `length` and the number of the `route`, [R]."""

    start: NDArray[np.int64]
    length: NDArray[np.int64]
    route: NDArray[np.int64]


def dummy_tokens(trace: Trace) -> NDArray[np.bool_]:
    """Which tokens of a trace are dummies, [T]; none where that would be all of them.

    A run of n tokens of T is found where T p^(n - 1) is below `ERROR_RATE`; p is
    the share of tokens that repeat the route before them, among those outside
    the run, or among the other runs of the same route where that is higher (at
    most `MOST_REPEATS_WITH_WEIGHTS` where routes have weights).
    Runs of a route that was found once need only be improbable as repetitions
    of that route: T q^n, where q is the square root of p.
    """
    none = np.zeros(trace.n_tokens, dtype=np.bool_)
    with_weights = trace.weight is not None and _vary(trace.weight)
    runs = _runs_of(trace, with_weights=with_weights)
    least = MIN_RUN_WITH_WEIGHTS if with_weights else MIN_RUN
    most = MOST_REPEATS_WITH_WEIGHTS if with_weights else 1.0
    is_dummy = np.zeros(len(runs.length), dtype=np.bool_)
    length, number = (
        float(runs.length.sum()),
        float(len(runs.length)),
    )  # of the runs that are not found, all and by route
    own_length, own_number = np.bincount(runs.route, runs.length), np.bincount(runs.route).astype(np.float64)
    for run in np.argsort(-runs.length, kind="stable"):
        n, route = int(runs.length[run]), runs.route[run]
        if n < least:
            break
        of_others = _repeats(length - own_length[route], number - own_number[route])
        own = min(most, _repeats(own_length[route] - n, own_number[route] - 1))
        p = max(of_others, own) if own_number[route] > 1 else of_others
        if trace.n_tokens * p ** (n - 1) < ERROR_RATE:
            is_dummy[run] = True
            length, number = length - n, number - 1
            own_length[route] -= n
            own_number[route] -= 1
    if not is_dummy.any():
        return none
    q = math.sqrt(_repeats(length, number))
    shorter = math.ceil(1 + math.log(ERROR_RATE / trace.n_tokens) / math.log(q)) if q < 1 else trace.n_tokens
    again = np.isin(runs.route, runs.route[is_dummy]) & (runs.length >= max(2, shorter))
    found = np.repeat(is_dummy | again, runs.length)
    return none if found.all() else found


def without_tokens(trace: Trace, left_out: NDArray[np.bool_]) -> Trace:
    """The trace without some tokens [T]; its arrays are used for the result."""
    import dataclasses

    kept = np.flatnonzero(~left_out)
    for layer in range(trace.n_layers):  # one at a time: a copy of all would need twice the memory
        trace.expert[layer, : len(kept)] = trace.expert[layer, kept]
        if trace.weight is not None:
            trace.weight[layer, : len(kept)] = trace.weight[layer, kept]
    columns = {name: getattr(trace, name)[kept] for name in ("sequence", "step", "position", "phase", "topic")}
    weight = None if trace.weight is None else trace.weight[:, : len(kept)]
    return dataclasses.replace(trace, expert=trace.expert[:, : len(kept)], weight=weight, **columns)


def _repeats(n_tokens: float, n_runs: float) -> float:
    """The share of the tokens of some runs that repeat the route before them."""
    return (n_tokens - n_runs + _PRIOR) / (n_tokens + 1)


def _vary(weight: NDArray[np.float32]) -> bool:
    """Whether the weights of a token differ from one another, so that they carry more than the experts do."""
    return bool(weight.shape[2] > 1 and (weight[..., 0] != weight[..., 1]).mean() > 0.5)


def _runs_of(trace: Trace, *, with_weights: bool) -> _Runs:
    """The runs of a trace, by experts in their order, and by weights too."""
    equal = np.ones(max(0, trace.n_tokens - 1), dtype=np.bool_)
    route = np.zeros(trace.n_tokens, dtype=np.uint64)
    for layer in range(trace.n_layers):
        columns = [*trace.expert[layer].T]
        if with_weights:
            assert trace.weight is not None
            columns += [column.view(np.int32) for column in np.ascontiguousarray(trace.weight[layer].T)]
        for column in columns:
            equal &= column[1:] == column[:-1]
            route = (route ^ column.astype(np.uint32)) * np.uint64(0x9E3779B97F4A7C15)
            route ^= route >> np.uint64(29)
    start = np.flatnonzero(np.r_[True, ~equal])
    length = np.diff(np.r_[start, trace.n_tokens])
    _, numbers = np.unique(route[start], return_inverse=True)
    return _Runs(start, length, numbers)
