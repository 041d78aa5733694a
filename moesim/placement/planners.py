"""Planners: which GPU holds which copy of which expert.

Both planners here know nothing of the load: in every layer they put expert s % E
into slot s, as vLLM and SGLang number redundant experts, so that E + R slots
give the first R % E experts one copy more than the others. Nothing else relies
on that order: a placement may have other experts in the slots of each layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.types import Placement, Planner, Topology


def contiguous(load: NDArray[np.float64] | None, topology: Topology, current: Placement | None) -> Placement:
    """Runs of consecutive slots; where they do not divide evenly, the first ranks hold one more."""
    size, longer = divmod(topology.n_slots, topology.n_ranks)
    sizes = np.full(topology.n_ranks, size)
    sizes[:longer] += 1
    return _alike(topology, np.repeat(np.arange(topology.n_ranks, dtype=np.int32), sizes))


def round_robin(load: NDArray[np.float64] | None, topology: Topology, current: Placement | None) -> Placement:
    """Slots dealt to the ranks in turn, each round of copies shifted where two copies would meet on one GPU."""
    slot, n_experts, n_ranks = np.arange(topology.n_slots), topology.n_experts, topology.n_ranks
    rounds = n_ranks // math.gcd(n_experts, n_ranks)  # after so many rounds of E slots the deal starts at rank 0 again
    return _alike(topology, ((slot + slot // n_experts // rounds) % n_ranks).astype(np.int32))


def _alike(topology: Topology, rank: NDArray[np.int32]) -> Placement:
    """The placement with these ranks of the slots of a group [S], the same in every layer and group."""
    expert = (np.arange(topology.n_slots) % topology.n_experts).astype(np.int32)
    first = np.arange(topology.n_groups, dtype=np.int32)[:, None] * topology.n_ranks  # rank of each group
    return Placement(
        expert=np.tile(expert, (topology.n_layers, topology.n_groups)),
        rank=((first + rank) * topology.expert_tp).ravel().astype(np.int32),
        n_experts=topology.n_experts,
        n_ranks=topology.n_groups * topology.n_ranks * topology.expert_tp,
        n_groups=topology.n_groups,
        expert_tp=topology.expert_tp,
    )


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
    max_redundant = n_experts * (n_ranks - 1)
    if not 0 <= redundant_experts <= max_redundant:
        raise InputError(
            f"redundant_experts from 0 to {max_redundant}: a GPU gains nothing from two copies of one expert"
        )
    topology = Topology(
        n_experts=n_experts,
        n_layers=n_layers,
        n_ranks=n_ranks,
        redundant_experts=redundant_experts,
        n_groups=n_groups,
        expert_tp=expert_tp,
    )
    return PLANNERS[name].planner(None, topology, None)
