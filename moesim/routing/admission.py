"""Which assignments get the places of an expert: the compiled part of the capacity policies.

A place belongs to a bin: an expert, or all experts of a device together, in
one scope. `room` [n_bins] is what is left of each and is used up in place;
`bins` [T, K] is the bin that each assignment asks, -1 = none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import CAPACITY, key, uniform
from moesim.compiled.topk import sortable


@njit
def fill_bins(
    expert: NDArray[np.int32],
    group: NDArray[np.int64],
    bin_of: NDArray[np.int64],
    n_bins: int,
    bins: NDArray[np.int32],
) -> None:
    """Fill bins [T, K] from experts [T, K], the scope of each token [T] and the bin of each expert in a scope [E]."""
    for t in range(expert.shape[0]):
        for j in range(expert.shape[1]):
            e = expert[t, j]
            bins[t, j] = group[t] * n_bins + bin_of[e] if e >= 0 else -1


@njit
def admit_by_position(bins: NDArray[np.int32], room: NDArray[np.int64], admitted: NDArray[np.bool_]) -> None:
    """Token by token, all choices of one before those of the next."""
    for t in range(bins.shape[0]):
        for j in range(bins.shape[1]):
            b = bins[t, j]
            if b >= 0 and room[b] > 0:
                room[b] -= 1
                admitted[t, j] = True


@njit
def admit_by_choice(
    bins: NDArray[np.int32], order: NDArray[np.int64], room: NDArray[np.int64], admitted: NDArray[np.bool_]
) -> None:
    """All first choices before any second one, tokens in `order` [T] within a choice."""
    for j in range(bins.shape[1]):
        for t in order:
            b = bins[t, j]
            if b >= 0 and room[b] > 0:
                room[b] -= 1
                admitted[t, j] = True


@njit
def admit_by_score(
    bins: NDArray[np.int32], score: NDArray[np.float32], room: NDArray[np.int64], admitted: NDArray[np.bool_]
) -> None:
    """The largest scores [T, K] of each bin, the earliest position among equals.

    Bins that are not full keep all; in the others the last score that still
    has a place is found by selection, without sorting.
    """
    flat, flat_admitted = bins.reshape(bins.size), admitted.reshape(admitted.size)
    keys = np.empty(score.size, dtype=np.int32)
    sortable(score.reshape(score.size), keys)
    start, by_bin = _sorted_by_bin(flat, keys, room.shape[0])
    least = np.empty(room.shape[0], dtype=np.int32)  # the last key that has a place
    equal = np.empty(room.shape[0], dtype=np.int64)  # places for those of exactly that key
    for b in range(room.shape[0]):
        own = by_bin[start[b] : start[b + 1]]
        least[b], equal[b] = _last_with_a_place(own, room[b])
        room[b] = max(0, room[b] - own.shape[0])
    for i in range(flat.shape[0]):
        b = flat[i]
        if b >= 0 and keys[i] >= least[b]:
            if keys[i] > least[b]:
                flat_admitted[i] = True
            elif equal[b] > 0:
                equal[b] -= 1
                flat_admitted[i] = True


@njit
def _sorted_by_bin(
    bins: NDArray[np.int32], keys: NDArray[np.int32], n_bins: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Where each bin starts [n_bins + 1], and the keys of all assignments with a bin, bin after bin."""
    start = np.zeros(n_bins + 1, dtype=np.int64)
    for b in bins:
        if b >= 0:
            start[b + 1] += 1
    for b in range(n_bins):
        start[b + 1] += start[b]
    by_bin, filled = np.empty(start[n_bins], dtype=np.int32), start.copy()
    for i in range(bins.shape[0]):
        b = bins[i]
        if b >= 0:
            by_bin[filled[b]] = keys[i]
            filled[b] += 1
    return start, by_bin


@njit
def _last_with_a_place(keys: NDArray[np.int32], room: int) -> tuple[np.int32, int]:
    """The smallest key that is served, and how many of exactly this key are; reorders keys."""
    if keys.shape[0] <= room:
        return np.int32(-(2**31)), keys.shape[0]
    if room == 0:
        return np.int32(2**31 - 1), 0
    least, above = _nth_largest(keys, room - 1)
    return least, room - above


@njit
def _nth_largest(keys: NDArray[np.int32], n: int) -> tuple[np.int32, int]:
    """The key of place n (from 0) in descending order and how many are larger; reorders keys (Hoare's selection)."""
    low, high = 0, keys.shape[0] - 1
    while low < high:
        a, b, c = keys[low], keys[(low + high) // 2], keys[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if n <= j:
            high = j
        elif n >= i:
            low = i
        else:
            break
    found, larger = keys[n], 0
    for k in keys:
        larger += 1 if k > found else 0
    return found, larger


@njit
def draw_scores(seed: int, out: NDArray[np.float32]) -> None:
    """Fill out [T, K] with a uniform number for each assignment."""
    top_k = out.shape[1]
    for t in range(out.shape[0]):
        for j in range(top_k):
            out[t, j] = uniform(key(seed, CAPACITY, 0, 0, t * top_k + j), 0)


class Bins(NamedTuple):
    """What shares a capacity, and how many places are left.

    Attributes:
        group: scope of each token, [T].
        of_expert: bin of each expert in a scope, [E].
        per_scope: bins of a scope.
        room: places that are left of each bin, [scopes * per_scope]; used up in place.
    """

    group: NDArray[np.int64]
    of_expert: NDArray[np.int64]
    per_scope: int
    room: NDArray[np.int64]


class Candidates(NamedTuple):
    """To which experts refused assignments are offered, and in which order.

    Attributes:
        scores: [T, E]; -inf = never.
        allowed: [n, E], the experts that may be offered to a token with row own[t].
        own: row of `allowed` for each token, [T].
        order: flat positions in the order in which the refused ask.
        tries: experts that are offered to each.
        one_by_one: all offers of one assignment before the next (else a round of first offers, then one of second).
    """

    scores: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    own: NDArray[np.int64]
    order: NDArray[np.int64]
    tries: int
    one_by_one: bool


@njit
def reroute(
    expert: NDArray[np.int32],
    bins: Bins,
    candidates: Candidates,
    served: NDArray[np.int32],
    weight: NDArray[np.float32],
) -> None:
    """Offer refused assignments to the other experts of their token, best score first.

    Args:
        expert: requests [T, K]; an expert that a token asked for is not offered to it again.
        bins: of the experts, with the places that are left.
        candidates: the experts that are offered.
        served: [T, K], filled where a place was found.
        weight: [T, K], becomes the score of the new expert there.
    """
    group, bin_of, n_bins, room = bins
    scores, allowed, own, order, tries, one_by_one = candidates
    top_k = expert.shape[1]
    last_score = np.full(expert.size, np.inf, dtype=np.float32)
    last_expert = np.full(expert.size, -1, dtype=np.int64)
    rounds, offers = (1, tries) if one_by_one else (tries, 1)
    for _ in range(rounds):
        for position in order:
            t, j = position // top_k, position % top_k
            if expert[t, j] < 0 or served[t, j] >= 0:
                continue
            offered = 0
            while offered < offers and served[t, j] < 0:
                e = _next_best(scores[t], allowed[own[t]], last_score[position], last_expert[position])
                if e < 0:
                    break
                last_score[position], last_expert[position] = scores[t, e], e
                if _has(expert[t], e) or _has(served[t], e):
                    continue
                offered += 1
                b = group[t] * n_bins + bin_of[e]
                if room[b] > 0:
                    room[b] -= 1
                    served[t, j] = e
                    weight[t, j] = scores[t, e]


@njit
def _has(row: NDArray[np.int32], e: int) -> bool:
    found = False
    for value in row:
        found |= value == e
    return found


@njit
def _next_best(scores: NDArray[np.float32], allowed: NDArray[np.bool_], score: float, after: int) -> int:
    """The expert that follows (score, index) in descending order of score, the lowest index among equals; -1 = none."""
    found = -1
    for e in range(scores.shape[0]):
        if not allowed[e] or scores[e] == -np.inf:
            continue
        later = scores[e] < score or (scores[e] == score and e > after)
        if later and (found < 0 or scores[e] > scores[found]):
            found = e
    return found
