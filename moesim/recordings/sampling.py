"""Sampling error of statistics of a recording, and what an even router would show with as many tokens.

The standard error of a statistic is that of a bootstrap over groups of tokens
(Efron and Tibshirani 1993, chapter 6): over sequences where at least
`MIN_SEQUENCES` were recorded, else over runs of consecutive tokens, so that what neighbours
have in common is not taken for evidence. A bootstrap over few groups is
itself uncertain by about 1 / sqrt(2 groups).

A statistic such as MaxVio is above 0 by chance alone. `even_router` says how
far: its mean where every token chooses K distinct experts with equal chances.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MIN_SEQUENCES = 8
MAX_GROUPS = 128
RUN_TOKENS, MAX_RUNS = 16, 32
"""Tokens of a run at least, and how many there are at most, where runs are the groups: a run may span sequences."""
RESAMPLES = 200
_EVEN_DRAWS = 512
_SEED = 0

Statistic = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Loads [..., E] -> [...]."""


def groups_of(sequence: NDArray[np.int32]) -> tuple[NDArray[np.int64], str]:
    """The group of each token [T], from 0 without gaps, and in words what the groups are.

    At most MAX_GROUPS groups; sequences share one in the order of their first token.
    """
    n_tokens = len(sequence)
    _, first, inverse = np.unique(sequence, return_index=True, return_inverse=True)
    n_sequences = len(first)
    if n_sequences >= MIN_SEQUENCES:
        order = np.empty(n_sequences, dtype=np.int64)
        order[np.argsort(first, kind="stable")] = np.arange(n_sequences)
        n_groups = min(MAX_GROUPS, n_sequences)
        return order[inverse] * n_groups // n_sequences, f"{n_groups} groups of whole sequences"
    n_groups = max(1, min(MAX_RUNS, n_tokens // RUN_TOKENS))
    return np.arange(n_tokens) * n_groups // max(1, n_tokens), f"{n_groups} runs of consecutive tokens"


def weights_of_groups(n_groups: int) -> NDArray[np.float64]:
    """How often each group is in each resample [RESAMPLES, U]; the same for the same number of groups."""
    draws = np.random.default_rng(_SEED).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=RESAMPLES)
    return draws.astype(np.float64)


def standard_error(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation over the resamples, the first axis, without NaN, which a resample without data gives."""
    known = np.isfinite(values)
    n = known.sum(axis=0)
    mean = np.divide(np.where(known, values, 0.0).sum(axis=0), n, out=np.zeros(values.shape[1:]), where=n > 0)
    square = np.where(known, (np.nan_to_num(values) - mean) ** 2, 0.0).sum(axis=0)
    variance = np.divide(square, n - 1, out=np.full(values.shape[1:], np.nan), where=n > 1)
    return np.asarray(np.sqrt(variance))


def even_router(statistic: Statistic, n_tokens: int, top_k: int, n_experts: int) -> tuple[float, float]:
    """Mean and standard deviation of a statistic of a layer where K distinct experts are chosen with equal chances."""
    if n_tokens == 0 or not 0 < top_k <= n_experts:
        return float("nan"), float("nan")
    found = statistic(_even_loads(n_tokens, top_k, n_experts))
    return float(found.mean()), float(found.std(ddof=1))


@lru_cache(maxsize=64)
def _even_loads(n_tokens: int, top_k: int, n_experts: int) -> NDArray[np.int64]:
    """Loads [draws, E] of n tokens.

    Of each expert binomial, its deviations from the mean of the layer stretched by sqrt(E / (E - 1)), which gives the
    variances and covariances of choices without replacement.
    """
    draws = np.random.default_rng(_SEED).binomial(n_tokens, top_k / n_experts, size=(_EVEN_DRAWS, n_experts))
    mean = n_tokens * top_k / n_experts
    apart = (draws - draws.mean(axis=1, keepdims=True)) * np.sqrt(n_experts / max(1, n_experts - 1))
    return np.asarray(np.maximum(0, np.rint(mean + apart)), dtype=np.int64)
