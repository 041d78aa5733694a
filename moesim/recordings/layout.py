"""What a layout of recordings is: how it is recognised, and how its files become choices, counts or logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.recordings.sample import Sample
from moesim.types import CountsTrace, LogitsTrace, Trace

TOKEN_BITS = 32
"""A token's key has the number of its sequence, or step, above these bits, and its place there below."""


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """What a model says of its recordings: `moe_layers` are the numbers of its layers that have experts."""

    name: str
    n_layers: int
    moe_layers: tuple[int, ...]
    n_experts: int
    top_k: int


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What the files cannot say of themselves.

    `layout`: name of the layout, "" = recognised by content. `first_choice`:
    counts hold the first choice of each token alone. `ids`: "logical", or
    "physical" for numbers of slots; "" = as the layout has them, and anything
    else than what it has is refused. `n_experts`
    and `model` are None where they were not given.
    """

    layout: str = ""
    first_choice: bool = False
    n_experts: int | None = None
    model: KnownModel | None = None
    ids: str = ""
    keep_warm_up: bool = False


@dataclass(frozen=True, kw_only=True)
class ChoiceBlock:
    """N rows of choices, one a (token, layer), of any tokens in any order.

    `token` int64 [N] is a key that is unique to the token in the whole import;
    tokens are numbered in the order in which their keys first occur. `layer`
    int [N]. `expert` int [N, K] is -1 where there is no choice; `weight` float
    [N, K] or None. The columns of the tokens are int [N] or None = unknown.
    `where(row)` names file and line of a row.
    """

    token: NDArray[np.int64]
    layer: NDArray[np.integer[Any]]
    expert: NDArray[np.integer[Any]]
    weight: NDArray[np.floating[Any]] | None = None
    sequence: NDArray[Any] | None = None
    step: NDArray[Any] | None = None
    position: NDArray[Any] | None = None
    phase: NDArray[Any] | None = None
    topic: NDArray[Any] | None = None
    where: Callable[[int], str] = field(default=lambda row: f"row {row + 1}")


@dataclass(kw_only=True)
class ImportJob:
    """One import: its files, what the user said of them, and what its layout says for the report.

    A layout calls `note` with one sentence for each rule that mattered, sets
    `n_experts`, `model` or `dense_are_zero` where the files state it, and tells
    `progress` how many bytes of a file it has read.

    `dense_are_zero`: rows of dense layers are zeros; the importer leaves out
    layers in which every choice is 0. `rows_are_distinct`: the writer never
    repeats an expert in a row, so that a repetition is an error.
    """

    files: tuple[Path, ...]
    options: ImportOptions
    n_experts: int | None = None
    model: str = ""
    dense_are_zero: bool = False
    rows_are_distinct: bool = True
    notes: list[str] = field(default_factory=list)
    progress: Callable[[int], None] = lambda n_bytes: None  # noqa: ARG005

    def note(self, text: str) -> None:
        """Say something in the report, once."""
        if text not in self.notes:
            self.notes.append(text)


LayoutReader = Callable[[ImportJob], Iterator[ChoiceBlock] | Trace | CountsTrace | LogitsTrace]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A layout of recordings.

    `summary` is one line for the user; `recognises` judges a file or folder by
    its content; `read` raises a TraceError that names file and line where one
    is wrong, and one that says what they are for where files of the layout
    hold no recording, such as placements. `maps_slots`: its ids are physical
    slots, and it has the map that gives their experts.
    """

    name: str
    summary: str
    recognises: Callable[[Sample], bool]
    read: LayoutReader
    maps_slots: bool = False


def blocks_of_tokens(
    expert: NDArray[np.integer[Any]],
    layer_ids: NDArray[np.integer[Any]] | tuple[int, ...],
    *,
    first_token: int = 0,
    weight: NDArray[np.floating[Any]] | None = None,
    where: Callable[[int], str] | None = None,
    **columns: NDArray[Any] | None,
) -> Iterator[ChoiceBlock]:
    """Blocks of an array of choices [T, L, K] whose tokens are numbered from `first_token` on.

    Args:
        expert: [T, L, K], -1 where there is no choice.
        layer_ids: numbers of its L layers.
        first_token: key of the first token.
        weight: [T, L, K] or None.
        where: names the place of a token, by its row of T.
        columns: sequence, step, position, phase and topic of the tokens [T], where known.
    """
    n_tokens, n_layers, top_k = expert.shape
    at_once = max(1, 200_000 // max(1, n_layers))
    for first in range(0, n_tokens, at_once):
        last = min(first + at_once, n_tokens)
        rows = np.repeat(np.arange(first, last), n_layers)

        def name(row: int, first: int = first) -> str:
            token = first + row // n_layers
            return f"token {token}" if where is None else where(token)

        yield ChoiceBlock(
            token=rows + first_token,
            layer=np.tile(np.asarray(layer_ids), last - first),
            expert=expert[first:last].reshape(-1, top_k),
            weight=None if weight is None else weight[first:last].reshape(-1, top_k),
            where=name,
            **{known: values[rows] for known, values in columns.items() if values is not None},
        )
