"""Routed experts of whole sequences: where the prompt ends, which layers are dense, and their blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.layout import ChoiceBlock, ImportJob, blocks_of_tokens
from moesim.types import DECODE, PREFILL


class Routes(NamedTuple):
    """Ids int32 [tokens, L, K] of one sequence; `n_prompt` tokens of them are its prompt, None where not stated."""

    expert: NDArray[np.int32]
    n_prompt: int | None
    note: str | None


def with_counts(where: str, expert: NDArray[np.int32], n_prompt: int | None, n_output: int | None) -> Routes:
    """Say where the prompt ends, and whether the rows are one fewer than the tokens, as the last is never routed.

    Raises:
        TraceError: rows and tokens differ by more.
    """
    rows = len(expert)
    if n_prompt is None or n_output is None:
        return Routes(expert, n_prompt, None)
    total = n_prompt + n_output
    if rows == total - 1:
        return Routes(expert, n_prompt, "rows = prompt + generated - 1: the last generated token is not routed")
    if rows == total:
        return Routes(expert, n_prompt, None)
    raise TraceError(f"{where}: found {rows} rows of experts, wanted {total - 1} or {total} ({n_prompt} + {n_output})")


def blocks_of_sequences(job: ImportJob, sequences: Iterable[tuple[str, Routes]]) -> Iterator[ChoiceBlock]:
    """Blocks of sequences, each with the place that errors name; rows of zeros are dense layers.

    Layers are those of the model where its numbers are recorded or where the model is stated, and else are counted
    among the MoE layers, which the report says.

    Raises:
        TraceError: a sequence has other layers than the first, or than the model that was stated.
    """
    job.dense_are_zero = True
    n_tokens, n_layers = 0, None
    layers: tuple[int, ...] = ()
    for number, (where, routes) in enumerate(sequences):
        if n_layers is None:
            n_layers = routes.expert.shape[1]
            layers = _layer_ids(job, where, n_layers)
        elif routes.expert.shape[1] != n_layers:
            raise TraceError(f"{where}: found {routes.expert.shape[1]} layers, wanted {n_layers} as before")
        if routes.note:
            job.note(routes.note)
        length = len(routes.expert)
        position = np.arange(length)
        phase = None if routes.n_prompt is None else np.where(position < routes.n_prompt, PREFILL, DECODE)
        yield from blocks_of_tokens(
            routes.expert,
            layers,
            first_token=n_tokens,
            where=lambda token, where=where: f"{where}: token {token}",  # type: ignore[misc]
            sequence=np.full(length, number),
            position=position,
            phase=phase,
        )
        n_tokens += length


def _layer_ids(job: ImportJob, where: str, n_layers: int) -> tuple[int, ...]:
    """The numbers of recorded layers: all of the model, or its MoE layers alone."""
    model = job.options.model
    if model is None:
        job.note(f"the {n_layers} recorded layers are numbered from 0; --model NAME tells which of the model they are")
        return tuple(range(n_layers))
    if n_layers == model.n_layers:
        return tuple(range(n_layers))
    if n_layers == len(model.moe_layers):
        job.note(f"the {n_layers} recorded layers are the MoE layers of {model.name}")
        return model.moe_layers
    raise TraceError(
        f"{where}: found {n_layers} layers, wanted the {model.n_layers} layers of {model.name} or its "
        f"{len(model.moe_layers)} MoE layers"
    )
