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
from moesim.types.policies import CapacityPolicy, Kept, QueuePolicy, SubstitutionPolicy, TrainingBalance


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """Everything that stays the same over the steps of one run; `prepare` makes it from a scenario.

    `is_training`: the step is a training forward pass. `sequences` are those
    of the workload, for which memory must suffice.

    `strategy` with its `parameters` routes logits, and is None where `source`
    holds the choices of a recorded router. `draws_choices`: the source gives
    choices instead of logits. `capacity`, `substitution`, `training` and
    `queues` are None where the run has none. `placement` is that of the first
    step. `network` is how exchanges are timed: "closed-form" or "port".
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
    strategy: Strategy[Any] | None
    parameters: Any
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

    def batches(self) -> Iterator[Batch]:
        """The tokens of every step, those of warm-up steps first."""
        return (self.source.batch(step) for step in range(self.warmup_steps + self.n_steps))

    def measured_step(self, batch: Batch) -> int:
        """The number of a batch's step among those that are measured; below 0 it is a warm-up step."""
        return batch.step - self.warmup_steps

    @property
    def top_k(self) -> int:
        """Choices of a token."""
        return self.model.top_k

    @property
    def is_recorded(self) -> bool:
        """Whether the tokens are those of a recording, with the choices of its router."""
        return self.strategy is None

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
        return payload_bytes(self.model.hidden_size, self.precision.dispatch)

    @property
    def combine_bytes(self) -> int:
        """Bytes of one copy on its way back."""
        return payload_bytes(self.model.hidden_size, self.precision.combine)

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
        """Experts that the router scores: the model's, and those that compute nothing."""
        assert self.strategy is not None
        return self.model.n_experts + self.strategy.zero_experts(self.parameters)

    @property
    def comm_sms(self) -> int:
        """SMs of each GPU that the network's kernels occupy while others compute."""
        return self.cluster.network.comm_sms if self.micro_batches > 1 else 0

    @property
    def has_groups(self) -> bool:
        """Whether the router has expert groups of its own, through which it is limited to nodes."""
        return self.strategy is not None and self.strategy.with_groups is not None

    @property
    def group_nodes(self) -> int:
        """Nodes that an expert-parallel group is on."""
        return group_nodes(self.parallelism, self.cluster)

    @property
    def scores_per_node(self) -> int:
        """How many scores of a node are summed to rank it: top_k / nodes, as DeepSeek-V3, section 2.1.2."""
        assert self.substitution is not None
        return max(1, self.top_k // self.substitution.nodes)


def group_nodes(parallelism: Parallelism, cluster: ClusterShape) -> int:
    """Nodes that an expert-parallel group is on."""
    return -(-parallelism.group_gpus // cluster.gpus_per_node)
