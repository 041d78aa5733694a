"""Replay of recorded routing: the real tokens of a real router, by their choices or by their logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.types import Assignment, Batch, EqualSequences, LogitsTrace, Trace
from moesim.workload.choices_alone import ChoicesAlone
from moesim.workload.trace_steps import TraceSteps


class RecordedTokens(ChoicesAlone):
    """The tokens of a trace and the choices of its router; `TraceSteps` cuts them into steps.

    `rows` [L] are the rows of the trace that the model's MoE layers have, -1
    for one that was not recorded.
    """

    no_logits = "a recording holds the choices of its router, and no logits"

    def __init__(
        self,
        trace: Trace,
        *,
        n_ranks: int,
        tokens_per_rank: int | None,
        alike: EqualSequences | None = None,
        rows: NDArray[np.int64] | None = None,
        as_recorded: bool = False,
    ) -> None:
        self.trace = trace
        self.steps = TraceSteps(
            trace, n_ranks=n_ranks, tokens_per_rank=tokens_per_rank, alike=alike, as_recorded=as_recorded
        )
        self.tokens_per_step = self.steps.tokens_per_step
        self._row_of_layer = np.arange(trace.n_layers) if rows is None else rows

    def batch(self, step: int) -> Batch:
        """The tokens of a step; a sequence that occurs again keeps its number."""
        return self.steps.batch(step)

    def choices(self, batch: Batch, layer: int, top_k: int) -> Assignment:
        """What the recorded router chose in the layer-th MoE layer; weights that were not recorded are NaN.

        Raises:
            InputError: it made fewer choices than `top_k`.
        """
        if top_k > self.trace.top_k:
            raise InputError(f"top_k: found {top_k}, wanted the {self.trace.top_k} choices that were recorded")
        row, tokens, weight = self._row_of_layer[layer], self.steps.rows(batch.step), self.trace.weight
        if row < 0:
            return no_choices(len(tokens), top_k)
        expert = self.trace.expert[row, tokens, :top_k]
        unknown = np.full(expert.shape, np.nan, np.float32)
        return Assignment.of(expert, unknown if weight is None else weight[row, tokens, :top_k])

    def manifest(self, n_steps: int) -> dict[str, Any]:
        """How often the steps go through the trace, and how many of its layers were recorded if not all were."""
        said = {"trace_passes": self.steps.passes(n_steps)}
        return said | recorded_layers(self.trace.n_recorded_layers, len(self._row_of_layer))


class RecordedLogits:
    """The tokens of a trace and their router logits, of which any strategy makes choices.

    `rows` [L] as of `RecordedTokens`; of a layer that was not recorded there are no logits.
    """

    def __init__(self, trace: LogitsTrace, steps: TraceSteps, rows: NDArray[np.int64]) -> None:
        self.trace, self.steps, self._row_of_layer = trace, steps, rows
        self.tokens_per_step = steps.tokens_per_step

    def batch(self, step: int) -> Batch:
        """The tokens of a step; a sequence that occurs again keeps its number."""
        return self.steps.batch(step)

    def logits(self, batch: Batch, layer: int, first: int, last: int, out: NDArray[np.float32]) -> None:
        """Fill out [last - first, E] with the recorded logits of tokens first..last-1 in the layer-th MoE layer.

        Raises:
            InputError: the layer was not recorded.
        """
        row = self._row_of_layer[layer]
        if row < 0:
            raise InputError(f"the logits of MoE layer {layer} were not recorded")
        out[:] = self.trace.logits[row, self.steps.rows(batch.step)[first:last]]

    def choices(self, batch: Batch, layer: int, top_k: int) -> Assignment:
        """Raise: the recording holds logits.

        Raises:
            InputError: always.
        """
        raise InputError(f"a recording of logits holds no {top_k} choices of layer {layer} in step {batch.step}")

    def manifest(self, n_steps: int) -> dict[str, Any]:
        """How often the steps go through the trace, and how many of its layers were recorded if not all were."""
        said = {"trace_passes": self.steps.passes(n_steps)}
        return said | recorded_layers(self.trace.n_layers, len(self._row_of_layer))


def no_choices(n_tokens: int, top_k: int) -> Assignment:
    """Of a layer that was not recorded."""
    return Assignment.of(np.full((n_tokens, top_k), -1, np.int32), np.zeros((n_tokens, top_k), np.float32))


def recorded_layers(n_recorded: int, n_layers: int) -> dict[str, Any]:
    """What a manifest says of the layers, nothing where all were recorded."""
    return {} if n_recorded >= n_layers else {"recorded_layers": f"{n_recorded} of {n_layers} MoE layers"}
