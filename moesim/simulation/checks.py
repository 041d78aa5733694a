"""What the parts of a run must agree on, and what must fit into the memory of the GPUs and of this machine."""

from __future__ import annotations

import numpy as np
import psutil

from moesim.errors import InputError, TooLargeError
from moesim.hardware import check_memory, fitted_group
from moesim.results import frames_bytes
from moesim.routing import OVERFLOWS, ROUNDINGS, SCOPES, SIGNED
from moesim.scenario import Scenario
from moesim.scenario.schema import CapacitySpec
from moesim.simulation.fault_checks import check_faults
from moesim.simulation.plan import RunPlan
from moesim.simulation.threads import threads_or_default
from moesim.simulation.work import equal_work


def check_plan(scenario: Scenario, plan: RunPlan) -> None:
    """Refuse a plan that cannot run.

    Raises:
        InputError: one line that names the file, line and field, what was found and what would be right.
    """
    _check_capacity(scenario, plan)
    _check_balancer(scenario, plan)
    _check_balancing(scenario, plan)
    _check_queues(scenario, plan)
    check_faults(scenario)
    _check_network(scenario, plan)
    _check_memory(scenario, plan)
    _check_run_size(scenario, plan)


def _check_network(scenario: Scenario, plan: RunPlan) -> None:
    """Refuse a network whose constants were never fitted."""
    network = plan.cluster.network
    for direction, name in enumerate(network.fitted or ()):
        try:
            fitted_group(network, direction, plan.precision.dispatch)
        except InputError as error:
            raise scenario.error("cluster.network.fitted", name, str(error)) from None


def _check_capacity(scenario: Scenario, plan: RunPlan) -> None:
    capacity = scenario.spec.routing.capacity
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
    if capacity.fallback == "shared-expert" and not plan.model.n_shared_experts:
        raise scenario.error("routing.capacity.fallback", capacity.fallback, f"residual: {plan.model.name} has none")
    if capacity.pad and plan.copy_rule == "all":
        raise scenario.error("routing.capacity.pad", True, "false with a network whose copies go to all")
    if capacity.pad and capacity.scope != "source-rank":
        raise scenario.error("routing.capacity.pad", True, "scope source-rank, whose ranks each send their padding")
    if OVERFLOWS[capacity.overflow].reroutes_as and plan.is_recorded:
        raise scenario.error(
            "routing.capacity.overflow", capacity.overflow, "one that drops: a trace of choices has no other scores"
        )
    if capacity.pad and plan.micro_batches > 1:
        raise scenario.error("routing.capacity.pad", True, "false with simulation.overlap two-batch")
    _check_capacity_of_groups(scenario, plan, capacity)
    copies = plan.placement.expert.shape[1] - plan.placement.n_experts
    if copies and (capacity.scope == "device" or capacity.overflow == "expanded-drop"):
        raise scenario.error("placement.redundant_experts", copies, "0, as the policy asks for the device of an expert")


def _check_capacity_of_groups(scenario: Scenario, plan: RunPlan, capacity: CapacitySpec) -> None:
    """Refuse a policy that counts tokens of other groups, or needs the one GPU of an expert which several share."""
    n_groups, shared_by = plan.placement.n_groups, plan.placement.expert_tp
    by_device = capacity.scope == "device" or capacity.overflow == "expanded-drop"
    for field, wrong, wanted in (
        ("pad", capacity.pad, "false"),
        ("scope", n_groups > 1 and capacity.scope == "global", "source-rank or sequence"),
        ("scope", capacity.scope == "device", "source-rank or sequence"),
        ("overflow", by_device, "one that does not ask for the device of an expert"),
    ):
        if wrong and (n_groups > 1 or shared_by > 1):
            why = f"{n_groups} expert-parallel groups" if n_groups > 1 else f"{shared_by} GPUs that share each expert"
            raise scenario.error(f"routing.capacity.{field}", getattr(capacity, field), f"{wanted}, as there are {why}")


def _check_balancer(scenario: Scenario, plan: RunPlan) -> None:
    substitution = scenario.spec.routing.substitution
    if substitution is None:
        return
    if plan.is_recorded:
        raise scenario.error("routing.substitution", substitution.policy, "none: a trace of choices has no scores")
    if substitution.policy != "node-limited":
        return
    n_nodes, n_experts = plan.group_nodes, plan.model.n_experts
    own_node = np.arange(n_experts) // (n_experts // n_nodes)
    ranks = map(plan.placement.rank_of_expert, range(len(plan.placement.expert)))
    if not all(np.array_equal(rank // plan.cluster.gpus_per_node, own_node) for rank in ranks):
        raise scenario.error(
            "routing.substitution.policy", "node-limited", "a placement of consecutive experts on each node"
        )


def _check_queues(scenario: Scenario, plan: RunPlan) -> None:
    """Refuse queues where they are not possible, and settings of queues where experts are not queued."""
    spec = scenario.spec.simulation
    if plan.queues is not None and (plan.placement.n_groups > 1 or plan.placement.expert_tp > 1):
        raise scenario.error(
            "simulation.experts", "queued", "grouped, unless all GPUs are one expert-parallel group and share no expert"
        )
    if plan.queues is None:
        if spec.queue_tokens is not None or spec.queue_overflow != "drop":
            name = "queue_overflow" if spec.queue_tokens is None else "queue_tokens"
            raise scenario.error(
                f"simulation.{name}", getattr(spec, name), "it together with simulation.experts: queued"
            )
        return
    widths = {each.shape.moe_intermediate_size for each in plan.model.layers if each.shape.n_experts}
    if len(widths) > 1:
        wanted = f"grouped, as the experts of {plan.model.name} are not equally wide in all layers"
        raise scenario.error("simulation.experts", "queued", wanted)
    if spec.engine == "compiled":
        raise scenario.error("simulation.engine", "compiled", "auto or simpy, which runs queued experts")
    if plan.forwards_overflow and plan.is_recorded:
        raise scenario.error(
            "simulation.queue_overflow", "next", "drop or block: a trace of choices has no other scores"
        )
    if spec.queue_overflow != "drop" and spec.queue_tokens is None:
        raise scenario.error("simulation.queue_tokens", None, "a number of tokens, beyond which a queue is full")
    capacity = scenario.spec.routing.capacity
    if capacity is not None and capacity.pad:
        raise scenario.error("routing.capacity.pad", True, "false with queued experts")


def _check_balancing(scenario: Scenario, plan: RunPlan) -> None:
    training = scenario.spec.routing.training
    if training is None:
        return
    if plan.is_recorded:
        raise scenario.error("routing.training", "a mechanism", "none: a trace holds the choices of its router")
    unbiased = [router.strategy.name for router in plan.routers if not router.strategy.takes_bias]
    if training.mechanism == "loss-free" and unbiased:
        wanted = f"none or aux-loss: {unbiased[0]} has no selection bias"
        raise scenario.error("routing.training.mechanism", training.mechanism, wanted)


def _check_memory(scenario: Scenario, plan: RunPlan) -> None:
    """Refuse a model that does not fit the memory of the GPU that holds most slots, or of one that has tokens alone."""
    placement = plan.placement
    tokens = -(-plan.source.tokens_per_step // plan.n_source_ranks)
    if scenario.spec.workload.pattern is not None:  # whose ranks may have unequal numbers of tokens
        tokens = int(np.bincount(plan.source.batch(0).source).max())
    work = equal_work(plan, plan.sequences, np.full(plan.parallelism.attention_tp, tokens))
    slots = int(np.bincount(placement.rank, minlength=plan.cluster.n_gpus).max())
    apart = plan.n_source_ranks < plan.cluster.n_gpus
    for slots_per_gpu, source in ((0, True), (slots, False)) if apart else ((slots, True),):
        try:
            check_memory(
                plan.model,
                plan.cluster,
                plan.precision,
                work,
                slots_per_gpu=slots_per_gpu,
                parallelism=scenario.parallelism,
                n_slots=placement.expert.shape[1] // placement.n_groups,
                n_sources=plan.n_source_ranks // placement.n_groups,
                source=source,
            )
        except TooLargeError as error:
            raise scenario.refusal("cluster", str(error)) from None


def run_bytes(plan: RunPlan, threads: int | None = None) -> tuple[int, int]:
    """Estimates of the memory of a run's result frames and of all of it, in bytes.

    Args:
        plan: of the run.
        threads: over layers; `default_threads` where there is no number.
    """
    model, n_gpus, keep = plan.model, plan.cluster.n_gpus, plan.keep
    n_layers, n_slots = plan.placement.expert.shape
    frames = frames_bytes(
        n_steps=plan.n_steps,
        n_layers=n_layers,
        n_experts=model.n_experts if keep.experts == "steps" else 0,
        n_gpus=n_gpus,
        timeline_steps=min(keep.timeline_steps, plan.n_steps),
        n_operations=7 * model.n_layers * plan.micro_batches,
    )
    # a layer's ids, weights and flags for every thread, and the step's matrices (requested and evenly spread)
    at_once = min(threads_or_default(threads), n_layers)
    tokens = plan.source.tokens_per_step * (16 + 40 * max(plan.model.choices_of_layer)) * at_once
    whole = any(router.strategy.scope == "batch" for router in plan.routers)
    if whole or (plan.keeps_scores and not plan.is_recorded):
        # logits, probabilities, order and flags of a whole layer for every thread
        tokens += plan.source.tokens_per_step * 24 * model.n_experts * at_once
    step = 16 * n_layers * (8 * model.n_experts + 4 * n_slots + 6 * n_gpus * n_gpus * plan.micro_batches)
    return frames, frames + tokens + step


def free_bytes() -> int:
    """Memory that this machine has free."""
    return int(psutil.virtual_memory().available)


def _check_run_size(scenario: Scenario, plan: RunPlan) -> None:
    """Refuse a run that this machine's memory cannot hold, with the estimate."""
    (frames, needed), available = run_bytes(plan), free_bytes()
    if needed > available:
        raise scenario.error(
            "workload",
            f"{plan.n_steps:,} steps of {plan.source.tokens_per_step:,} tokens, about {needed / 1e9:,.1f} GB "
            f"({frames / 1e9:,.1f} GB of result frames)",
            f"at most the {available / 1e9:,.1f} GB that this machine has free: fewer steps, tokens or GPUs",
        )
