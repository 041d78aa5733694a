"""The tokens of one step on their way from their choices to slots: a layer is the unit of work of a thread."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.count import count
from moesim.compiled.random import CAPACITY, key
from moesim.placement import assign_slots, traffic_of_layer
from moesim.routing import apply_capacity
from moesim.simulation.failures import Outages, usable_slots, without
from moesim.simulation.gating import request
from moesim.simulation.plan import RunPlan
from moesim.simulation.profile import Profile
from moesim.simulation.queue_step import alternates_of, groups_of
from moesim.simulation.router_dynamics import RouterDynamics, RouterUpdate, router_step
from moesim.simulation.state import RunState
from moesim.types import Assignment, Batch, Placement, RoutedStep, RouterState, TokenGroups, Traffic


def route_step(
    plan: RunPlan,
    state: RunState,
    batch: Batch,
    outages: Outages | None = None,
    *,
    pool: Executor | None = None,
    profile: Profile | None = None,
) -> RoutedStep:
    """Route the tokens of a step through all MoE layers, to the slots of the state's placement.

    Args:
        plan: of the run.
        state: before the step; its routers give the choices.
        batch: the tokens; those of missing GPUs are left out.
        outages: GPUs that are missing or fail; None = none.
        pool: threads, to each of which a layer is a unit of work; None = one layer after the other.
        profile: where the wall time of the stages is added.
    """
    outages = outages or Outages.none(plan.cluster.n_gpus)
    present = ~outages.missing[batch.source]
    routers: Sequence[RouterState | None] = state.routers or [None] * len(plan.model.moe_layers)

    def route_layer(layer: int) -> _RoutedLayer:
        return _route_layer(plan, state.placement, batch, layer, routers[layer], outages)

    layers = list((map if pool is None else pool.map)(route_layer, range(len(routers))))
    if profile is not None:
        for result in layers:
            profile.add(result.seconds)

    def stack(name: str) -> NDArray[np.int64]:
        return np.stack([getattr(layer, name) for layer in layers])

    micro = Traffic(  # [layers x micro-batches, ...]
        slot_tokens=np.concatenate([layer.slot_tokens for layer in layers]),
        copies=np.concatenate([layer.copies for layer in layers]),
        node_copies=np.concatenate([layer.node_copies for layer in layers]),
    )
    traffic = _over_micro_batches(micro, plan.micro_batches)
    recorded = plan.is_recorded or bool(plan.unrecorded_layers)  # where a recording holds no choice, it is not known
    return RoutedStep(
        batch=batch if present.all() else batch.part(present),
        placement=state.placement,
        requested=stack("requested"),
        processed=stack("processed"),
        dropped=stack("dropped"),
        rerouted_in=stack("rerouted_in"),
        rerouted_away=stack("rerouted_away"),
        choices=np.array([layer.choices for layer in layers], dtype=np.int64),
        zero_choices=np.array([layer.zero_choices for layer in layers], dtype=np.int64),
        lost_tokens=np.array([layer.lost_tokens for layer in layers], dtype=np.int64),
        unrouted_tokens=np.array([0 if recorded else layer.unrouted_tokens for layer in layers], dtype=np.int64),
        recorded_tokens=np.array([present.sum() - layer.unrouted_tokens for layer in layers]) if recorded else None,
        slot_load=_slot_load(state.placement, traffic.slot_tokens - stack("padding")),
        capacity=stack("capacity"),
        padding=stack("padding"),
        causes=stack("causes"),
        groups=tuple(groups for layer in layers for groups in layer.groups),
        traffic=traffic,
        micro_traffic=micro,
        router=router_step([layer.router for layer in layers if layer.router is not None]),
    )


def _over_micro_batches(micro: Traffic, micro_batches: int) -> Traffic:
    """The traffic of whole layers."""

    def total(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(counts.reshape(len(counts) // micro_batches, micro_batches, *counts.shape[1:]).sum(axis=1))

    if micro_batches == 1:
        return micro
    return Traffic(
        slot_tokens=total(micro.slot_tokens), copies=total(micro.copies), node_copies=total(micro.node_copies)
    )


@dataclass(frozen=True, kw_only=True)
class _RoutedLayer:
    """One layer; slot_tokens, copies and node_copies have a row for each micro-batch."""

    router: RouterUpdate | None
    groups: tuple[TokenGroups, ...]
    requested: NDArray[np.int64]
    processed: NDArray[np.int64]
    dropped: NDArray[np.int64]
    rerouted_in: NDArray[np.int64]
    rerouted_away: NDArray[np.int64]
    choices: int
    zero_choices: int
    lost_tokens: int
    unrouted_tokens: int
    capacity: NDArray[np.int64]
    padding: NDArray[np.int64]
    causes: NDArray[np.int64]
    slot_tokens: NDArray[np.int64]
    copies: NDArray[np.int64]
    node_copies: NDArray[np.int64]
    seconds: dict[str, float]


def _route_layer(
    plan: RunPlan, placement: Placement, batch: Batch, layer: int, state: RouterState | None, outages: Outages
) -> _RoutedLayer:
    profile = Profile()
    dynamics = RouterDynamics.of(plan, layer, state)
    present = ~outages.missing[batch.source]
    assignment, scores = request(plan, batch, present, layer, dynamics, profile)
    if not present.all():
        batch = batch.part(present)
    with profile.timed("route"):
        router = None if dynamics is None else dynamics.update(plan, batch, assignment)
        unrouted = assignment.unrouted_tokens()
        assignment, zero_choices, served_by_zero = _without_zero_experts(plan, assignment)
        assignment = _apply_capacity(plan, placement, batch, assignment, scores, layer)
    n_experts = plan.model.n_experts
    with profile.timed("place"):
        assignment, slot = _slots(plan, placement, batch, assignment, layer, outages)
        micro = [
            traffic_of_layer(
                slot[tokens],
                batch.source[tokens],
                placement,
                copy_rule=plan.copy_rule,
                gpus_per_node=plan.cluster.gpus_per_node,
            )
            for tokens in micro_batches_of(batch, plan.micro_batches)
        ]
        slot_tokens, copies, node_copies = (np.stack(counts) for counts in zip(*micro, strict=True))
        groups = _groups(plan, placement, batch, assignment, slot, scores, layer) if plan.queues is not None else ()
        padding = _pad(plan, placement, assignment, layer, slot_tokens[0], copies[0], node_copies[0])
    with profile.timed("metrics"):
        expert, served = assignment.expert, assignment.served
        requested = count(expert, n_experts)
        return _RoutedLayer(
            router=router,
            groups=groups,
            requested=requested,
            processed=requested if served is expert else count(served, n_experts),
            dropped=count(expert, n_experts, assignment.dropped),
            rerouted_in=count(served, n_experts, assignment.rerouted),
            rerouted_away=count(expert, n_experts, assignment.rerouted),
            choices=int(np.count_nonzero(expert >= 0)),
            zero_choices=zero_choices,
            lost_tokens=assignment.lost_tokens(served_by_zero),
            unrouted_tokens=unrouted,
            capacity=_slot_capacity(assignment, placement),
            padding=padding,
            causes=np.array([0, *assignment.by_cause().values()], dtype=np.int64),
            slot_tokens=slot_tokens,
            copies=copies,
            node_copies=node_copies,
            seconds=profile.seconds,
        )


def _slots(
    plan: RunPlan, placement: Placement, batch: Batch, assignment: Assignment, layer: int, outages: Outages
) -> tuple[Assignment, NDArray[np.int32]]:
    """The slot of each choice [T, K]; choices that are lost with a GPU are dropped."""
    if not outages.any:
        return assignment, assign_slots(assignment.served, batch.source, placement, layer)
    slot = np.full(assignment.served.shape, -1, dtype=np.int32)
    refused = np.zeros(slot.shape, dtype=np.bool_)
    for b, tokens in enumerate(micro_batches_of(batch, plan.micro_batches)):
        undeliverable, avoided, lost = outages.masks(layer * plan.micro_batches + b)
        usable = usable_slots(placement, avoided)
        served, source = assignment.served[tokens], batch.source[tokens]
        own = assign_slots(served, source, placement, layer, usable)
        destroyed = undeliverable[source][:, None] | ((own >= 0) & lost[placement.rank[own]])
        refused[tokens] = (served >= 0) & (destroyed | (own < 0))
        slot[tokens] = np.where(refused[tokens], np.int32(-1), own)
    return without(assignment, refused), slot


def _groups(
    plan: RunPlan,
    placement: Placement,
    batch: Batch,
    assignment: Assignment,
    slot: NDArray[np.int32],
    scores: NDArray[np.float32] | None,
    layer: int,
) -> tuple[TokenGroups, ...]:
    """The tokens as they queue at the slots, of each micro-batch."""
    alternates = np.empty((batch.n_tokens, 0), dtype=np.int32)
    if plan.forwards_overflow:
        assert scores is not None
        chosen = np.concatenate([assignment.expert, assignment.served], axis=1)
        alternates = alternates_of(chosen, scores[:, : plan.model.n_experts])[:, : plan.model.choices_of_layer[layer]]
    n_slots = placement.expert.shape[1]
    return tuple(
        groups_of(slot[tokens], batch.source[tokens], n_slots, alternates[tokens])
        for tokens in micro_batches_of(batch, plan.micro_batches)
    )


def micro_batches_of(batch: Batch, micro_batches: int) -> list[NDArray[np.int64] | slice]:
    """Tokens of each micro-batch: the first half of every rank's and the rest."""
    if micro_batches == 1:
        return [slice(None)]
    order = np.argsort(batch.source, kind="stable")
    count = np.bincount(batch.source)
    place = np.empty(batch.n_tokens, dtype=np.int64)  # of a token among those of its rank
    place[order] = np.arange(batch.n_tokens) - np.repeat(np.cumsum(count) - count, count)
    which = place * micro_batches // count[batch.source]
    return [np.flatnonzero(which == b) for b in range(micro_batches)]


def _slot_load(placement: Placement, slot_tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens of all slots of each expert, [L, E]."""
    load = np.zeros((len(slot_tokens), placement.n_experts), dtype=np.int64)
    np.add.at(load, (np.arange(len(load))[:, None], placement.expert), slot_tokens)
    return load


def _slot_capacity(assignment: Assignment, placement: Placement) -> NDArray[np.int64]:
    """What each slot may admit, [S]: an expert's capacity summed over the scopes of its step, -1 = unlimited."""
    limit = -1 if np.any(assignment.capacity < 0) else int(assignment.capacity.sum())
    return np.full(placement.expert.shape[1], limit, dtype=np.int64)


def _pad(
    plan: RunPlan,
    placement: Placement,
    assignment: Assignment,
    layer: int,
    slot_tokens: NDArray[np.int64],
    copies: NDArray[np.int64],
    node_copies: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Rows [S] that fill the first slot of each expert up to its capacity; they are sent like copies of tokens."""
    padding = np.zeros(placement.expert.shape[1], dtype=np.int64)
    if assignment.padding is None:
        return padding
    expert, first_slot = np.unique(placement.expert[layer], return_index=True)
    rank = placement.rank[first_slot]
    for source, rows in enumerate(assignment.padding):  # scopes are the source ranks, in their order
        padding[first_slot] += rows[expert]
        np.add.at(copies[source], rank, rows[expert])
        if node_copies.size:
            np.add.at(node_copies[source], rank // plan.cluster.gpus_per_node, rows[expert])
    slot_tokens += padding
    return padding


def _without_zero_experts(plan: RunPlan, assignment: Assignment) -> tuple[Assignment, int, NDArray[np.bool_] | None]:
    """Choices of experts that compute nothing need no place and no copy: they become -1.

    With how many they are, and the tokens [T] that have one (None = no token has).
    """
    zero = assignment.expert >= plan.model.n_experts
    n_zero = int(np.count_nonzero(zero))
    if n_zero == 0:
        return assignment, 0, None
    expert = np.where(zero, np.int32(-1), assignment.expert)
    weight = np.where(zero, np.float32(0), assignment.weight)
    return Assignment.of(expert, weight), n_zero, np.asarray(zero.any(axis=1), dtype=np.bool_)


def _capacity_seed(plan: RunPlan, step: int, layer: int) -> int:
    """A seed of its own for every step and layer, for policies that draw."""
    return int(key(plan.seed, CAPACITY, step, layer, 0)) >> 1


def _apply_capacity(
    plan: RunPlan,
    placement: Placement,
    batch: Batch,
    assignment: Assignment,
    scores: NDArray[np.float32] | None,
    layer: int,
) -> Assignment:
    capacity = plan.capacity
    if capacity is None:
        return assignment
    factor = capacity.factor
    if not plan.is_training and capacity.evaluation_factor is not None:
        factor = capacity.evaluation_factor
    local = capacity.overflow == "expanded-drop"
    return apply_capacity(
        assignment,
        n_experts=plan.model.n_experts,
        capacity_factor=factor,
        overflow=capacity.overflow,
        scope=capacity.scope,
        minimum=capacity.minimum,
        rounding=capacity.rounding,
        scores=scores if scores is None or not plan.keeps_scores else scores[:, : plan.model.n_experts],
        seed=_capacity_seed(plan, batch.step, layer),
        source=batch.sequence if capacity.scope == "sequence" else batch.source,
        device=placement.rank_of_expert(layer) if local or capacity.scope == "device" else None,
        tries=capacity.tries,
        fallback=capacity.fallback,
        pad=capacity.pad,
    )
