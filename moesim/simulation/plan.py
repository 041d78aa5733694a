"""What stays the same over the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moesim.engine import OVERLAPS
from moesim.hardware import Backend, payload_bytes
from moesim.routing import OVERFLOWS, Strategy
from moesim.simulation.fault_schedule import FaultSchedule
from moesim.types import (
    Batch,
    ClusterShape,
    EqualSequences,
    ModelShape,
    Parallelism,
    Placement,
    Precision,
    TokenSource,
)
from moesim.types.policies import CapacityPolicy, Kept, QueuePolicy, SkewTarget, SubstitutionPolicy, TrainingBalance


@dataclass(frozen=True, kw_only=True)
class LayerRouter:
    """The router of an MoE layer: a strategy with its parameters, of which every token takes `top_k` choices."""

    strategy: Strategy[Any]
    parameters: Any
    top_k: int

    @property
    def n_zero_experts(self) -> int:
        """Experts that it scores and that compute nothing."""
        return self.strategy.zero_experts(self.parameters)

    @property
    def by_sigmoid(self) -> bool:
        """Whether its scores are sigmoids of the logits, else their softmax."""
        return self.strategy.by_sigmoid(self.parameters)

    @property
    def has_groups(self) -> bool:
        """Whether it has expert groups of its own, through which it is limited to nodes."""
        return self.strategy.with_groups is not None


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """Everything that stays the same over the steps of one run; `prepare` makes it from a scenario.

    `is_training`: the step is a training forward pass. `sequences` are those
    of the workload, for which memory must suffice.

    `routers` has the router of each MoE layer, and is empty where `source`
    holds the choices of a recorded one. `draws_choices`: the source gives
    choices instead of logits. `unrecorded_layers` are the MoE layers, by index,
    of which a recording has nothing: no token makes a choice there. `capacity`, `substitution`, `training` and
    `queues` are None where the run has none. `placement` is that of the first
    step. `network` is how exchanges are timed: "closed-form" or "port".
    `target` is what the popularity was solved for, None where it was stated.
    `tokens_file`: name and sha256 of the file that the tokens rest on, or "", "".
    """

    seed: int
    model: ModelShape
    cluster: ClusterShape
    precision: Precision
    parallelism: Parallelism
    kernels: Backend
    source: TokenSource
    is_training: bool
    sequences: EqualSequences
    draws_choices: bool
    routers: tuple[LayerRouter, ...]
    capacity: CapacityPolicy | None
    substitution: SubstitutionPolicy | None
    training: TrainingBalance | None
    placement: Placement
    n_source_ranks: int
    queues: QueuePolicy | None
    engine: str
    network: str
    overlap: str
    overlap_slowdown: float
    faults: FaultSchedule
    n_steps: int
    warmup_steps: int
    keep: Kept
    tokens_file: tuple[str, str] = ("", "")
    target: SkewTarget | None = None
    unrecorded_layers: frozenset[int] = frozenset()

    def batches(self) -> Iterator[Batch]:
        """The tokens of every step, those of warm-up steps first."""
        return (self.source.batch(step) for step in range(self.warmup_steps + self.n_steps))

    def measured_step(self, batch: Batch) -> int:
        """The number of a batch's step among those that are measured; below 0 it is a warm-up step."""
        return batch.step - self.warmup_steps

    @property
    def is_recorded(self) -> bool:
        """Whether the tokens are those of a recording, with the choices of its router."""
        return not self.routers

    @property
    def micro_batches(self) -> int:
        """Parts in which a step runs."""
        return OVERLAPS[self.overlap].micro_batches

    @property
    def copy_rule(self) -> str:
        """How many copies of a token are sent: the collective's rule; queues get one for each selected expert."""
        return "per-selection" if self.queues is not None else self.cluster.network.copies

    @property
    def ports_rule(self) -> str:
        """How the copies go through the ports: what all GPUs get goes once to each node, as copies per node do."""
        return "per-node" if self.copy_rule == "all" else self.copy_rule

    @property
    def dispatch_bytes(self) -> int:
        """Bytes of one copy of a token on its way to an expert."""
        return payload_bytes(self.model.expert_hidden_size, self.precision.dispatch)

    @property
    def combine_bytes(self) -> int:
        """Bytes of one copy on its way back."""
        return payload_bytes(self.model.expert_hidden_size, self.precision.combine)

    @property
    def forwards_overflow(self) -> bool:
        """Whether a full queue forwards tokens to their next choice."""
        return self.queues is not None and self.queues.room is not None and self.queues.overflow == "next"

    @property
    def keeps_scores(self) -> bool:
        """Whether the capacity policy, or a full queue, reads the scores of all experts."""
        capacity = self.capacity
        return self.forwards_overflow or (capacity is not None and bool(OVERFLOWS[capacity.overflow].reroutes_as))

    @property
    def keeps_priorities(self) -> bool:
        """Whether the capacity policy ranks tokens by the scores of their choices, before any normalisation."""
        return self.capacity is not None and OVERFLOWS[self.capacity.overflow].order == "priority"

    @property
    def n_logits(self) -> int:
        """Experts that every router scores: the model's, and those that compute nothing."""
        return self.model.n_experts + self.routers[0].n_zero_experts

    @property
    def comm_sms(self) -> int:
        """SMs of each GPU that the network's kernels occupy while others compute."""
        return self.cluster.network.comm_sms if self.micro_batches > 1 else 0

    @property
    def group_nodes(self) -> int:
        """Nodes that an expert-parallel group is on."""
        return group_nodes(self.parallelism, self.cluster)


def group_nodes(parallelism: Parallelism, cluster: ClusterShape) -> int:
    """Nodes that an expert-parallel group is on."""
    return -(-parallelism.group_gpus // cluster.gpus_per_node)
