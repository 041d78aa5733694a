"""Replica choice: which copy of its expert serves an assignment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.types import Placement


def assign_slots(
    served: NDArray[np.int32],
    source: NDArray[np.int32],
    placement: Placement,
    layer: int,
    usable: NDArray[np.bool_] | None = None,
) -> NDArray[np.int32]:
    """The slot that serves each assignment, int32 [T, K], -1 where none does.

    Round robin, as a rank can do it without asking the others: rank r sends
    its i-th assignment of an expert to copy (r + i) % n_copies of those in its
    expert-parallel group.

    Args:
        served: [T, K] expert or -1.
        source: [T] rank of each token.
        placement: where the copies are.
        layer: index among the MoE layers.
        usable: which slots take anything, [S]; None = all.
    """
    slots = np.arange(placement.expert.shape[1]) if usable is None else np.flatnonzero(usable)
    slot = np.empty(served.shape, dtype=np.int32)
    turn = np.empty((placement.n_ranks, placement.n_experts), dtype=np.int32)
    for gpus, own in placement.groups():
        mine = slots[(slots >= own.start) & (slots < own.stop)]
        slots_of, n_copies = _copies(placement.expert[layer], mine, placement.n_experts)
        if placement.n_groups == 1:
            _choose(served, source, slots_of, n_copies, turn, slot)
        else:
            tokens = np.flatnonzero((source >= gpus.start) & (source < gpus.stop))
            part = np.empty((len(tokens), served.shape[1]), dtype=np.int32)
            _choose(served[tokens], source[tokens], slots_of, n_copies, turn, part)
            slot[tokens] = part
    return slot


def _copies(
    expert_of: NDArray[np.int32], slots: NDArray[np.int64], n_experts: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Those of some slots that hold each expert, int32 [E, most copies], -1 beyond its `n_copies` [E]."""
    expert = expert_of[slots]
    n_copies = np.bincount(expert, minlength=n_experts).astype(np.int64)
    slots_of = np.full((n_experts, int(n_copies.max())), -1, dtype=np.int32)
    _list_copies(expert, slots, np.zeros_like(n_copies), slots_of)
    return slots_of, n_copies


@njit
def _list_copies(
    expert: NDArray[np.int32], slots: NDArray[np.int64], listed: NDArray[np.int64], slots_of: NDArray[np.int32]
) -> None:
    for i in range(expert.shape[0]):
        e = expert[i]
        slots_of[e, listed[e]] = slots[i]
        listed[e] += 1


@njit
def _choose(
    served: NDArray[np.int32],
    source: NDArray[np.int32],
    slots_of: NDArray[np.int32],
    n_copies: NDArray[np.int64],
    turn: NDArray[np.int32],
    slot: NDArray[np.int32],
) -> None:
    """Fill slot; `turn` [G, E] is scratch: the copy that a rank's next assignment goes to."""
    for rank in range(turn.shape[0]):
        for expert in range(n_copies.shape[0]):
            turn[rank, expert] = rank % n_copies[expert] if n_copies[expert] > 1 else 0
    for t in range(served.shape[0]):
        own = turn[np.uint64(source[t])]
        for j in range(served.shape[1]):
            if served[t, j] < 0 or n_copies[served[t, j]] == 0:
                slot[t, j] = -1
                continue
            e = np.uint64(served[t, j])  # unsigned indices need no test for negative ones
            copy = np.uint64(own[e])
            slot[t, j] = slots_of[e, copy]
            own[e] = own[e] + 1 if own[e] + 1 < n_copies[e] else 0
