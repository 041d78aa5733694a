"""Laws that hold exactly in every run: nothing is lost between the router and the last picosecond."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from moesim.errors import ConservationError
from moesim.types import Program, RoutedStep, StepTimes, Timeline


def check_step(routed: RoutedStep, step_times: StepTimes) -> None:
    """Assert the conservation laws of one step as equalities of integers.

    Args:
        routed: loads and traffic of the step.
        step_times: its times.

    Raises:
        ConservationError: the law that was broken, in one line.
    """
    micro = routed.micro_traffic.slot_tokens
    laws: dict[str, tuple[ArrayLike, ArrayLike]] = {
        "requested + rerouted in = processed + dropped + rerouted away, per expert": (
            routed.requested + routed.rerouted_in,
            routed.processed + routed.dropped + routed.rerouted_away,
        ),
        "requested over all experts = choices made": (
            routed.requested.sum(axis=1),
            routed.choices,
        ),
        "processed by experts + padding = tokens of slots": (
            routed.processed.sum(axis=1) + routed.padding.sum(axis=1),
            routed.traffic.slot_tokens.sum(axis=1),
        ),
        "dropped and rerouted away over all experts = assignments with a cause": (
            (routed.dropped + routed.rerouted_away).sum(axis=1),
            routed.causes[:, 1:].sum(axis=1),
        ),
        "processed per expert = tokens of its slots without padding": (
            routed.processed,
            routed.slot_load,
        ),
        "tokens of slots = those of their micro-batches": (
            routed.traffic.slot_tokens,
            micro.reshape(len(routed.requested), -1, micro.shape[1]).sum(axis=1),
        ),
        "the parts of a GPU sum to the step time": (
            step_times.parts_ps.sum(axis=1),
            np.full(len(step_times.parts_ps), step_times.makespan_ps),
        ),
        "the critical path sums to the step time, by part and by GPU": (
            [step_times.critical_ps.sum(), step_times.critical_gpu_ps.sum()],
            [step_times.makespan_ps] * 2,
        ),
    }
    check_laws(laws, f"step {routed.batch.step}")


def check_laws(laws: Mapping[str, tuple[ArrayLike, ArrayLike]], where: str) -> None:
    """Assert that both sides of each law are equal.

    Raises:
        ConservationError: the first law that is broken.
    """
    for law, (left, right) in laws.items():
        if not np.array_equal(left, right):
            raise ConservationError(f"conservation broken in {where}: {law}")


def check_program(program: Program, timeline: Timeline) -> None:
    """Assert that a program was run as it was laid out.

    On every GPU the operations of a stream follow one another, none ends before
    it starts, and the experts admitted what was sent to them.

    Raises:
        ConservationError: the law that was broken, in one line.
    """
    check_laws({"tokens of slots = tokens that were admitted": (program.slot_tokens, timeline.admitted)}, "a program")
    if np.any(timeline.start_ps < 0) or np.any(timeline.end_ps < timeline.start_ps):
        raise ConservationError("an operation ended before it started")
    compute = program.exchange_row < 0
    ran, work = (timeline.end_ps - timeline.start_ps)[compute], program.duration_ps[compute]
    if not np.array_equal(ran, work) and not (len(program.slow_gpus) and (ran >= work).all()):
        raise ConservationError("a task did not run for its duration")
    for stream in np.unique(program.stream):
        own = program.stream == stream
        if np.any(timeline.start_ps[own][1:] < timeline.end_ps[own][:-1]):
            raise ConservationError(f"operations of stream {stream} overlap")
