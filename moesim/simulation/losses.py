"""GPUs that are lost: what becomes of tokens, slots and the step under way.

A GPU that is lost computes nothing more. The exchange that it had not entered
yet begins without it when its loss has been noticed (`detection_s`); what the
others send to it there is lost. From the next exchange on nobody sends to it:
experts with a copy elsewhere go on there, others are dropped, and so is what
its own tokens still ask for. From the next step on its tokens are gone, until
a replacement takes its place (`recovery_s`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.types import LOST_GPU, Assignment, Part, Placement, Program, Timeline

FOR_EVER = np.iinfo(np.int64).max
"""When a GPU is lost that is not."""

UNHARMED, COMPUTING, SENDING, LATER = 0, 1, 2, 3
"""How far a MoE layer of a micro-batch had come when the GPU was lost: combine entered, dispatch entered, dispatch
begins without it, dispatch comes later."""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A GPU that was lost within the step: `progress` int64 [layers x micro-batches], the numbers above."""

    gpu: int
    progress: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Lost:
    """GPUs without which a step begins, bool [G], and those that it lost on its way."""

    gone: NDArray[np.bool_]
    broken: tuple[Broken, ...] = ()

    @classmethod
    def nobody(cls, n_gpus: int) -> Lost:
        """All are there."""
        return cls(gone=np.zeros(n_gpus, dtype=np.bool_))

    @property
    def anybody(self) -> bool:
        """Whether any GPU is missing."""
        return bool(self.gone.any()) or bool(self.broken)

    def in_the_end(self) -> Lost:
        """As the step ends: those that it lost on its way are gone."""
        gone = self.gone.copy()
        gone[[broken.gpu for broken in self.broken]] = True
        return Lost(gone=gone)

    def at(self, row: int, n_gpus: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """In a layer of a micro-batch, GPUs [G]: whose tokens ask in vain, to whom nobody sends, whose work is lost."""
        silent, avoided, useless = np.zeros(n_gpus, dtype=np.bool_), self.gone.copy(), np.zeros(n_gpus, dtype=np.bool_)
        for broken in self.broken:
            progress = broken.progress[row]
            silent[broken.gpu] |= progress >= SENDING
            avoided[broken.gpu] |= progress == LATER
            useless[broken.gpu] |= COMPUTING <= progress <= SENDING
        return silent, avoided, useless


def usable_slots(placement: Placement, avoided: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Slots on GPUs that somebody sends to, [S]."""
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


def progress_of(laid_out: Program, timeline: Timeline, gpu: int, at_ps: int) -> Broken:
    """How far each layer and micro-batch had come on a GPU at a time of the step.

    Args:
        laid_out: the program as it was laid out, whose exchanges name their layer and micro-batch.
        timeline: how the step went without the loss.
        gpu: who is lost.
        at_ps: when, after the step's begin.
    """
    exchanges = np.flatnonzero(laid_out.exchange_row >= 0)
    progress = np.full(len(laid_out.slot_tokens), LATER, dtype=np.int64)
    pending = True  # the next exchange that it has not entered begins without it
    for o in exchanges:
        row, entered = laid_out.exchange_row[o], bool(timeline.start_ps[o, gpu] < at_ps)
        if laid_out.kind[o] == Part.DISPATCH:
            progress[row] = COMPUTING if entered else (SENDING if pending else LATER)
        elif entered:
            progress[row] = UNHARMED
        pending = pending and entered
    return Broken(gpu=gpu, progress=progress)


def break_off(
    before: Program, after: Program, timeline: Timeline, broken: Broken, *, at_ps: int, noticed_ps: int
) -> Program:
    """The program of a step that loses a GPU on its way; each of its exchanges has a matrix of its own.

    Args:
        before: the program without this loss, as it was run.
        after: laid out anew with what is lost dropped and what comes later sent elsewhere, jittered as `before`.
        timeline: of `before`.
        broken: the GPU, and how far it had come.
        at_ps: when it is lost, after the step's begin.
        noticed_ps: from when on the others do without it.
    """
    gpu = broken.gpu
    lost = np.full(before.n_gpus, FOR_EVER) if before.lost_ps is None else before.lost_ps.copy()
    lost[gpu] = at_ps
    duration = after.duration_ps.copy()
    duration[:, lost < FOR_EVER] = before.duration_ps[:, lost < FOR_EVER]
    tasks = np.flatnonzero(before.exchange_row < 0)
    dead = tasks[timeline.end_ps[tasks, gpu] > at_ps]
    duration[dead, gpu] = 0
    slow = before.slow_gpus.copy()
    if len(dead):
        # the first of them stops when the GPU is lost and ends, with a picosecond of work left, when that is noticed
        start = int(timeline.start_ps[dead[0], gpu])
        duration[dead[0], gpu] = max(0, at_ps - start) + 1
        own = slow[:, 0] == gpu
        slow[own, 2] = np.minimum(slow[own, 2], start)
        slow = np.vstack([slow, (gpu, at_ps, noticed_ps, np.inf)])
    exchange_row = before.exchange_row.copy()
    matrices: list[NDArray[np.int64]] = []
    rows: list[int] = []
    pending = True
    for o in np.flatnonzero(before.exchange_row >= 0):
        row = after.exchange_row[o]
        later = broken.progress[row] == LATER
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
