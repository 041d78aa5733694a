"""Statistics of recorded routing by layer: how uneven the load is, how alike neighbours are, how far tokens go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import comb

import numpy as np
from numpy.typing import NDArray

from moesim.metrics.balance import balancedness, cv, dead_experts, max_violation, normalised_entropy
from moesim.recordings.counting import count_groups, count_pairs, destination_ranks, repeated_choices
from moesim.recordings.sampling import (
    MAX_GROUPS,
    Statistic,
    even_router,
    groups_of,
    standard_error,
    weights_of_groups,
)

NAN = float("nan")
MAX_STEPS = 1000
"""Steps whose own statistics are averaged; of more, evenly picked ones."""
_BATCHES = 32
"""Runs of steps whose means give the standard error of a mean over steps."""


@dataclass(frozen=True)
class Estimate:
    """A statistic, its standard error, and its mean under an even router with as many tokens; NaN = unknown."""

    value: float
    error: float = NAN
    even: float = NAN


@dataclass(frozen=True, kw_only=True)
class LayerStatistics:
    """Statistics of one layer in one phase.

    `values` by name: those of LOAD, of the load of all tokens together;
    "step_" + those of PER_STEP, the mean over steps; `overlap`, the share of a
    token's choices that the previous token of its sequence made too;
    `destination_ranks`, distinct ranks of a token's experts, and
    `rank_balancedness`, mean / max over the ranks, where an EP size was asked
    for. `pair` are the two experts chosen together most often beside what their
    loads say, `pair_lift` how many times as often; None without pairs.
    """

    layer: int
    phase: str
    n_tokens: int
    n_steps: int
    load: NDArray[np.int64]
    values: Mapping[str, Estimate]
    pair: tuple[int, int] | None = None
    pair_lift: Estimate = field(default_factory=lambda: Estimate(NAN))


def top_share_of(n_hot: int) -> Statistic:
    """The share of the load that the n hottest experts have."""

    def share(load: NDArray[np.int64]) -> NDArray[np.float64]:
        hottest = np.partition(load, load.shape[-1] - n_hot, axis=-1)[..., -n_hot:].sum(axis=-1)
        total = load.sum(axis=-1)
        return np.asarray(np.divide(hottest, total, out=np.zeros(total.shape), where=total > 0))

    return share


def hot_experts(n_experts: int) -> int:
    """How many experts the top share counts: an eighth of them, at least one."""
    return max(1, n_experts // 8)


def load_statistics(n_experts: int) -> Mapping[str, Statistic]:
    """The statistics of a load [..., E] by name."""
    return {
        "max_violation": max_violation,
        "cv": cv,
        "entropy": normalised_entropy,
        "top_share": top_share_of(hot_experts(n_experts)),
        "dead_experts": lambda load: dead_experts(load).astype(np.float64),
    }


PER_STEP = ("max_violation", "cv", "entropy")
"""Statistics that are also taken of every step alone."""


def expert_ranks(n_experts: int, n_ranks: int) -> NDArray[np.int64]:
    """The rank of each expert [E] where ranks hold runs of consecutive experts."""
    return np.arange(n_experts) * n_ranks // n_experts


def even_destinations(n_experts: int, n_ranks: int, top_k: int) -> float:
    """Distinct ranks of K distinct experts drawn with equal chances."""
    sizes = np.bincount(expert_ranks(n_experts, n_ranks), minlength=n_ranks)
    return sum(1 - comb(n_experts - int(size), top_k) / comb(n_experts, top_k) for size in sizes)


def previous_tokens(sequence: NDArray[np.int32], position: NDArray[np.int32]) -> NDArray[np.int64]:
    """The row of the token before each in its sequence [T], -1 where there is none.

    In the order of the positions where all are known, and only where no
    position between the two is missing; else in the order of the recording.
    """
    n_tokens = len(sequence)
    known = bool((position >= 0).all())
    order = np.lexsort((np.arange(n_tokens), position if known else np.zeros(n_tokens), sequence))
    follows = sequence[order][1:] == sequence[order][:-1]
    if known:
        follows &= position[order][1:] == position[order][:-1] + 1
    previous = np.full(n_tokens, -1, dtype=np.int64)
    previous[order[1:][follows]] = order[:-1][follows]
    return previous


@dataclass(frozen=True, kw_only=True)
class TokenRelations:
    """How tokens belong together, found once for all layers.

    `group` [T] is the group of each token for standard errors and `weights`
    [resamples, U] how often each group is in each resample; `previous` [T] the
    row of the token before in the same sequence (`previous_tokens`);
    `step_row` [T] the row of each token's step among the `n_rows` whose own
    statistics are taken, n_rows of a step that is not; `n_steps` all steps.
    """

    group: NDArray[np.int64]
    weights: NDArray[np.float64]
    previous: NDArray[np.int64]
    step_row: NDArray[np.int64]
    n_rows: int
    n_steps: int


def token_relations(
    sequence: NDArray[np.int32], step: NDArray[np.int32], position: NDArray[np.int32]
) -> TokenRelations:
    """How tokens belong together by their sequences, steps and positions [T]; -1 in steps or positions: unknown."""
    group, _ = groups_of(sequence)
    numbers, of_token = np.unique(step, return_inverse=True)
    n_steps = int((numbers >= 0).sum())
    picked = np.zeros(0, dtype=np.int64)
    if n_steps == len(numbers) > 0:
        picked = np.unique(np.linspace(0, n_steps - 1, MAX_STEPS).round().astype(np.int64))
    row = np.full(len(numbers), len(picked), dtype=np.int64)
    row[picked] = np.arange(len(picked))
    return TokenRelations(
        group=group,
        weights=weights_of_groups(int(group.max(initial=0)) + 1),
        previous=previous_tokens(sequence, position),
        step_row=row[of_token],
        n_rows=len(picked),
        n_steps=n_steps,
    )


def layer_statistics(
    expert: NDArray[np.int32],
    *,
    layer: int,
    phase: str,
    n_experts: int,
    tokens: TokenRelations,
    n_ranks: int | None = None,
) -> LayerStatistics:
    """The statistics of the choices [T, K] of a layer.

    Args:
        expert: -1 where nothing was recorded.
        layer: its number, as recorded.
        phase: name of the tokens' phase.
        n_experts: E.
        tokens: how they belong together.
        n_ranks: ranks of consecutive experts for the destinations of tokens.
    """
    group, weights = tokens.group, tokens.weights
    n_groups = weights.shape[1]
    counts = np.zeros((n_groups, n_experts), dtype=np.int64)
    count_groups(expert, group, counts)
    n_tokens, top_k = int((expert >= 0).any(axis=1).sum()), expert.shape[1]
    values = load_estimates(counts, weights, n_tokens, top_k)
    by_step = np.zeros((tokens.n_rows + 1, n_experts), dtype=np.int64)
    if tokens.n_rows:
        count_groups(expert, tokens.step_row, by_step)
    values |= step_estimates(by_step[:-1], top_k)

    repeated, made = np.zeros((2, n_groups), dtype=np.int64)
    repeated_choices(expert, tokens.previous, group, repeated, made)
    load = counts.sum(axis=0)
    values["overlap"] = _ratio(repeated, made, weights, even=top_k / n_experts)
    if n_ranks is not None:
        rank = expert_ranks(n_experts, n_ranks)
        distinct, sent = np.zeros((2, n_groups), dtype=np.int64)
        destination_ranks(expert, rank, n_ranks, group, distinct, sent)
        values["destination_ranks"] = _ratio(distinct, sent, weights, even_destinations(n_experts, n_ranks, top_k))
        values["rank_balancedness"] = rank_estimate(counts, weights, n_ranks, n_tokens, top_k)
    pair, lift = strongest_pair(pair_counts(expert, n_experts), load)
    return LayerStatistics(
        layer=layer,
        phase=phase,
        n_tokens=n_tokens,
        n_steps=tokens.n_steps,
        load=load,
        values=values,
        pair=pair,
        pair_lift=lift,
    )


def counted_layer_statistics(
    count: NDArray[np.int64], *, layer: int, phase: str, top_k: int | None, n_ranks: int | None = None
) -> LayerStatistics:
    """The statistics of the counts of a layer [S, E], a row a step.

    Without `top_k` the choices of an even router are taken to be independent, which is nearly the same for few of many.
    """
    n_steps = len(count)
    n_groups = min(MAX_GROUPS, n_steps)
    counts = np.add.reduceat(count, np.arange(n_groups) * n_steps // n_groups, axis=0)
    weights = weights_of_groups(n_groups) if n_groups > 1 else None
    load = count.sum(axis=0)
    n_tokens = int(load.sum()) // (top_k or 1)
    values = load_estimates(counts, weights, n_tokens, top_k or 1)
    picked = np.unique(np.linspace(0, n_steps - 1, MAX_STEPS).round().astype(np.int64))
    values |= step_estimates(count[picked] if n_steps > 1 else count[:0], top_k or 1)
    if n_ranks is not None:
        values["rank_balancedness"] = rank_estimate(counts, weights, n_ranks, n_tokens, top_k or 1)
    return LayerStatistics(
        layer=layer,
        phase=phase,
        n_tokens=n_tokens if top_k else 0,
        n_steps=int(count.any(axis=1).sum()),
        load=load,
        values=values,
    )


def load_estimates(
    counts: NDArray[np.int64], weights: NDArray[np.float64] | None, n_tokens: int, top_k: int
) -> dict[str, Estimate]:
    """The statistics of the load of groups [U, E] together, with their errors where the groups can be resampled."""
    load = counts.sum(axis=0)
    resampled = None if weights is None or len(counts) < 2 else np.rint(weights @ counts).astype(np.int64)
    found = {}
    for name, statistic in load_statistics(len(load)).items():
        error = NAN if resampled is None else float(standard_error(statistic(resampled)))
        even = even_router(statistic, n_tokens, top_k, len(load))[0]
        found[name] = Estimate(float(statistic(load)), error, even)
    return found


def rank_estimate(
    counts: NDArray[np.int64], weights: NDArray[np.float64] | None, n_ranks: int, n_tokens: int, top_k: int
) -> Estimate:
    """The balancedness of ranks of consecutive experts, of the load of groups [U, E]."""
    first = np.searchsorted(expert_ranks(counts.shape[1], n_ranks), np.arange(n_ranks))

    def of_ranks(load: NDArray[np.int64]) -> NDArray[np.float64]:
        return balancedness(np.add.reduceat(load, first, axis=-1))

    resampled = None if weights is None or len(counts) < 2 else np.rint(weights @ counts).astype(np.int64)
    error = NAN if resampled is None else float(standard_error(of_ranks(resampled)))
    even = even_router(of_ranks, n_tokens, top_k, counts.shape[1])[0]
    return Estimate(float(of_ranks(counts.sum(axis=0))), error, even)


def step_estimates(loads: NDArray[np.int64], top_k: int) -> dict[str, Estimate]:
    """Means over steps of the statistics of each step's load [S, E]; steps without load are left out."""
    loads = loads[loads.any(axis=1)]
    if not len(loads):
        return {f"step_{name}": Estimate(NAN) for name in PER_STEP}
    tokens = round(float(loads.sum()) / len(loads) / max(1, top_k))
    found = {}
    for name in PER_STEP:
        statistic = load_statistics(loads.shape[1])[name]
        by_step = statistic(loads)
        n_batches = min(_BATCHES, len(by_step))
        means = np.array([batch.mean() for batch in np.array_split(by_step, n_batches)])
        error = float(means.std(ddof=1) / np.sqrt(n_batches)) if n_batches > 1 else NAN
        even = even_router(statistic, tokens, top_k, loads.shape[1])[0]
        found[f"step_{name}"] = Estimate(float(by_step.mean()), error, even)
    return found


def _ratio(above: NDArray[np.int64], below: NDArray[np.int64], weights: NDArray[np.float64], even: float) -> Estimate:
    """A ratio of sums over groups [U]."""
    total = below.sum()
    if not total:
        return Estimate(NAN, NAN, even)
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = (weights @ above) / (weights @ below)
    error = float(standard_error(resampled)) if len(above) > 1 else NAN
    return Estimate(float(above.sum() / total), error, even)


def pair_counts(expert: NDArray[np.int32], n_experts: int) -> NDArray[np.int64]:
    """Tokens that chose both experts of a pair, int64 [E, E], symmetric, 0 on the diagonal."""
    found = np.zeros((n_experts, n_experts), dtype=np.int64)
    count_pairs(expert, found)
    return found + found.T


def pair_lifts(pairs: NDArray[np.int64], load: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many times as often each pair [E, E] was chosen as its loads [E] say; NaN where nothing was expected.

    Expected is a number of tokens in proportion to the product of the two
    loads, all pairs together as many as were chosen: independent choices that
    are distinct.
    """
    product = np.outer(load, load).astype(np.float64)
    np.fill_diagonal(product, 0.0)
    total = product.sum()
    expected = product * (pairs.sum() / total if total else 0.0)
    return np.asarray(np.divide(pairs, expected, out=np.full(pairs.shape, np.nan), where=expected > 0))


MIN_PAIRS = 10
"""Tokens that a pair must be expected to have before it can be called the strongest."""


def strongest_pair(pairs: NDArray[np.int64], load: NDArray[np.int64]) -> tuple[tuple[int, int] | None, Estimate]:
    """The pair of the highest lift among those with MIN_PAIRS expected tokens, and that lift with its Poisson error."""
    lifts = pair_lifts(pairs, load)
    with np.errstate(invalid="ignore"):
        expected = np.where(lifts > 0, pairs / lifts, 0.0)
    often = np.where((expected >= MIN_PAIRS) & np.isfinite(lifts), lifts, -np.inf)
    first, second = np.unravel_index(int(often.argmax()), often.shape)
    if not np.isfinite(often[first, second]):
        return None, Estimate(NAN)
    lift = float(lifts[first, second])
    return (int(first), int(second)), Estimate(lift, lift / float(np.sqrt(pairs[first, second])), 1.0)
