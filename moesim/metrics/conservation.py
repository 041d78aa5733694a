"""Laws that hold exactly in every run: nothing is lost between the router and the last picosecond."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ConservationError
from moesim.types import Program, RoutedStep, Timeline


def check_conservation(
    routed: RoutedStep,
    program: Program,
    timeline: Timeline,
    *,
    parts: NDArray[np.int64],
    critical: NDArray[np.int64],
) -> None:
    """Assert the conservation laws of one step as equalities of integers.

    Args:
        routed: loads and traffic of the step.
        program: what was to be done.
        timeline: when it was done.
        parts: the breakdown [G, parts].
        critical: the critical path by part.

    Raises:
        ConservationError: the law that was broken, in one line.
    """
    makespan = int(timeline.end_ps.max())
    laws = {
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
            program.slot_tokens.reshape(-1, program.micro_batches, program.slot_tokens.shape[1]).sum(axis=1),
        ),
        "tokens of slots = tokens that the experts admitted": (
            program.slot_tokens,
            timeline.admitted,
        ),
        "the parts of a GPU sum to the step time": (
            parts.sum(axis=1),
            np.full(program.n_gpus, makespan),
        ),
        "the critical path sums to the step time": (critical.sum(), np.int64(makespan)),
    }
    for law, (left, right) in laws.items():
        if not np.array_equal(left, right):
            raise ConservationError(f"conservation broken in step {routed.batch.step}: {law}")
    _check_streams(program, timeline)


def _check_streams(program: Program, timeline: Timeline) -> None:
    """On every GPU the operations of a stream follow one another, and none ends before it starts."""
    if np.any(timeline.start_ps < 0) or np.any(timeline.end_ps < timeline.start_ps):
        raise ConservationError("an operation ended before it started")
    compute = program.exchange_layer < 0
    ran, work = (timeline.end_ps - timeline.start_ps)[compute], program.duration_ps[compute]
    if not np.array_equal(ran, work) and not (len(program.slow_gpus) and (ran >= work).all()):
        raise ConservationError("a task did not run for its duration")
    for stream in np.unique(program.stream):
        own = program.stream == stream
        if np.any(timeline.start_ps[own][1:] < timeline.end_ps[own][:-1]):
            raise ConservationError(f"operations of stream {stream} overlap")
