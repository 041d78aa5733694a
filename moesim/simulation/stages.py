"""What stays the same over the steps of a run, resolved and checked before anything runs."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from moesim.engine import OVERLAPS
from moesim.errors import InputError, ParameterError, TooLargeError
from moesim.hardware import Family, check_family, check_memory, default_family, family_of
from moesim.hardware.kernel_file import read_family
from moesim.hardware.measured_file import with_table
from moesim.placement import place
from moesim.results import frames_bytes
from moesim.routing import OVERFLOWS, ROUNDINGS, SCOPES, SIGNED, Strategy
from moesim.scenario import Scenario
from moesim.scenario.schema import CapacitySpec, KernelTables
from moesim.simulation.faults import check_faults
from moesim.simulation.sampling import check_sampling, router_of, settle
from moesim.types import ClusterShape, ModelShape, Placement, Precision
from moesim.workload import RecordedTokens, SyntheticTokens, read_trace


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Everything that stays the same over the steps of one run."""

    scenario: Scenario
    model: ModelShape
    cluster: ClusterShape
    precision: Precision
    strategy: Strategy | None
    parameters: Any
    top_k: int
    source: SyntheticTokens | RecordedTokens
    placement: Placement
    n_steps: int
    kernels: Family

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
    def copies_rule(self) -> str:
        """How many copies of a token are sent: the collective's rule; queues get one for each selected expert."""
        return "per-selection" if self.queued else self.cluster.network.copies

    @property
    def ports_rule(self) -> str:
        """How they go: what everybody gets goes once to each node, as copies per node do."""
        return "per-node" if self.copies_rule == "all" else self.copies_rule

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
        return self.hands_on or (capacity is not None and bool(OVERFLOWS[capacity.overflow].moved))

    @property
    def keeps_priorities(self) -> bool:
        """Whether the capacity policy ranks tokens by the scores of their choices, before any normalisation."""
        capacity = self.scenario.spec.routing.capacity
        return capacity is not None and OVERFLOWS[capacity.overflow].admits_by == "priority"

    @property
    def n_logits(self) -> int:
        """Experts that the router scores: the model's, and those that compute nothing."""
        assert self.strategy is not None
        return self.model.n_experts + zero_experts(self.strategy, self.parameters)

    @property
    def limits_itself(self) -> bool:
        """Whether the router has groups of its own, through which it is limited to nodes."""
        return hasattr(self.parameters, "n_group")

    @property
    def best_of_a_node(self) -> int:
        """How many scores of a node are summed to rank it: top_k / nodes, as DeepSeek-V3, section 2.1.2."""
        balancer = self.scenario.spec.routing.balancer
        assert balancer is not None
        return max(1, self.top_k // balancer.nodes)

    @property
    def rank_of_expert(self) -> NDArray[np.int32]:
        """The GPU of each expert's first copy, [E]."""
        expert, first = np.unique(self.placement.expert[0], return_index=True)
        assert len(expert) == self.placement.n_experts
        return self.placement.rank[first]


def prepare(scenario: Scenario) -> Stages:
    """Resolve names and parameters against the stages and refuse what cannot run.

    Of a scenario that leaves `workload.sampling` open it is decided here, for that scenario alone.
    """
    scenario = settle({"": scenario})[""]
    model, cluster, spec = scenario.model, scenario.cluster, scenario.spec
    recorded = spec.workload.trace is not None
    top_k = spec.routing.top_k or model.top_k
    router, parameters = (None, None) if recorded else _router(scenario, top_k)
    check_sampling(scenario)
    zero = 0 if router is None else zero_experts(router, parameters)
    source, n_steps = _recorded(scenario, top_k) if recorded else (_synthetic(scenario, zero), spec.workload.steps)
    placement = _placement(scenario)
    stages = Stages(
        scenario=scenario,
        model=model,
        cluster=cluster,
        precision=scenario.precision,
        strategy=router,
        parameters=parameters,
        top_k=top_k,
        source=source,
        placement=placement,
        n_steps=n_steps,
        kernels=_kernels(scenario),
    )
    _check_capacity(stages)
    _check_balancer(stages)
    _check_balancing(stages)
    _check_queues(stages)
    check_faults(scenario)
    _check_memory(stages)
    _check_run_size(stages)
    return stages


def _router(scenario: Scenario, top_k: int) -> tuple[Strategy, Any]:
    """The strategy of the scenario with its parameters, the model's own where it names none."""
    routing, model = scenario.spec.routing, scenario.model
    name = routing.strategy or model.router
    try:
        found, parameters = router_of(scenario)
        parameters = _limited_to_nodes(scenario, found, top_k, parameters)
        found.validate(model.n_experts + zero_experts(found, parameters), top_k, parameters)
    except ParameterError as error:
        given = f"routing.parameters.{error.argument}"
        where = given if error.argument in routing.parameters else "routing"
        if error.argument == "top_k" and routing.top_k is not None:
            where = "routing.top_k"
        raise scenario.error(where, f"{error.argument} {error.found} for {name}", error.wanted) from None
    except InputError as error:
        raise scenario.error("routing.strategy", name, str(error)) from None
    return found, parameters


def _limited_to_nodes(scenario: Scenario, found: Strategy, top_k: int, parameters: Any) -> Any:
    """The parameters of a router with groups of its own, limited to nodes where the balancer says so."""
    balancer, n_nodes, n_experts = scenario.spec.routing.balancer, group_nodes(scenario), scenario.model.n_experts
    if balancer is None or balancer.policy != "node-limited":
        return parameters
    if not found.obeys_mask:
        wanted = f"another: {found.name} does not choose by logits alone"
        raise scenario.error("routing.balancer.policy", "node-limited", wanted)
    if not 1 <= balancer.nodes <= n_nodes:
        raise scenario.error("routing.balancer.nodes", balancer.nodes, f"1 to the {n_nodes} nodes of a group")
    if n_experts % n_nodes or balancer.nodes * (n_experts // n_nodes) < top_k:
        wanted = f"nodes that hold top_k ({top_k}) of {n_experts} experts evenly"
        raise scenario.error("routing.balancer.nodes", balancer.nodes, wanted)
    if getattr(parameters, "n_zero_experts", 0):
        raise scenario.error(
            "routing.balancer.policy", "node-limited", "another: zero-computation experts have no node"
        )
    if not hasattr(parameters, "n_group"):
        return parameters
    if parameters.n_group > 1:
        raise scenario.error(
            "routing.balancer.policy", "node-limited", f"another: the router has {parameters.n_group} groups of its own"
        )
    return dataclasses.replace(parameters, n_group=n_nodes, topk_group=balancer.nodes, group_score="top-k-sum")


def group_nodes(scenario: Scenario) -> int:
    """Nodes that an expert-parallel group is on."""
    return -(-scenario.parallelism.group_gpus // scenario.cluster.gpus_per_node)


def zero_experts(found: Strategy, parameters: Any) -> int:
    """How many experts that compute nothing the router scores behind those of the model."""
    return 0 if found.zero_experts is None else found.zero_experts(parameters)


def _synthetic(scenario: Scenario, zero: int) -> SyntheticTokens:
    workload, model = scenario.spec.workload, scenario.model
    assert workload.tokens_per_gpu is not None  # only a trace comes without
    return SyntheticTokens(
        seed=scenario.spec.seed,
        n_layers=len(model.moe_layers),
        n_experts=model.n_experts,
        n_zero_experts=zero,
        n_ranks=scenario.cluster.n_gpus - (scenario.spec.placement.expert_gpus or 0),
        tokens_per_rank=workload.tokens_per_gpu,
        phase=workload.phase,
        sequence_tokens=workload.sequence_tokens,
        zipf_exponent=workload.popularity.exponent if workload.popularity.kind == "zipf" else 0.0,
        topic_count=workload.topics.count,
        topic_strength=workload.topics.strength,
        vocab_size=model.vocab_size,
    )


def _recorded(scenario: Scenario, top_k: int) -> tuple[RecordedTokens, int]:
    """The recorded tokens of the scenario's trace, which must be of its model."""
    spec, model = scenario.spec, scenario.model
    assert spec.workload.trace is not None
    if spec.routing.strategy not in (None, "recorded"):
        raise scenario.error(
            "routing.strategy",
            spec.routing.strategy,
            "no strategy: the trace holds the choices of its own router",
        )
    try:
        trace = read_trace(spec.workload.trace)
    except InputError as error:
        raise scenario.error("workload.trace", spec.workload.trace, str(error)) from None
    for field_name, found, wanted in (
        ("layers", trace.n_layers, len(model.moe_layers)),
        ("top_k", trace.top_k, top_k),
    ):
        if found != wanted:
            raise scenario.error(
                "workload.trace",
                f"{found} {field_name}",
                f"{wanted}, as model {model.name} has",
            )
    if trace.n_experts > model.n_experts:
        raise scenario.error(
            "workload.trace",
            f"expert {trace.n_experts - 1}",
            f"experts 0 to {model.n_experts - 1} of {model.name}",
        )
    source = RecordedTokens(
        trace,
        n_ranks=scenario.cluster.n_gpus - (spec.placement.expert_gpus or 0),
        tokens_per_rank=spec.workload.tokens_per_gpu,
    )
    return source, spec.workload.steps


def _kernels(scenario: Scenario) -> Family:
    """The kernels that the scenario names: a family, a file of constants, or measured tables before one of these."""
    kernels = scenario.spec.cluster.kernels
    if not isinstance(kernels, KernelTables):
        return _family(scenario, kernels, "cluster.kernels")
    family = _family(scenario, kernels.family, "cluster.kernels.family")
    queued = scenario.spec.simulation.experts == "queued"
    excluded = {"experts": "queued experts are kernels of their own"} if queued else {}
    try:
        return with_table(family, kernels.table, scenario.cluster.gpu, excluded)
    except InputError as error:
        wanted = f"a measured table or a folder of them ({error})"
        raise scenario.error("cluster.kernels.table", Path(kernels.table).name, wanted) from None


def _family(scenario: Scenario, named: str | None, field: str) -> Family:
    """The family of calibrated kernels, or the file, of that name; by default what suits the data types."""
    if named is None:
        return family_of(default_family(scenario.precision))
    if Path(named).is_absolute():  # as a path is once it is resolved
        try:
            return read_family(named, scenario.precision)
        except InputError as error:
            raise scenario.error(field, Path(named).name, f"a file of constants ({error})") from None
    try:
        family = family_of(named)
        check_family(family, scenario.precision)
    except InputError as error:
        raise scenario.error(field, named, str(error)) from None
    return family


def _placement(scenario: Scenario) -> Placement:
    wanted, model, n_gpus = scenario.spec.placement, scenario.model, scenario.cluster.n_gpus
    if wanted.expert_gpus is not None and wanted.expert_gpus >= n_gpus:
        raise scenario.error("placement.expert_gpus", wanted.expert_gpus, f"1 to {n_gpus - 1}: some compute attention")
    parallel = scenario.parallelism
    holders = wanted.expert_gpus or n_gpus
    try:
        placement = place(
            wanted.strategy,
            n_experts=model.n_experts,
            n_layers=len(model.moe_layers),
            n_ranks=wanted.expert_gpus or parallel.expert,
            redundant_experts=wanted.redundant_experts,
            n_groups=n_gpus // parallel.group_gpus,
            expert_tensor=parallel.expert_tensor,
        )
        rank = (placement.rank + (n_gpus - holders)).astype(np.int32)
        return dataclasses.replace(placement, rank=rank, n_ranks=n_gpus)
    except InputError as error:
        found = f"{wanted.strategy} with {wanted.redundant_experts} redundant experts"
        raise scenario.error("placement", found, str(error)) from None


def _check_capacity(stages: Stages) -> None:
    scenario, capacity = stages.scenario, stages.scenario.spec.routing.capacity
    if capacity is None:
        return
    for name, table in (("overflow", OVERFLOWS), ("scope", SCOPES), ("rounding", ROUNDINGS)):
        found = getattr(capacity, name)
        if found not in table:
            raise scenario.error(f"routing.capacity.{name}", found, "one of " + ", ".join(table))
    for name in ("factor", "evaluation_factor"):
        value = getattr(capacity, name)
        if value is not None and value <= 0 and capacity.rounding not in SIGNED:
            raise scenario.error(f"routing.capacity.{name}", value, "above 0, unless rounding is tutel")
    if capacity.fallback == "shared-expert" and not stages.model.n_shared_experts:
        raise scenario.error("routing.capacity.fallback", capacity.fallback, f"residual: {stages.model.name} has none")
    if capacity.pad and stages.copies_rule == "all":
        raise scenario.error("routing.capacity.pad", True, "false with a network whose copies go to all")
    if capacity.pad and capacity.scope != "source-rank":
        raise scenario.error("routing.capacity.pad", True, "scope source-rank, whose ranks each send their padding")
    if OVERFLOWS[capacity.overflow].moved and stages.strategy is None:
        raise scenario.error(
            "routing.capacity.overflow", capacity.overflow, "one that drops: a trace of choices has no other scores"
        )
    if capacity.pad and stages.micro_batches > 1:
        raise scenario.error("routing.capacity.pad", True, "false with simulation.overlap two-batch")
    copies = stages.placement.expert.shape[1] - stages.placement.n_experts
    _check_capacity_of_groups(stages, capacity)
    if copies and (capacity.scope == "device" or capacity.overflow == "expanded-drop"):
        raise scenario.error("placement.redundant_experts", copies, "0, as the policy asks for the device of an expert")


def _check_capacity_of_groups(stages: Stages, capacity: CapacitySpec) -> None:
    """Refuse what would count the tokens of other groups, or asks which one GPU has an expert that several share."""
    n_groups, shared_by = stages.placement.n_groups, stages.placement.expert_tensor
    by_device = capacity.scope == "device" or capacity.overflow == "expanded-drop"
    for field, wrong, wanted in (
        ("pad", capacity.pad, "false"),
        ("scope", n_groups > 1 and capacity.scope == "global", "source-rank or sequence"),
        ("scope", capacity.scope == "device", "source-rank or sequence"),
        ("overflow", by_device, "one that does not ask for the device of an expert"),
    ):
        if wrong and (n_groups > 1 or shared_by > 1):
            why = f"{n_groups} expert-parallel groups" if n_groups > 1 else f"{shared_by} GPUs that share each expert"
            raise stages.scenario.error(
                f"routing.capacity.{field}", getattr(capacity, field), f"{wanted}, as there are {why}"
            )


def _check_balancer(stages: Stages) -> None:
    scenario, balancer = stages.scenario, stages.scenario.spec.routing.balancer
    if balancer is None:
        return
    if stages.strategy is None:
        raise scenario.error("routing.balancer", balancer.policy, "none: a trace of choices has no scores")
    if balancer.policy != "node-limited":
        return
    n_nodes, n_experts = group_nodes(scenario), stages.model.n_experts
    own_node = stages.rank_of_expert // stages.cluster.gpus_per_node
    if not np.array_equal(own_node, np.arange(n_experts) // (n_experts // n_nodes)):
        raise scenario.error(
            "routing.balancer.policy", "node-limited", "a placement of consecutive experts on each node"
        )


def _check_queues(stages: Stages) -> None:
    """Refuse queues that cannot be, and settings of queues where there are none."""
    scenario, spec = stages.scenario, stages.scenario.spec.simulation
    if stages.queued and (stages.placement.n_groups > 1 or stages.placement.expert_tensor > 1):
        raise scenario.error(
            "simulation.experts", "queued", "grouped, unless all GPUs are one expert-parallel group and share no expert"
        )
    if not stages.queued:
        if spec.queue_tokens is not None or spec.queue_overflow != "drop":
            name = "queue_overflow" if spec.queue_tokens is None else "queue_tokens"
            raise scenario.error(f"simulation.{name}", getattr(spec, name), "simulation.experts: queued beside it")
        return
    if spec.engine == "compiled":
        raise scenario.error("simulation.engine", "compiled", "auto or simpy, which runs queued experts")
    if stages.hands_on and stages.strategy is None:
        raise scenario.error(
            "simulation.queue_overflow", "next", "drop or block: a trace of choices has no other scores"
        )
    if spec.queue_overflow != "drop" and spec.queue_tokens is None:
        raise scenario.error("simulation.queue_tokens", None, "a number of tokens, beyond which a queue is full")
    capacity = stages.scenario.spec.routing.capacity
    if capacity is not None and capacity.pad:
        raise scenario.error("routing.capacity.pad", True, "false with queued experts")


def _check_balancing(stages: Stages) -> None:
    scenario, balancing = stages.scenario, stages.scenario.spec.routing.balancing
    if balancing is None:
        return
    if stages.strategy is None:
        raise scenario.error("routing.balancing", balancing.mechanism, "none: a trace holds the choices of its router")
    if balancing.mechanism == "loss-free" and not stages.strategy.takes_bias:
        wanted = f"none or aux-loss: {stages.strategy.name} has no selection bias"
        raise scenario.error("routing.balancing.mechanism", balancing.mechanism, wanted)


def _check_memory(stages: Stages) -> None:
    """Refuse a model that does not fit the memory of the GPU that holds most slots."""
    scenario, workload = stages.scenario, stages.scenario.spec.workload
    slots = int(np.bincount(stages.placement.rank, minlength=stages.cluster.n_gpus).max())
    tokens = -(-stages.source.tokens_per_step // stages.n_source_ranks)
    apart = scenario.spec.placement.expert_gpus is not None
    for slots_per_gpu, tokens_per_gpu in ((0, tokens), (slots, 0)) if apart else ((slots, tokens),):
        try:
            check_memory(
                stages.model,
                stages.cluster,
                stages.precision,
                slots_per_gpu=slots_per_gpu,
                tokens_per_gpu=tokens_per_gpu,
                context_tokens=workload.context_tokens,
                sequence_tokens=workload.sequence_tokens,
                phase=workload.phase,
                parallelism=scenario.parallelism,
            )
        except TooLargeError as error:
            found = f"{stages.model.name} on {stages.cluster.n_gpus} GPUs"
            raise scenario.error("cluster", found, str(error)) from None


def run_bytes(stages: Stages, threads: int | None = None) -> tuple[int, int]:
    """Estimates of the memory of a run's result frames and of all of it, in bytes.

    Args:
        stages: of the run.
        threads: over layers; `default_threads` where there is no number.
    """
    model, n_gpus, spec = stages.model, stages.cluster.n_gpus, stages.scenario.spec
    n_layers, n_slots = stages.placement.expert.shape
    frames = frames_bytes(
        n_steps=stages.n_steps,
        n_layers=n_layers,
        n_experts=model.n_experts if spec.keep.experts == "steps" else 0,
        n_gpus=n_gpus,
        timeline_steps=min(spec.keep.timeline_steps, stages.n_steps),
        n_operations=7 * model.n_layers * stages.micro_batches,
    )
    # a layer's ids, weights and flags for every thread, and the step's matrices (requested and evenly spread)
    at_once = min(threads or default_threads(), n_layers)
    tokens = stages.source.tokens_per_step * (16 + 40 * stages.top_k) * at_once
    if stages.strategy is not None and (stages.strategy.scope == "batch" or stages.keeps_scores):
        # logits, probabilities, order and flags of a whole layer for every thread
        tokens += stages.source.tokens_per_step * 24 * model.n_experts * at_once
    step = 16 * n_layers * (8 * model.n_experts + 4 * n_slots + 6 * n_gpus * n_gpus * stages.micro_batches)
    return frames, frames + tokens + step


def free_bytes() -> int:
    """Memory that this machine has free."""
    return int(psutil.virtual_memory().available)


def _check_run_size(stages: Stages) -> None:
    """Refuse a run that this machine's memory cannot hold, with the estimate."""
    (frames, needed), available = run_bytes(stages), free_bytes()
    if needed > available:
        raise stages.scenario.error(
            "workload",
            f"{stages.n_steps:,} steps of {stages.source.tokens_per_step:,} tokens, about {needed / 1e9:,.1f} GB "
            f"({frames / 1e9:,.1f} GB of result frames)",
            f"at most the {available / 1e9:,.1f} GB that this machine has free: fewer steps, tokens or GPUs",
        )


def default_threads() -> int:
    """Worker threads: MOESIM_THREADS, else the processors that this process may use."""
    wanted = os.environ.get("MOESIM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
