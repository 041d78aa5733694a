"""One step's tokens on their way from logits to slots: a layer is the unit of work of a thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.count import count
from moesim.kernels.random import CAPACITY, key
from moesim.placement import assign_slots, traffic_of_layer
from moesim.routing import apply_capacity
from moesim.simulation.stages import Stages
from moesim.types import Assignment, Batch, Draw, Placement, RoutedStep, Traffic
from moesim.workload import RecordedTokens

BLOCK_TOKENS = 1024
"""Tokens whose logits are held at a time by one thread."""


@dataclass
class Profile:
    """Wall seconds by stage, for the manifest."""

    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("generate", "route", "place", "layout", "engine", "metrics"), 0.0)
    )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start


def route_step(stages: Stages, step: int, pool: ThreadPoolExecutor, profile: Profile) -> RoutedStep:
    """Route all MoE layers of a step; a layer is the unit of work of a thread."""
    batch = stages.source.batch(step)
    n_layers = len(stages.model.moe_layers)
    layers = list(pool.map(lambda layer: _route_layer(stages, batch, layer), range(n_layers)))
    for result in layers:
        for stage, seconds in result.seconds.items():
            profile.seconds[stage] += seconds

    def stack(name: str) -> NDArray[np.int64]:
        return np.stack([getattr(layer, name) for layer in layers])

    traffic = Traffic(
        slot_tokens=stack("slot_tokens"),
        copies=stack("copies"),
        node_copies=stack("node_copies"),
    )
    return RoutedStep(
        batch=batch,
        requested=stack("requested"),
        processed=stack("processed"),
        dropped=stack("dropped"),
        rerouted_in=stack("rerouted_in"),
        rerouted_away=stack("rerouted_away"),
        choices=np.array([layer.choices for layer in layers], dtype=np.int64),
        lost_tokens=np.array([layer.lost_tokens for layer in layers], dtype=np.int64),
        slot_load=_slot_load(stages.placement, traffic.slot_tokens),
        capacity=stack("capacity"),
        traffic=traffic,
    )


@dataclass(frozen=True, kw_only=True)
class _RoutedLayer:
    requested: NDArray[np.int64]
    processed: NDArray[np.int64]
    dropped: NDArray[np.int64]
    rerouted_in: NDArray[np.int64]
    rerouted_away: NDArray[np.int64]
    choices: int
    lost_tokens: int
    capacity: NDArray[np.int64]
    slot_tokens: NDArray[np.int64]
    copies: NDArray[np.int64]
    node_copies: NDArray[np.int64]
    seconds: dict[str, float]


def _route_layer(stages: Stages, batch: Batch, layer: int) -> _RoutedLayer:
    profile = Profile()
    assignment = _request(stages, batch, layer, profile)
    with profile.timed("route"):
        assignment = _apply_capacity(stages, batch, assignment, layer)
    n_experts = stages.model.n_experts
    with profile.timed("place"):
        slot = assign_slots(assignment.served, batch.source, stages.placement, layer)
        slot_tokens, copies, node_copies = traffic_of_layer(
            slot,
            batch.source,
            stages.placement,
            copies_rule=stages.cluster.network.copies,
            gpus_per_node=stages.cluster.gpus_per_node,
        )
    with profile.timed("metrics"):
        expert, served = assignment.expert, assignment.served
        return _RoutedLayer(
            requested=count(expert, n_experts),
            processed=count(served, n_experts),
            dropped=count(expert, n_experts, assignment.dropped),
            rerouted_in=count(served, n_experts, assignment.rerouted),
            rerouted_away=count(expert, n_experts, assignment.rerouted),
            choices=int(np.count_nonzero(expert >= 0)),
            lost_tokens=int(np.count_nonzero((expert >= 0).any(axis=1) & ~(served >= 0).any(axis=1))),
            capacity=_slot_capacity(assignment, stages.placement),
            slot_tokens=slot_tokens,
            copies=copies,
            node_copies=node_copies,
            seconds=profile.seconds,
        )


def _slot_load(placement: Placement, slot_tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens of all slots of each expert, [L, E]."""
    load = np.zeros((len(slot_tokens), placement.n_experts), dtype=np.int64)
    np.add.at(load, (np.arange(len(load))[:, None], placement.expert), slot_tokens)
    return load


def _slot_capacity(assignment: Assignment, placement: Placement) -> NDArray[np.int64]:
    """What each slot may admit, [S]: an expert's capacity summed over the scopes of its step, -1 = unlimited."""
    limit = -1 if np.any(assignment.capacity < 0) else int(assignment.capacity.sum())
    return np.full(placement.expert.shape[1], limit, dtype=np.int64)


def _request(stages: Stages, batch: Batch, layer: int, profile: Profile) -> Assignment:
    """Who the tokens of one layer ask for: recorded, or generated and gated block by block."""
    source, strategy = stages.source, stages.strategy
    if isinstance(source, RecordedTokens) or strategy is None:
        assert isinstance(source, RecordedTokens)
        with profile.timed("generate"):
            return source.assignment(batch.step, layer)
    n_tokens, n_experts = batch.n_tokens, stages.model.n_experts
    if stages.scenario.spec.workload.sampling == "direct":
        return _draw_directly(stages, batch, layer, profile)
    if strategy.scope == "batch":
        return _route_whole(stages, batch, layer, profile)
    expert = np.empty((n_tokens, stages.top_k), dtype=np.int32)
    weight = np.empty((n_tokens, stages.top_k), dtype=np.float32)
    scratch = np.empty((min(BLOCK_TOKENS, n_tokens), n_experts), dtype=np.float32)
    for first in range(0, n_tokens, BLOCK_TOKENS):
        last = min(first + BLOCK_TOKENS, n_tokens)
        logits = scratch[: last - first]
        with profile.timed("generate"):
            source.logits(batch.step, layer, first, last, logits)
        with profile.timed("route"):
            draw = Draw(
                seed=stages.scenario.spec.seed,
                step=batch.step,
                layer=layer,
                first_token=first,
                token_ids=None if batch.token_ids is None else batch.token_ids[first:last],
            )
            block = strategy.route(logits, stages.top_k, stages.parameters, None, draw)
            expert[first:last] = block.expert
            weight[first:last] = block.weight
    return Assignment.of(expert, weight)


def _draw_directly(stages: Stages, batch: Batch, layer: int, profile: Profile) -> Assignment:
    """Ids without logits, where nobody reads weights: these are NaN, so that who does read them sees it."""
    assert not isinstance(stages.source, RecordedTokens)
    expert = np.empty((batch.n_tokens, stages.top_k), dtype=np.int32)
    with profile.timed("generate"):
        stages.source.experts(batch.step, layer, 0, batch.n_tokens, expert)
    return Assignment.of(expert, np.broadcast_to(np.float32(np.nan), expert.shape))


def _route_whole(stages: Stages, batch: Batch, layer: int, profile: Profile) -> Assignment:
    """For routers that must see all tokens of a layer at once."""
    assert stages.strategy is not None
    assert not isinstance(stages.source, RecordedTokens)
    logits = np.empty((batch.n_tokens, stages.model.n_experts), dtype=np.float32)
    with profile.timed("generate"):
        stages.source.logits(batch.step, layer, 0, batch.n_tokens, logits)
    with profile.timed("route"):
        draw = Draw(seed=stages.scenario.spec.seed, step=batch.step, layer=layer, token_ids=batch.token_ids)
        return stages.strategy.route(logits, stages.top_k, stages.parameters, None, draw)


def _capacity_seed(stages: Stages, step: int, layer: int) -> int:
    """A seed of its own for every step and layer, for policies that draw."""
    return int(key(stages.scenario.spec.seed, CAPACITY, step, layer, 0)) >> 1


def _apply_capacity(stages: Stages, batch: Batch, assignment: Assignment, layer: int) -> Assignment:
    capacity = stages.scenario.spec.routing.capacity
    if capacity is None:
        return assignment
    groups = {"source-rank": batch.source, "sequence": batch.sequence}
    return apply_capacity(
        assignment,
        n_experts=stages.model.n_experts,
        capacity_factor=capacity.factor,
        overflow=capacity.overflow,
        scope=capacity.scope,
        minimum=capacity.minimum,
        rounding=capacity.rounding,
        seed=_capacity_seed(stages, batch.step, layer),
        source=groups.get(capacity.scope),
    )
