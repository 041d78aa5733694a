"""How the tokens of a trace are cut into steps and dealt to ranks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.types import DECODE, UNKNOWN, Batch, EqualSequences, TokenColumns


class TraceSteps:
    """Batches cut from the tokens of a trace in its order, from the start again when it ends.

    With `tokens_per_rank` a step takes tokens_per_rank x n_ranks tokens. With
    `as_recorded` it takes those of a recorded step, without both the whole
    trace; these are dealt to the ranks in equal runs.

    With `alike` the sequences of a rank count as equal ones, whatever was
    recorded, unless the steps are as recorded and phase and position of every
    token are known. Without, each is a prompt, of which the trace has all
    tokens from the first on.
    """

    def __init__(
        self,
        columns: TokenColumns,
        *,
        n_ranks: int,
        tokens_per_rank: int | None,
        alike: EqualSequences | None = None,
        as_recorded: bool = False,
    ) -> None:
        self.columns, self.n_ranks = columns, n_ranks
        n_tokens = columns.n_tokens
        self._equal_steps: int | None = None
        if as_recorded:
            _, step = np.unique(columns.step, return_inverse=True)
            self._order = np.argsort(step, kind="stable")
            self._bounds = np.r_[0, np.cumsum(np.bincount(step))]
            self.tokens_per_step = int(np.diff(self._bounds).max())
        else:
            self._equal_steps = n_tokens if tokens_per_rank is None else tokens_per_rank * n_ranks
            self.tokens_per_step = self._equal_steps
        self.by_phase = as_recorded and all((c != UNKNOWN).all() for c in (columns.phase, columns.position))
        self._alike = None if self.by_phase else alike
        own = columns.position if self.by_phase else None
        self._place = _places_in_runs(columns.sequence) if own is None and alike is None else own

    def passes(self, n_steps: int) -> float:
        """How often so many steps go through the trace; above 1 tokens are seen again."""
        if self._equal_steps is None:
            return n_steps / (len(self._bounds) - 1)
        return n_steps * self._equal_steps / self.columns.n_tokens

    def rows(self, step: int) -> NDArray[np.int64]:
        """The tokens of a step, by their rows in the trace."""
        if self._equal_steps is None:
            at = step % (len(self._bounds) - 1)
            return np.asarray(self._order[self._bounds[at] : self._bounds[at + 1]])
        return (step * self._equal_steps + np.arange(self._equal_steps)) % self.columns.n_tokens

    def batch(self, step: int) -> Batch:
        """The tokens of a step; a sequence that occurs again keeps its number."""
        rows, columns, alike = self.rows(step), self.columns, self._alike
        source = (np.arange(len(rows)) * self.n_ranks // len(rows)).astype(np.int32)
        if alike is None:
            decodes = (columns.phase[rows] == DECODE) & self.by_phase
            assert self._place is not None
            context = self._place[rows]
        else:
            decodes, context = np.broadcast_to(np.bool_(alike.decodes), rows.shape), contexts(source, alike)
        return Batch(
            step=step,
            source=source,
            sequence=columns.sequence[rows],
            topic=np.maximum(columns.topic[rows], 0),
            decodes=decodes,
            context=context,
            alike=alike,
        )


def _places_in_runs(sequence: NDArray[np.int32]) -> NDArray[np.int32]:
    """How many tokens of its sequence come before each token, [T]."""
    order = np.argsort(sequence, kind="stable")
    _, first, count = np.unique(sequence[order], return_index=True, return_counts=True)
    place = np.empty(len(sequence), dtype=np.int32)
    place[order] = np.arange(len(sequence)) - np.repeat(first, count)
    return place


def contexts(source: NDArray[np.int32], alike: EqualSequences) -> NDArray[np.int32]:
    """The context of each token of ranks [T], in their order, whose sequences are equal."""
    if alike.decodes:
        return np.broadcast_to(np.int32(alike.length), source.shape)
    return _places_in_runs(source) % np.int32(alike.length)
