"""GPUs that fail: what becomes of tokens, slots and the step that is running.

A GPU that has failed computes nothing more. The exchange that it had not
entered yet begins without it when its failure has been noticed
(`detection_s`); what other GPUs send to it in that exchange is lost. From the
next exchange on no GPU sends to it: experts with a copy elsewhere go on there,
assignments of other experts are dropped, and so are those of its own tokens.
From the next step on its tokens are missing, until a replacement takes its
place (`recovery_s`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from moesim.types import LOST_GPU, Assignment, Part, Placement, Program, Timeline

NEVER = np.iinfo(np.int64).max
"""When a GPU is lost that is not."""


class Progress(IntEnum):
    """How far an MoE layer of a micro-batch had come on a GPU when it failed."""

    COMBINED = 0
    """It had entered combine: nothing of the layer is lost."""
    COMPUTING = 1
    """It had entered dispatch: what its experts were to give is lost."""
    SENDING = 2
    """The layer's dispatch is the first exchange that begins without it."""
    LATER = 3
    """The layer's dispatch comes after that one: others send elsewhere."""


@dataclass(frozen=True, kw_only=True)
class MidStepFailure:
    """A GPU that fails within a step: `at_ps` after the step's begin, noticed by the others at `noticed_ps`.

    `progress` int64 [layers x micro-batches] has values of Progress.
    """

    gpu: int
    at_ps: int
    noticed_ps: int
    progress: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Outages:
    """GPUs `missing` when a step begins, bool [G], and `failures` within it, in their order."""

    missing: NDArray[np.bool_]
    failures: tuple[MidStepFailure, ...] = ()

    @classmethod
    def none(cls, n_gpus: int) -> Outages:
        """All GPUs are present."""
        return cls(missing=np.zeros(n_gpus, dtype=np.bool_))

    @property
    def any(self) -> bool:
        """Whether any GPU is missing at any time of the step."""
        return bool(self.missing.any()) or bool(self.failures)

    def at_end(self) -> Outages:
        """The outages as the step ends: GPUs that failed within it are missing."""
        missing = self.missing.copy()
        missing[[failure.gpu for failure in self.failures]] = True
        return Outages(missing=missing)

    def masks(self, row: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Masks [G] for one layer and micro-batch, the `row`-th.

        Senders whose tokens are undeliverable, destinations that are avoided, GPUs whose results are lost.
        """
        undeliverable, lost = np.zeros_like(self.missing), np.zeros_like(self.missing)
        avoided = self.missing.copy()
        for failure in self.failures:
            progress = failure.progress[row]
            undeliverable[failure.gpu] |= progress >= Progress.SENDING
            avoided[failure.gpu] |= progress == Progress.LATER
            lost[failure.gpu] |= Progress.COMPUTING <= progress <= Progress.SENDING
        return undeliverable, avoided, lost


def usable_slots(placement: Placement, avoided: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each slot is on a GPU that is not avoided, [S]."""
    return ~avoided[placement.rank]


def has_orphans(placement: Placement, usable: NDArray[np.bool_]) -> bool:
    """Whether some expert of some layer has no copy on usable slots [S]."""
    return any(len(np.unique(expert[usable])) < placement.n_experts for expert in placement.expert)


def without(assignment: Assignment, refused: NDArray[np.bool_]) -> Assignment:
    """The assignment with some of the served choices [T, K] dropped, as they were lost with a GPU."""
    refused = refused & (assignment.served >= 0)
    if not refused.any():
        return assignment
    return dataclasses.replace(
        assignment,
        served=np.where(refused, np.int32(-1), assignment.served),
        dropped=assignment.dropped | refused,
        rerouted=assignment.rerouted & ~refused,
        cause=np.where(refused, np.int8(LOST_GPU), assignment.cause),
    )


def mid_step_failure(
    laid_out: Program, timeline: Timeline, gpu: int, *, at_ps: int, detection_ps: int
) -> MidStepFailure:
    """The failure of a GPU within a step, with how far each layer and micro-batch had come on it.

    Args:
        laid_out: the program as it was laid out, whose exchanges name their layer and micro-batch.
        timeline: how the step went without the failure.
        gpu: the one that fails.
        at_ps: when it fails, after the step's begin.
        detection_ps: how much later the others notice it.
    """
    exchanges = np.flatnonzero(laid_out.exchange_row >= 0)
    progress = np.full(len(laid_out.slot_tokens), Progress.LATER, dtype=np.int64)
    pending = True  # the next exchange that it has not entered begins without it
    for o in exchanges:
        row, entered = laid_out.exchange_row[o], bool(timeline.start_ps[o, gpu] < at_ps)
        if laid_out.kind[o] == Part.DISPATCH:
            progress[row] = Progress.COMPUTING if entered else (Progress.SENDING if pending else Progress.LATER)
        elif entered:
            progress[row] = Progress.COMBINED
        pending = pending and entered
    return MidStepFailure(gpu=gpu, at_ps=at_ps, noticed_ps=at_ps + detection_ps, progress=progress)


def with_failure(before: Program, after: Program, timeline: Timeline, failure: MidStepFailure) -> Program:
    """The program of a step in which a GPU fails; each of its exchanges has a matrix of its own.

    Args:
        before: the program without this failure, as it was run.
        after: the step laid out again, where what the failure destroys is dropped and what comes later is sent to
            other GPUs; jittered as `before`.
        timeline: of `before`.
        failure: the newest, which `after` knows of.
    """
    gpu, at_ps = failure.gpu, failure.at_ps
    lost = np.full(before.n_gpus, NEVER) if before.lost_ps is None else before.lost_ps.copy()
    lost[gpu] = at_ps
    duration = after.duration_ps.copy()
    duration[:, lost < NEVER] = before.duration_ps[:, lost < NEVER]
    tasks = np.flatnonzero(before.exchange_row < 0)
    dead = tasks[timeline.end_ps[tasks, gpu] > at_ps]
    duration[dead, gpu] = 0
    slow = before.slow_gpus.copy()
    if len(dead):
        # the first of them stops when the GPU fails and ends, with a picosecond of work left, when that is noticed
        start = int(timeline.start_ps[dead[0], gpu])
        duration[dead[0], gpu] = max(0, at_ps - start) + 1
        own = slow[:, 0] == gpu
        slow[own, 2] = np.minimum(slow[own, 2], start)
        slow = np.vstack([slow, (gpu, at_ps, failure.noticed_ps, np.inf)])
    exchange_row = before.exchange_row.copy()
    matrices: list[NDArray[np.int64]] = []
    rows: list[int] = []
    pending = True
    for o in np.flatnonzero(before.exchange_row >= 0):
        row = after.exchange_row[o]
        later = failure.progress[row] == Progress.LATER
        matrix = (after.copies[row] if later else before.copies[before.exchange_row[o]]).copy()
        if timeline.start_ps[o, gpu] >= at_ps:
            sent, received = (
                (matrix[gpu], matrix[:, gpu]) if before.kind[o] == Part.DISPATCH else (matrix[:, gpu], matrix[gpu])
            )
            sent[:] = 0
            if not pending:
                received[:] = 0
            pending = False
        exchange_row[o] = len(matrices)
        matrices.append(matrix)
        rows.append(row)
    return dataclasses.replace(
        after,
        duration_ps=duration,
        lost_ps=lost,
        copies=np.stack(matrices),
        node_copies=after.node_copies[rows] if after.node_copies.size else after.node_copies,  # of one node, its own
        exchange_row=exchange_row,
        slow_gpus=slow,
        slow_links=before.slow_links,
    )
