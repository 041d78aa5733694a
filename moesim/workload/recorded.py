"""Replay of recorded routing: the real tokens of a real router."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.types import Assignment, Batch, EqualSequences, Trace


class RecordedTokens:
    """Batches cut from a trace in its order, from the start again when it ends.

    With `tokens_per_rank` a step takes tokens_per_rank x n_ranks tokens.
    Without, a step is the whole trace, dealt to the ranks in equal runs.
    With `alike` the sequences of a rank count as equal ones, whatever was
    recorded. Without, each is a prompt, of which the trace has all tokens from
    the first on. `rows` [L] are the rows of the trace that the model's MoE layers
    have, -1 for one that was not recorded.
    """

    def __init__(
        self,
        trace: Trace,
        *,
        n_ranks: int,
        tokens_per_rank: int | None,
        alike: EqualSequences | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.trace = trace
        self._row_of_layer = np.arange(trace.n_layers) if rows is None else rows
        self.tokens_per_step = trace.n_tokens if tokens_per_rank is None else tokens_per_rank * n_ranks
        rank = np.arange(self.tokens_per_step) * n_ranks // self.tokens_per_step
        self._source = rank.astype(np.int32)
        self._alike = alike
        self._no_topic = np.broadcast_to(np.int32(0), rank.shape)
        self._decodes = np.broadcast_to(np.bool_(alike is not None and alike.decodes), rank.shape)
        self._context = _places_in_runs(trace.sequence) if alike is None else _contexts(self._source, alike)

    def batch(self, step: int) -> Batch:
        """The tokens of a step; a sequence that occurs again keeps its number."""
        rows = self._rows(step)
        return Batch(
            step=step,
            source=self._source,
            sequence=self.trace.sequence[rows],
            topic=self._no_topic,
            decodes=self._decodes,
            context=self._context[rows] if self._alike is None else self._context,
            alike=self._alike,
        )

    def logits(
        self,
        batch: Batch,  # noqa: ARG002 - those of the Protocol
        layer: int,  # noqa: ARG002
        first: int,  # noqa: ARG002
        last: int,  # noqa: ARG002
        out: NDArray[np.float32],  # noqa: ARG002
    ) -> None:
        """Raise: a recording holds choices.

        Raises:
            InputError: always.
        """
        raise InputError("a recording holds the choices of its router, and no logits")

    def choices(self, batch: Batch, layer: int, top_k: int) -> Assignment:
        """What the recorded router chose in the layer-th MoE layer; as many choices as it made.

        Raises:
            InputError: it made another number of choices than `top_k`.
        """
        if top_k != self.trace.top_k:
            raise InputError(f"top_k: found {top_k}, wanted the {self.trace.top_k} choices that were recorded")
        row, tokens, weight = self._row_of_layer[layer], self._rows(batch.step), self.trace.weight
        if row < 0:
            shape = len(tokens), top_k
            return Assignment.of(np.full(shape, -1, np.int32), np.zeros(shape, np.float32))
        expert = self.trace.expert[row, tokens]
        unknown = np.full(expert.shape, np.nan, np.float32)
        return Assignment.of(expert, unknown if weight is None else weight[row, tokens])

    def manifest(self, n_steps: int) -> dict[str, Any]:
        """How often the steps go through the trace, and how many of its layers were recorded if not all were."""
        said = {"trace_passes": self.passes(n_steps)}
        n_layers, n_recorded = len(self._row_of_layer), self.trace.n_recorded_layers
        if n_recorded < n_layers:
            return {**said, "recorded_layers": f"{n_recorded} of {n_layers} MoE layers"}
        return said

    def passes(self, n_steps: int) -> float:
        """How often the steps go through the trace; above 1 tokens are seen again."""
        return n_steps * self.tokens_per_step / self.trace.n_tokens

    def _rows(self, step: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return (step * self.tokens_per_step + np.arange(self.tokens_per_step)) % self.trace.n_tokens


def _places_in_runs(sequence: NDArray[np.int32]) -> NDArray[np.int32]:
    """How many tokens of its sequence come before each token, [T]."""
    order = np.argsort(sequence, kind="stable")
    _, first, count = np.unique(sequence[order], return_index=True, return_counts=True)
    place = np.empty(len(sequence), dtype=np.int32)
    place[order] = np.arange(len(sequence)) - np.repeat(first, count)
    return place


def _contexts(source: NDArray[np.int32], alike: EqualSequences) -> NDArray[np.int32]:
    """The context of each token of ranks [T], in their order, whose sequences are equal."""
    if alike.decodes:
        return np.broadcast_to(np.int32(alike.length), source.shape)
    return _places_in_runs(source) % np.int32(alike.length)
