"""The program of a step: its operations, how long each takes, and which ones each waits for."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from moesim.engine import Collective, balanced_traffic, lay_out
from moesim.hardware import Durations, step_durations
from moesim.simulation.exchanges import exchanges
from moesim.simulation.failures import NEVER, Outages, usable_slots
from moesim.simulation.plan import RunPlan
from moesim.simulation.routing_step import micro_batches_of
from moesim.simulation.work import work_of
from moesim.types import AttentionWork, Placement, Program, RoutedStep, Traffic


def lay_out_step(plan: RunPlan, routed: RoutedStep, outages: Outages | None = None) -> Program:
    """The program of a step, without the GPUs that are missing when it begins."""
    return _without_missing(_lay_out(plan, routed, routed.micro_traffic, routed.capacity), outages)


def lay_out_evenly(plan: RunPlan, routed: RoutedStep, outages: Outages | None = None) -> Program:
    """The program of the same step with its load spread evenly over the GPUs that are present."""
    even = balanced_traffic(
        routed.micro_traffic,
        routed.placement,
        gpus_per_node=plan.cluster.gpus_per_node,
        copy_rule=plan.copy_rule,
        usable=None if outages is None else usable_slots(routed.placement, outages.missing),
        levels=plan.cluster.levels,
    )
    return _without_missing(_lay_out(plan, routed, even, None), outages)


def _without_missing(program: Program, outages: Outages | None) -> Program:
    if outages is None or not outages.missing.any():
        return program
    return dataclasses.replace(program, lost_ps=np.where(outages.missing, 0, NEVER))


def _lay_out(plan: RunPlan, routed: RoutedStep, traffic: Traffic, capacity: NDArray[np.int64] | None) -> Program:
    cluster, model, placement = plan.cluster, plan.model, routed.placement
    parts = [routed.batch.part(own) for own in micro_batches_of(routed.batch, plan.micro_batches)]
    work = [work_of(plan, part) for part in parts]
    whole = work[0] if len(work) == 1 else work_of(plan, routed.batch)
    dispatch, combine = exchanges(plan, [own.tokens for own in work])
    durations = [
        # the head is computed for all tokens at once
        _durations(
            plan,
            placement,
            dataclasses.replace(own, logit_rows=whole.logit_rows),
            traffic.slot_tokens[b :: plan.micro_batches],
        )
        for b, own in enumerate(work)
    ]
    if plan.micro_batches > 1:
        durations[-1] = _with_earlier_tokens(plan, routed, work, whole, durations)
    return lay_out(
        model,
        durations=durations,
        traffic=traffic,
        placement=placement,
        capacity=capacity,
        collective=Collective(
            copy_rule=plan.ports_rule,
            gpus_per_node=cluster.gpus_per_node,
            dispatch=dispatch,
            combine=combine,
            network=plan.network,
            synchronous=cluster.network.fitted is not None,
            levels=cluster.levels,
        ),
        overlap=plan.overlap,
        overlap_slowdown=plan.overlap_slowdown,
    )


def _with_earlier_tokens(
    plan: RunPlan, routed: RoutedStep, work: list[AttentionWork], whole: AttentionWork, durations: list[Durations]
) -> Durations:
    """The last micro-batch with what its tokens attend to in equal prompts that begin in earlier ones.

    Equal prompts are counted by their tokens alone, so that a micro-batch does
    not know that a prompt of it began before. Others know what is cached.
    """
    last, alike = durations[-1], routed.batch.alike
    if alike is None or alike.decodes or not any((own.tokens % alike.length).any() for own in work[:-1]):
        return last
    placement = routed.placement
    undivided = _durations(plan, placement, whole, np.zeros_like(placement.expert, dtype=np.int64)).attention
    missing = undivided - np.sum([each.attention for each in durations], axis=0)
    return dataclasses.replace(last, attention=last.attention + np.maximum(missing, 0.0))


def _durations(plan: RunPlan, placement: Placement, work: AttentionWork, slot_tokens: NDArray[np.int64]) -> Durations:
    return step_durations(
        plan.model,
        plan.cluster,
        plan.precision,
        work,
        slot_tokens=slot_tokens,
        slot_rank=placement.rank,
        parallelism=plan.parallelism,
        kernels=plan.kernels,
        comm_sms=plan.comm_sms,
        splits_attention=plan.overlap == "two-batch-decode",
    )
