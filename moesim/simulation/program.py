"""The program of a step: what its parts take, and when what follows what."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from moesim.engine import balanced_traffic, lay_out
from moesim.hardware import Durations, step_durations
from moesim.simulation.exchanges import exchanges
from moesim.simulation.losses import FOR_EVER, Lost, usable_slots
from moesim.simulation.routed import micro_batches_of
from moesim.simulation.stages import Stages
from moesim.simulation.work import equal_work
from moesim.types import AttentionWork, Program, RoutedStep, Traffic


def lay_out_step(stages: Stages, routed: RoutedStep, lost: Lost | None = None) -> Program:
    """The program of the step, without the GPUs that are lost when it begins."""
    return _without_gone(_lay_out(stages, routed, routed.micro_traffic, routed.capacity), lost)


def lay_out_evenly(stages: Stages, routed: RoutedStep, lost: Lost | None = None) -> Program:
    """The program of the same step with its load spread evenly."""
    even = balanced_traffic(
        routed.micro_traffic,
        stages.placement,
        gpus_per_node=stages.cluster.gpus_per_node,
        copy_rule=stages.copy_rule,
        usable=None if lost is None else usable_slots(stages.placement, lost.gone),
    )
    return _without_gone(_lay_out(stages, routed, even, None), lost)


def _without_gone(program: Program, lost: Lost | None) -> Program:
    if lost is None or not lost.gone.any():
        return program
    return dataclasses.replace(program, lost_ps=np.where(lost.gone, 0, FOR_EVER))


def _lay_out(stages: Stages, routed: RoutedStep, traffic: Traffic, capacity: NDArray[np.int64] | None) -> Program:
    cluster, model, placement = stages.cluster, stages.model, stages.placement
    tokens = [
        np.bincount(routed.batch.source[own], minlength=cluster.n_gpus).astype(np.int64)
        for own in micro_batches_of(routed.batch, stages.micro_batches)
    ]
    dispatch, combine = exchanges(stages, tokens)
    whole = equal_work(stages, np.sum(tokens, axis=0))
    durations = [
        # the head is computed for all tokens at once
        _durations(
            stages,
            dataclasses.replace(equal_work(stages, own), logit_rows=whole.logit_rows),
            traffic.slot_tokens[b :: stages.micro_batches],
        )
        for b, own in enumerate(tokens)
    ]
    if stages.micro_batches > 1:
        durations[-1] = _with_earlier_tokens(stages, tokens, whole, durations)
    return lay_out(
        n_layers=model.n_layers,
        dense_layers=model.dense_layers,
        layer_class=model.class_of_layer,
        durations=durations,
        head=durations[0].head,
        traffic=traffic,
        placement=placement,
        capacity=capacity,
        copy_rule=stages.ports_rule,
        gpus_per_node=cluster.gpus_per_node,
        dispatch=dispatch,
        combine=combine,
        shared_layers=model.shared_layers,
        overlap=stages.overlap,
        overlap_slowdown=stages.scenario.spec.simulation.overlap_slowdown,
        network=stages.scenario.spec.simulation.network,
        synchronous=cluster.network.fitted is not None,
    )


def _with_earlier_tokens(
    stages: Stages, tokens: list[NDArray[np.int64]], whole: AttentionWork, durations: list[Durations]
) -> Durations:
    """The last micro-batch with what its tokens attend to in prompts that begin in earlier ones."""
    workload, last = stages.scenario.spec.workload, durations[-1]
    if workload.phase == "decode" or not any((own % workload.sequence_tokens).any() for own in tokens[:-1]):
        return last
    undivided = _durations(stages, whole, np.zeros_like(stages.placement.expert, dtype=np.int64)).attention
    missing = undivided - np.sum([each.attention for each in durations], axis=0)
    return dataclasses.replace(last, attention=last.attention + np.maximum(missing, 0.0))


def _durations(stages: Stages, work: AttentionWork, slot_tokens: NDArray[np.int64]) -> Durations:
    return step_durations(
        stages.model,
        stages.cluster,
        stages.precision,
        work,
        slot_tokens=slot_tokens,
        slot_rank=stages.placement.rank,
        parallelism=stages.scenario.parallelism,
        kernels=stages.kernels,
        comm_sms=stages.comm_sms,
    )
