"""Planners: which GPU holds which copy of which expert.

Slot s holds expert s % E, as vLLM and SGLang number redundant experts, so
that E + R slots give the first R % E experts one copy more than the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.types import Placement

Planner = Callable[[int, int, int], NDArray[np.int32]]
"""(n_slots, n_experts, n_ranks) -> rank of each slot, int32 [S]."""


def contiguous(n_slots: int, n_experts: int, n_ranks: int) -> NDArray[np.int32]:
    """Runs of consecutive slots; where they do not divide evenly, the first ranks hold one more."""
    size, longer = divmod(n_slots, n_ranks)
    sizes = np.full(n_ranks, size)
    sizes[:longer] += 1
    return np.repeat(np.arange(n_ranks, dtype=np.int32), sizes)


def round_robin(n_slots: int, n_experts: int, n_ranks: int) -> NDArray[np.int32]:
    """Slots dealt to the ranks in turn, each round of copies shifted where two copies would meet on one GPU."""
    slot = np.arange(n_slots)
    rounds = n_ranks // math.gcd(n_experts, n_ranks)  # after so many rounds of E slots the deal starts at rank 0 again
    return ((slot + slot // n_experts // rounds) % n_ranks).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the registry."""

    planner: Planner
    summary: str


PLANNERS: Mapping[str, Entry] = {
    "contiguous": Entry(
        planner=contiguous,
        summary="runs of consecutive experts, as Megatron, vLLM and SGLang",
    ),
    "round-robin": Entry(planner=round_robin, summary="expert e on rank e % G"),
}


def place(
    name: str,
    *,
    n_experts: int,
    n_layers: int,
    n_ranks: int,
    redundant_experts: int = 0,
    n_groups: int = 1,
    expert_tp: int = 1,
) -> Placement:
    """Place E experts and R redundant copies on G ranks, the same way in every layer and group.

    Args:
        name: of the planner.
        n_experts: E.
        n_layers: MoE layers.
        n_ranks: expert-parallel ranks of a group, each of `expert_tp` GPUs.
        redundant_experts: R, of each group.
        n_groups: groups of consecutive GPUs that have all experts each.
        expert_tp: GPUs that share every slot of a rank.

    Raises:
        InputError: an unknown planner, or more copies than there are GPUs to hold them apart.
    """
    if name not in PLANNERS:
        raise InputError(f"one of {', '.join(PLANNERS)}")
    most = n_experts * (n_ranks - 1)
    if not 0 <= redundant_experts <= most:
        raise InputError(f"redundant_experts from 0 to {most}: a GPU gains nothing from two copies of one expert")
    n_slots = n_experts + redundant_experts
    expert = (np.arange(n_slots) % n_experts).astype(np.int32)
    rank = PLANNERS[name].planner(n_slots, n_experts, n_ranks)
    first = np.arange(n_groups, dtype=np.int32)[:, None] * n_ranks  # rank of each group
    return Placement(
        expert=np.tile(expert, (n_layers, n_groups)),
        rank=((first + rank) * expert_tp).ravel().astype(np.int32),
        n_experts=n_experts,
        n_ranks=n_groups * n_ranks * expert_tp,
        n_groups=n_groups,
        expert_tp=expert_tp,
    )
