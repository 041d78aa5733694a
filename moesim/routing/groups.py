"""Groups of consecutive experts: which of them a token may use.

A group's score is the sum of its best experts' scores: of one (DeepSeek-V2),
of two (DeepSeek-V3) or of any number (Megatron). The first group wins among
equals, as the first expert does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit


@njit
def choose_groups(score: NDArray[np.float32], summed: int, topk_group: int, kept: NDArray[np.bool_]) -> None:
    """Mark in kept [T, groups] the `topk_group` groups with the largest sum of their `summed` best of score [T, E]."""
    group_score, own = np.empty(kept.shape[1], dtype=np.float32), np.empty(kept.shape[1], dtype=np.bool_)
    for t in range(score.shape[0]):
        rank_groups(score, t, summed, group_score, topk_group, own)
        kept[t] = own


@njit
def rank_groups(
    score: NDArray[np.float32],
    t: int,
    summed: int,
    group_score: NDArray[np.float32],
    topk_group: int,
    kept: NDArray[np.bool_],
) -> None:
    """Fill group_score and kept [groups] for row t of score [T, E]; the first wins among equals."""
    if summed == 1:
        _sum_of_1(score, t, group_score)
    elif summed == 2 and score.shape[1] % (4 * kept.shape[0]) == 0:
        _sum_of_2(score, t, group_score)
    else:
        _sum_of_best(score, t, summed, group_score)
    for g in range(kept.shape[0]):
        better = 0
        for other in range(kept.shape[0]):
            equal = (group_score[other] == group_score[g]) & (
                other < g
            )  # without branches, which no processor could predict
            better += (group_score[other] > group_score[g]) | equal
        kept[g] = better < topk_group


@njit
def list_groups(kept: NDArray[np.bool_], groups: NDArray[np.int32]) -> None:
    """Fill the first of groups [groups + 1] with the numbers of those kept, ascending, again without branches."""
    n = 0
    for g in range(kept.shape[0]):
        groups[n] = g
        n += kept[g]


@njit
def _sum_of_1(score: NDArray[np.float32], t: int, out: NDArray[np.float32]) -> None:
    size = score.shape[1] // out.shape[0]
    for g in range(out.shape[0]):
        first = score[t, g * size]
        for e in range(g * size, (g + 1) * size):
            first = max(first, score[t, e])
        out[g] = first


@njit
def _sum_of_2(score: NDArray[np.float32], t: int, out: NDArray[np.float32]) -> None:
    """Of groups whose size four divides: in four quarters side by side, as a comparison waits for the one before it."""
    q = np.uint64(score.shape[1] // out.shape[0] // 4)
    low = np.float32(-np.inf)
    for g in range(out.shape[0]):
        a1, b1, c1, d1 = low, low, low, low  # the best of each quarter
        a2, b2, c2, d2 = low, low, low, low  # its second
        first = np.uint64(4 * g) * q  # sums of indices without a sign, as signed ones are checked for wrapping around
        for i in range(q):
            e = first + i
            a, b, c, d = score[t, e], score[t, e + q], score[t, e + q + q], score[t, e + q + q + q]
            a2, b2, c2, d2 = max(a2, min(a1, a)), max(b2, min(b1, b)), max(c2, min(c1, c)), max(d2, min(d1, d))
            a1, b1, c1, d1 = max(a1, a), max(b1, b), max(c1, c), max(d1, d)
        left, right = max(a1, b1), max(c1, d1)
        left_2, right_2 = max(min(a1, b1), a2, b2), max(min(c1, d1), c2, d2)
        out[g] = max(left, right) + max(min(left, right), left_2, right_2)


@njit
def _sum_of_best(score: NDArray[np.float32], t: int, summed: int, out: NDArray[np.float32]) -> None:
    """The sum of the `summed` largest of each group, the largest first."""
    size = score.shape[1] // out.shape[0]
    best = np.empty(min(summed, size), dtype=np.float32)
    for g in range(out.shape[0]):
        best[:] = -np.inf
        for e in range(g * size, (g + 1) * size):
            value = score[t, e]
            for j in range(best.shape[0]):
                larger = max(best[j], value)
                value = min(best[j], value)  # what falls out of this place asks for the next
                best[j] = larger
        out[g] = np.float32(0.0)
        for held in best:
            out[g] += held
