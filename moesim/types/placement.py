"""Which GPU holds which copy of which expert, and what the tokens make of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Slots of the MoE layers: slot s of layer l holds a copy of expert `expert[l, s]` on GPU `rank[s]`.

    `expert` int32 [L, S], `rank` int32 [S]; a slot is on the same GPU in every layer, its expert may differ.
    `n_groups` expert-parallel groups of consecutive GPUs have equally many
    consecutive slots each and all experts. `expert_tp` GPUs share each
    slot, of which `rank` is the first.
    """

    expert: NDArray[np.int32]
    rank: NDArray[np.int32]
    n_experts: int
    n_ranks: int
    n_groups: int = 1
    expert_tp: int = 1

    @property
    def group_gpus(self) -> int:
        """GPUs of an expert-parallel group."""
        return self.n_ranks // self.n_groups

    def rank_of_expert(self, layer: int) -> NDArray[np.int32]:
        """The GPU of the first copy of each expert in a MoE layer, [E]."""
        held, first = np.unique(self.expert[layer], return_index=True)
        assert len(held) == self.n_experts
        return self.rank[first]

    def copies_of_experts(self) -> NDArray[np.int64]:
        """How many slots hold each expert, [L, E]."""
        return np.stack([np.bincount(own, minlength=self.n_experts) for own in self.expert])

    def groups(self) -> list[tuple[slice, slice]]:
        """GPUs and slots of each expert-parallel group."""
        gpus, slots = self.group_gpus, self.expert.shape[1] // self.n_groups
        return [(slice(g * gpus, (g + 1) * gpus), slice(g * slots, (g + 1) * slots)) for g in range(self.n_groups)]


@dataclass(frozen=True, kw_only=True)
class Topology:
    """What a planner distributes experts over: the ranks of equal expert-parallel groups.

    Attributes:
        n_experts: E, of each group.
        n_layers: MoE layers.
        n_ranks: expert-parallel ranks of a group, each of `expert_tp` GPUs.
        redundant_experts: copies of experts beyond the first, of each group.
        n_groups: groups of consecutive GPUs that have all experts each.
        expert_tp: GPUs that share every slot of a rank.
    """

    n_experts: int
    n_layers: int
    n_ranks: int
    redundant_experts: int = 0
    n_groups: int = 1
    expert_tp: int = 1

    @property
    def n_slots(self) -> int:
        """Slots of a group."""
        return self.n_experts + self.redundant_experts


def nodes_of(gpus: slice, gpus_per_node: int) -> slice:
    """The nodes that a run of GPUs is on."""
    return slice(gpus.start // gpus_per_node, -(-gpus.stop // gpus_per_node))


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What one step asks of slots and ports, all int64 counts; G ranks, N nodes, S slots, L MoE layers.

    Where a step runs as several micro-batches L counts layers times
    micro-batches, the micro-batch being the faster index.

    `slot_tokens` [L, S]: assignments processed by each slot. `copies`
    [L, G, G]: token copies that rank s sends to rank d in dispatch (the
    diagonal uses no port); combine sends the same back. `node_copies`
    [L, G, N]: distinct tokens of a rank for each node; only for per-node
    collectives, else [0, 0, 0].
    """

    slot_tokens: NDArray[np.int64]
    copies: NDArray[np.int64]
    node_copies: NDArray[np.int64]
