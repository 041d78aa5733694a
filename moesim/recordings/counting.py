"""Counts of recorded choices, compiled: by group of tokens, by pair of experts, by destination."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit


@njit
def count_groups(expert: NDArray[np.int32], group: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    """Add the choices of a layer [T, K] to out [U, E] in the row of each token's group [T]; -1 counts nowhere."""
    for t in range(expert.shape[0]):
        row = out[group[t]]
        for k in range(expert.shape[1]):
            if expert[t, k] >= 0:
                row[expert[t, k]] += 1


@njit
def repeated_choices(
    expert: NDArray[np.int32],
    previous: NDArray[np.int64],
    group: NDArray[np.int64],
    repeated: NDArray[np.int64],
    made: NDArray[np.int64],
) -> None:
    """Add to repeated [U] the choices of a layer [T, K] that the previous token made too, to made [U] all of them.

    `previous` [T] is the row of the token before in the same sequence, -1 where
    there is none; those tokens and those without a recorded choice count nowhere.
    """
    n_choices = expert.shape[1]
    for t in range(expert.shape[0]):
        before = previous[t]
        if before < 0 or expert[before, 0] < 0:
            continue
        for k in range(n_choices):
            if expert[t, k] < 0:
                continue
            made[group[t]] += 1
            for j in range(n_choices):
                if expert[before, j] == expert[t, k]:
                    repeated[group[t]] += 1


@njit
def count_pairs(expert: NDArray[np.int32], out: NDArray[np.int64]) -> None:
    """Add to out [E, E] the tokens of a layer [T, K] that chose both experts of a pair, above the diagonal."""
    for t in range(expert.shape[0]):
        for k in range(expert.shape[1]):
            for j in range(k):
                a, b = expert[t, k], expert[t, j]
                if a >= 0 and b >= 0:
                    out[min(a, b), max(a, b)] += 1


@njit
def destination_ranks(
    expert: NDArray[np.int32],
    rank: NDArray[np.int64],
    n_ranks: int,
    group: NDArray[np.int64],
    distinct: NDArray[np.int64],
    tokens: NDArray[np.int64],
) -> None:
    """Add to distinct [U] the ranks that hold the experts of each token of a layer [T, K], to tokens [U] the tokens.

    `rank` [E] is the rank of each expert; tokens without a recorded choice count nowhere.
    """
    seen = np.full(n_ranks, -1, dtype=np.int64)
    for t in range(expert.shape[0]):
        any_choice = False
        for k in range(expert.shape[1]):
            if expert[t, k] < 0:
                continue
            any_choice = True
            to = rank[expert[t, k]]
            if seen[to] != t:
                seen[to] = t
                distinct[group[t]] += 1
        if any_choice:
            tokens[group[t]] += 1
