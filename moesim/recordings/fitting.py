"""The parameters of the generator that gives tokens with the statistics of a recording.

- shares: the load of each expert of each layer without sampling noise (`shrinkage`);
- topics: how far sequences differ beyond that noise (`between_sequences`), as the
  strength of topics with which generated sequences differ as far;
- locality, by layer: that with which generated tokens repeat the choices of the
  previous token of their sequence as often as the recorded ones do.

Strength and locality are found by generating (simulated moments: McFadden 1989,
Econometrica 57): the statistics of the recording are put between those of
generated tokens, by the same code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.counting import count_groups, repeated_choices
from moesim.recordings.sampling import groups_of
from moesim.recordings.shrinkage import shrunk_shares
from moesim.recordings.statistics import previous_tokens
from moesim.recordings.synthetic_twin import draw_choices
from moesim.types import CountsTrace, Recording, Trace
from moesim.types.popularity import FittedPopularity

MAX_TOPICS = 64
MIN_TOKENS = 16
"""Of a sequence, for the differences between sequences."""
_SEED = 0
_TOKENS, _SEQUENCE_TOKENS = 4096, 128
"""Generated tokens in all, and of a sequence, that a try takes."""
_GRID = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0)
"""Localities that are tried; between them the overlap is linear enough."""
_ROUNDS = 3
"""Tries for the topic strength."""
_MAX_STRENGTH = 5.0


def fit_popularity(recording: Recording, *, topics: int | None = None) -> FittedPopularity:
    """The parameters of the generator for a recording.

    Args:
        recording: choices, or counts, which say nothing of topics and locality.
        topics: number of topics; default: those that were recorded, else one for each sequence, at most MAX_TOPICS.

    Raises:
        TraceError: there is nothing to fit, or logits, whose router is not known.
    """
    if isinstance(recording, CountsTrace):
        return _fit_counts(recording)
    if not isinstance(recording, Trace):
        raise TraceError(
            f"{recording.path}: found logits, wanted choices or counts, as the router of logits is unknown"
        )
    return _fit_choices(recording, topics)


def _fit_counts(recording: CountsTrace) -> FittedPopularity:
    used = np.asarray(recording.count.any(axis=(0, 2)))
    if not used.any():
        raise TraceError(f"{recording.path}: found counts that are all zero, wanted some assignments")
    counts = recording.count[:, used]
    notes = ["fitted to counts, which say nothing of topics and locality"]
    return FittedPopularity(
        source=recording.path,
        model=recording.model,
        n_experts=recording.n_experts,
        top_k=1,
        layers=_used_layers(recording.layer_ids, used),
        shares=shrunk_shares(counts),
        notes=tuple(notes),
    )


def _used_layers(layer_ids: tuple[int, ...], used: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(layer for layer, kept in zip(layer_ids, used, strict=True) if kept)


def _fit_choices(trace: Trace, topics: int | None) -> FittedPopularity:
    used = np.asarray((trace.expert >= 0).any(axis=(1, 2)))
    if not used.any():
        raise TraceError(f"{trace.path}: found no choices, wanted those of some tokens")
    expert, layers = trace.expert[used], _used_layers(trace.layer_ids, used)
    group, groups = groups_of(trace.sequence)
    shares = shrunk_shares(grouped_counts(expert, group, trace.n_experts))
    notes = [f"sampling noise estimated from {groups}"]
    count, strength, said = _topics(trace, expert, shares, topics)
    locality = _locality(trace, expert, shares, count, strength)
    return FittedPopularity(
        source=trace.path,
        model=trace.model,
        n_experts=trace.n_experts,
        top_k=trace.top_k,
        layers=layers,
        shares=shares,
        locality=locality,
        topic_count=count,
        topic_strength=strength,
        notes=(*notes, *said),
    )


def grouped_counts(expert: NDArray[np.int32], group: NDArray[np.int64], n_experts: int) -> NDArray[np.int64]:
    """Choices [L, T, K] counted by group of tokens [T], layer and expert, [U, L, E]."""
    n_groups = int(group.max(initial=0)) + 1
    found = np.zeros((len(expert), n_groups, n_experts), dtype=np.int64)
    for layer, out in zip(expert, found, strict=True):
        count_groups(layer, group, out)
    return np.ascontiguousarray(found.transpose(1, 0, 2))


def between_sequences(
    expert: NDArray[np.int32], sequence: NDArray[np.int32], n_experts: int
) -> tuple[NDArray[np.float64], int]:
    """How far the loads of sequences differ by more than sampling, [L], and the number S of sequences.

    The variance over sequences of the share of an expert over its mean, mean
    over experts. Each sequence is cut into halves, whose noise is independent;
    the covariance of their deviations from the mean over sequences is the
    variance without the noise. Sequences of fewer than MIN_TOKENS tokens are
    left out; below two of them S is 0.
    """
    _, number, size = np.unique(sequence, return_inverse=True, return_counts=True)
    long = np.flatnonzero(size >= MIN_TOKENS)[:1024]
    if len(long) < 2:
        return np.zeros(len(expert)), 0
    row = np.full(len(size), -1)
    row[long] = np.arange(len(long))
    place = np.empty(len(sequence), dtype=np.int64)
    order = np.argsort(number, kind="stable")
    place[order] = np.arange(len(sequence)) - np.repeat(np.cumsum(size) - size, size)
    kept = np.flatnonzero(row[number] >= 0)
    half = (place[kept] * 2 >= size[number[kept]]).astype(np.int64)
    group = row[number[kept]] * 2 + half
    counts = grouped_counts(np.ascontiguousarray(expert[:, kept]), group, n_experts).astype(np.float64)
    share = counts / np.maximum(counts.sum(axis=2, keepdims=True), 1) * n_experts
    first, second = share[0::2], share[1::2]
    apart = (first - first.mean(axis=0)) * (second - second.mean(axis=0))
    return np.asarray(apart.mean(axis=(0, 2))), len(long)


def _topics(
    trace: Trace, expert: NDArray[np.int32], shares: NDArray[np.float64], wanted: int | None
) -> tuple[int, float, list[str]]:
    """Count and strength of topics, and what must be said of them."""
    variances, n_sequences = between_sequences(expert, trace.sequence, trace.n_experts)
    if n_sequences < 2:
        return 0, 0.0, ["topics not fitted: fewer than two sequences of 16 tokens or more"]
    recorded = np.unique(trace.topic[trace.topic >= 0])
    count = wanted or (len(recorded) if len(recorded) > 1 else min(n_sequences, MAX_TOPICS))
    target = float(variances.mean())
    error = float(variances.std(ddof=1) / np.sqrt(len(variances))) if len(variances) > 1 else abs(target) / 2
    if target <= 2 * error or count < 2:
        return 0, 0.0, [f"no topics: {n_sequences} sequences differ by no more than sampling explains"]
    strength = float(np.sqrt(target))
    for _ in range(_ROUNDS):
        drawn, sequence, _ = _draw(shares, trace.top_k, count, strength, None, 64)
        found = float(between_sequences(drawn, sequence, trace.n_experts)[0].mean())
        strength = min(_MAX_STRENGTH, strength * float(np.sqrt(np.clip(target / max(found, 1e-6), 0.25, 4))))
    return count, round(strength, 4), []


def _locality(
    trace: Trace, expert: NDArray[np.int32], shares: NDArray[np.float64], count: int, strength: float
) -> tuple[float, ...]:
    """For each layer the locality whose overlap is the recorded one; at least 0, at most 1."""
    wanted = overlap_of(expert, previous_tokens(trace.sequence, trace.position))
    if not np.isfinite(wanted).all():
        return ()
    tried: list[NDArray[np.float64]] = []
    solved: dict[float, NDArray[np.float32]] = {}
    for locality in _GRID:
        drawn, sequence, _ = _draw(shares, trace.top_k, count, strength, locality, 32, solved)
        tried.append(overlap_of(drawn, previous_tokens(sequence, np.full(len(sequence), -1, dtype=np.int32))))
    curves = np.maximum.accumulate(np.array(tried), axis=0)
    found = [np.interp(target, curve, _GRID) for target, curve in zip(wanted, curves.T, strict=True)]
    return tuple(round(float(value), 4) for value in found)


def _draw(
    shares: NDArray[np.float64],
    top_k: int,
    count: int,
    strength: float,
    locality: float | None,
    n_sequences: int,
    solved: dict[float, NDArray[np.float32]] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    return draw_choices(
        shares,
        top_k,
        seed=_SEED,
        n_sequences=n_sequences,
        sequence_tokens=_SEQUENCE_TOKENS,
        topic_count=count,
        topic_strength=strength,
        locality=None if locality is None else [locality] * len(shares),
        popularity=solved,
    )


def overlap_of(expert: NDArray[np.int32], previous: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of choices [L, T, K] that the previous token made too, [L]; NaN without a previous token."""
    found = np.full(len(expert), np.nan)
    group = np.zeros(expert.shape[1], dtype=np.int64)
    for i, layer in enumerate(expert):
        repeated, made = np.zeros((2, 1), dtype=np.int64)
        repeated_choices(layer, previous, group, repeated, made)
        if made[0]:
            found[i] = repeated[0] / made[0]
    return found
