"""Replica choice: which copy of its expert serves an assignment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit
from moesim.types import Placement


def assign_slots(
    served: NDArray[np.int32],
    source: NDArray[np.int32],
    placement: Placement,
    layer: int,
    usable: NDArray[np.bool_] | None = None,
) -> NDArray[np.int32]:
    """The slot that serves each assignment, int32 [T, K], -1 where nobody does.

    Round robin, as a rank can do it without asking the others: rank r sends
    its i-th assignment of an expert to copy (r + i) % n_copies.

    Args:
        served: [T, K] expert or -1.
        source: [T] rank of each token.
        placement: where the copies are.
        layer: index among the MoE layers.
        usable: which slots take anything, [S]; None = all.
    """
    slots = np.arange(placement.expert.shape[1]) if usable is None else np.flatnonzero(usable)
    slots_of, n_copies = _copies(placement.expert[layer], slots, placement.n_experts)
    slot = np.empty(served.shape, dtype=np.int32)
    turn = np.zeros((placement.n_ranks, placement.n_experts), dtype=np.int64)
    _choose(served, source, slots_of, n_copies, turn, slot)
    return slot


def _copies(
    expert_of: NDArray[np.int32], slots: NDArray[np.int64], n_experts: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Those of some slots that hold each expert, int32 [E, most copies], -1 beyond its `n_copies` [E]."""
    expert = expert_of[slots]
    n_copies = np.bincount(expert, minlength=n_experts).astype(np.int64)
    by_expert = np.argsort(expert, kind="stable")
    first = np.cumsum(n_copies) - n_copies
    slots_of = np.full((n_experts, int(n_copies.max())), -1, dtype=np.int32)
    sorted_expert = expert[by_expert]
    slots_of[sorted_expert, np.arange(len(expert)) - first[sorted_expert]] = slots[by_expert]
    return slots_of, n_copies


@njit
def _choose(
    served: NDArray[np.int32],
    source: NDArray[np.int32],
    slots_of: NDArray[np.int32],
    n_copies: NDArray[np.int64],
    turn: NDArray[np.int64],
    slot: NDArray[np.int32],
) -> None:
    for t in range(served.shape[0]):
        rank = source[t]
        for j in range(served.shape[1]):
            e = served[t, j]
            if e < 0 or n_copies[e] == 0:
                slot[t, j] = -1
            else:
                slot[t, j] = slots_of[e, (rank + turn[rank, e]) % n_copies[e]]
                turn[rank, e] += 1
