"""Experts as servers with queues: choices become groups of tokens, and what the queues did becomes loads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from moesim.engine import run_queued
from moesim.hardware import ExpertShape, expert_kernel
from moesim.hardware.gpu import without_sms
from moesim.simulation.plan import RunPlan
from moesim.types import (
    QUEUE_FULL,
    TO_NEXT_CHOICE,
    Program,
    QueuedRun,
    Queues,
    RoutedStep,
    TokenGroups,
)
from moesim.types.picoseconds import picoseconds


def groups_of(
    slot: NDArray[np.int32], source: NDArray[np.int32], n_slots: int, alternates: NDArray[np.int32]
) -> TokenGroups:
    """The groups of a layer and micro-batch, from the slot of each choice [T, K] (-1 = none) and source ranks [T]."""
    token, choice = np.nonzero(slot >= 0)
    key = source[token].astype(np.int64) * n_slots + slot[token, choice]
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    source_of, slot_of = np.divmod(key[order][first], n_slots)
    return TokenGroups(
        source=source_of,
        slot=slot_of,
        first=np.append(first, len(order)).astype(np.int64),
        token=token[order].astype(np.int64),
        n_tokens=len(slot),
        alternates=alternates,
    )


def alternates_of(expert: NDArray[np.int32], scores: NDArray[np.float32]) -> NDArray[np.int32]:
    """For each token the K best experts that it did not choose, best first, -1 where there are no more, [T, K].

    Args:
        expert: the choices [T, K], -1 = none.
        scores: [T, E]; -inf = never; of equal ones the lowest expert.
    """
    n_tokens, n_experts = scores.shape
    n = min(expert.shape[1], n_experts)
    # one column more takes what is no choice
    left = np.concatenate([scores, np.empty((n_tokens, 1), dtype=scores.dtype)], axis=1)
    np.put_along_axis(left, np.where(expert < 0, n_experts, expert), -np.inf, axis=1)
    left = left[:, :n_experts]
    best = np.argsort(-left, axis=1, kind="stable")[:, :n].astype(np.int32)
    return np.where(np.take_along_axis(left, best, axis=1) > -np.inf, best, np.int32(-1))


def even_groups(program: Program) -> tuple[TokenGroups, ...]:
    """Groups of a step whose load is spread evenly.

    The assignments of all sources are dealt in turn to the GPUs that hold slots and, on each, to its slots. So all
    GPUs, all slots of a GPU, and all messages of a source differ by one token at most.
    """
    n_slots = len(program.slot_rank)
    holders, gpu, slots = np.unique(program.slot_rank, return_inverse=True, return_counts=True)
    place = np.empty(n_slots, dtype=np.int64)  # of a slot among those of its GPU
    place[np.argsort(gpu, kind="stable")] = np.arange(n_slots) - np.repeat(np.cumsum(slots) - slots, slots)
    turn, round_of_turns = gpu + len(holders) * place, len(holders) * slots[gpu]
    result = []
    for copies in program.copies:
        until = np.cumsum(copies.sum(axis=1))[:, None]  # assignments until-before..until are those of a source
        counts = np.diff((until - turn + round_of_turns - 1) // round_of_turns, axis=0, prepend=0)
        source, slot = np.nonzero(counts)
        first = np.append(0, np.cumsum(counts[source, slot]))
        result.append(
            TokenGroups(
                source=source,
                slot=slot,
                first=first,
                token=np.zeros(int(first[-1]), dtype=np.int64),
                n_tokens=1,
                alternates=np.empty((1, 0), dtype=np.int32),
            )
        )
    return tuple(result)


def run_queues(
    plan: RunPlan, program: Program, routed: RoutedStep, groups: Sequence[TokenGroups], *, limited: bool
) -> QueuedRun:
    """Run a program with these groups; where `limited`, slots have the room of the run's queues, else any room."""
    assert plan.queues is not None
    queues = Queues(
        room=plan.queues.room if limited else None,
        overflow=plan.queues.overflow,
        expert=routed.placement.expert,
        n_experts=routed.placement.n_experts,
    )
    return run_queued(program, groups, queues, service_of(plan, prompts=not routed.batch.decodes.all()))


def service_of(plan: RunPlan, *, prompts: bool) -> Callable[[int], int]:
    """Picoseconds that one expert takes for so many tokens alone."""
    gpu = without_sms(plan.cluster.gpu, plan.comm_sms)
    kernel = expert_kernel(plan.kernels, gpu, plan.precision, prompts=prompts, throttled=prompts)
    # a kernel of its own: one expert, which every row that it is handed has chosen
    shape = dataclasses.replace(ExpertShape.of(plan.model), n_experts=1, top_k=1)

    @cache
    def service_ps(tokens: int) -> int:
        seconds = kernel.time(np.array([[tokens]], dtype=np.int64), shape)
        return int(picoseconds(seconds[0]))

    return service_ps


def after_queues(plan: RunPlan, routed: RoutedStep, run: QueuedRun) -> RoutedStep:
    """The loads of a step after its queues: what these dropped and forwarded is counted, by expert and by cause."""
    n = plan.micro_batches

    def over_micro_batches(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(counts.reshape(len(counts) // n, n, -1).sum(axis=1), dtype=np.int64)

    dropped, away, into = (over_micro_batches(x) for x in (run.dropped, run.rerouted_away, run.rerouted_in))
    causes = routed.causes.copy()
    causes[:, QUEUE_FULL] += dropped.sum(axis=1)
    causes[:, TO_NEXT_CHOICE] += away.sum(axis=1)
    slot_tokens = over_micro_batches(run.admitted)
    slot_load = np.zeros_like(routed.slot_load)
    np.add.at(slot_load, (np.arange(len(slot_load))[:, None], routed.placement.expert), slot_tokens)
    lost = np.array(
        [
            int(((groups_served(own) > 0) & (drops == groups_served(own))).sum())
            for own, drops in zip(routed.groups, run.token_drops, strict=True)
        ],
        dtype=np.int64,
    )
    copies = routed.micro_traffic.copies - run.dropped_copies
    for row, source in np.argwhere((copies < 0).any(axis=2)):
        # dropped by a GPU to which they had been handed on: what it never was sent is taken off where most was
        owed = -int(np.minimum(copies[row, source], 0).sum())
        np.maximum(copies[row, source], 0, out=copies[row, source])
        while owed:
            most = int(copies[row, source].argmax())
            taken = min(owed, int(copies[row, source, most]))
            copies[row, source, most] -= taken
            owed -= taken
    return dataclasses.replace(
        routed,
        processed=routed.processed - dropped - away + into,
        dropped=routed.dropped + dropped,
        rerouted_away=routed.rerouted_away + away,
        rerouted_in=routed.rerouted_in + into,
        lost_tokens=routed.lost_tokens + over_micro_batches(lost)[:, 0],
        slot_load=slot_load,
        causes=causes,
        traffic=dataclasses.replace(routed.traffic, slot_tokens=slot_tokens),
        micro_traffic=dataclasses.replace(routed.micro_traffic, slot_tokens=run.admitted, copies=copies),
    )


def groups_served(groups: TokenGroups) -> NDArray[np.int64]:
    """How many choices of each token were sent to a slot, [n_tokens]."""
    return np.bincount(groups.token, minlength=groups.n_tokens)
