"""What stays the same over the steps of a run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.engine import OVERLAPS
from moesim.errors import InputError
from moesim.hardware import Backend
from moesim.routing import OVERFLOWS, Strategy
from moesim.scenario import Scenario
from moesim.types import ClusterShape, ModelShape, Placement, Precision
from moesim.workload import RecordedTokens, SyntheticTokens


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Everything that stays the same over the steps of one run."""

    scenario: Scenario
    model: ModelShape
    cluster: ClusterShape
    precision: Precision
    strategy: Strategy[Any] | None
    parameters: Any
    top_k: int
    source: SyntheticTokens | RecordedTokens
    placement: Placement
    n_steps: int
    kernels: Backend
    tokens_file: tuple[str, str] = ("", "")
    """Name and sha256 of the file that the tokens rest on: a trace, or counts by expert."""

    @property
    def overlap(self) -> str:
        """How computing and exchanging overlap, a name of OVERLAPS."""
        overlap = self.scenario.spec.simulation.overlap or "none"
        decodes = self.scenario.spec.workload.phase == "decode"
        return "two-batch-decode" if overlap == "two-batch" and decodes else overlap

    @property
    def micro_batches(self) -> int:
        """Parts in which a step runs."""
        return OVERLAPS[self.overlap].micro_batches

    @property
    def queued(self) -> bool:
        """Whether experts are servers with queues."""
        return self.scenario.spec.simulation.experts == "queued"

    @property
    def engine(self) -> str:
        """The interpreter that runs the steps: the one that was asked for; by default compiled, where it is valid."""
        wanted = self.scenario.spec.simulation.engine
        if wanted == "auto":
            return "simpy" if self.queued else "compiled"
        return wanted

    @property
    def copy_rule(self) -> str:
        """How many copies of a token are sent: the collective's rule; queues get one for each selected expert."""
        return "per-selection" if self.queued else self.cluster.network.copies

    @property
    def ports_rule(self) -> str:
        """How they go: what everybody gets goes once to each node, as copies per node do."""
        return "per-node" if self.copy_rule == "all" else self.copy_rule

    @property
    def n_source_ranks(self) -> int:
        """GPUs that tokens come from: all but those that hold nothing but experts."""
        return self.cluster.n_gpus - (self.scenario.spec.placement.expert_gpus or 0)

    @property
    def hands_on(self) -> bool:
        """Whether a full queue hands tokens on to their next choice."""
        simulation = self.scenario.spec.simulation
        return self.queued and simulation.queue_tokens is not None and simulation.queue_overflow == "next"

    @property
    def keeps_scores(self) -> bool:
        """Whether the capacity policy, or a full queue, reads the scores of all experts."""
        capacity = self.scenario.spec.routing.capacity
        return self.hands_on or (capacity is not None and bool(OVERFLOWS[capacity.overflow].reroutes_as))

    @property
    def keeps_priorities(self) -> bool:
        """Whether the capacity policy ranks tokens by the scores of their choices, before any normalisation."""
        capacity = self.scenario.spec.routing.capacity
        return capacity is not None and OVERFLOWS[capacity.overflow].order == "priority"

    @property
    def n_logits(self) -> int:
        """Experts that the router scores: the model's, and those that compute nothing."""
        assert self.strategy is not None
        return self.model.n_experts + zero_experts(self.strategy, self.parameters)

    @property
    def comm_sms(self) -> int:
        """SMs of each GPU that kernels of the network hold beside what is computed."""
        return self.cluster.network.comm_sms if self.micro_batches > 1 else 0

    @property
    def limits_itself(self) -> bool:
        """Whether the router has groups of its own, through which it is limited to nodes."""
        return self.strategy is not None and self.strategy.with_groups is not None

    @property
    def best_of_a_node(self) -> int:
        """How many scores of a node are summed to rank it: top_k / nodes, as DeepSeek-V3, section 2.1.2."""
        balancer = self.scenario.spec.routing.substitution
        assert balancer is not None
        return max(1, self.top_k // balancer.nodes)

    @property
    def rank_of_expert(self) -> NDArray[np.int32]:
        """The GPU of each expert's first copy, [E]."""
        expert, first = np.unique(self.placement.expert[0], return_index=True)
        assert len(expert) == self.placement.n_experts
        return self.placement.rank[first]


def group_nodes(scenario: Scenario) -> int:
    """Nodes that an expert-parallel group is on."""
    return -(-scenario.parallelism.group_gpus // scenario.cluster.gpus_per_node)


def zero_experts(found: Strategy[Any], parameters: Any) -> int:
    """How many experts that compute nothing the router scores behind those of the model."""
    return found.zero_experts(parameters)


def threads_or_default(threads: int | None) -> int:
    """Worker threads as asked for.

    Raises:
        InputError: there are none.
    """
    if threads is None:
        return default_threads()
    if threads < 1:
        raise InputError(f"threads: found {threads}, wanted 1 or more")
    return threads


def default_threads() -> int:
    """Worker threads: MOESIM_THREADS, else the processors that this process may use.

    Raises:
        InputError: MOESIM_THREADS is no number of threads.
    """
    wanted = os.environ.get("MOESIM_THREADS", "")
    if wanted:
        if not re.fullmatch("[0-9]{1,9}", wanted) or int(wanted) < 1:
            raise InputError(f"MOESIM_THREADS: found {wanted!r:.60}, wanted a whole number from 1")
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
