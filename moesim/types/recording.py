"""Recorded routing: the choices, the counts or the logits of real tokens, as an engine wrote them down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Of a step, position, phase, topic or choice that was not recorded."""
PREFILL, DECODE, TRAIN = 0, 1, 2
PHASES: Mapping[int, str] = {PREFILL: "prefill", DECODE: "decode", TRAIN: "train", UNKNOWN: "unknown"}


@dataclass(frozen=True, kw_only=True)
class RecordingFacts:
    """What is known of a recording beside its numbers.

    `layer_ids` are the numbers of its L layers in ascending order, as they were
    recorded: of the layers of the model, or of its MoE layers alone.
    `n_experts` is the number that was stated, or one more than the highest that
    occurs. `layout` names the layout that was imported, `notes` say what the
    import left out or assumed, `model` is the model's name where it was
    recorded, and `synthetic` is true of choices that were drawn and not
    recorded. `path` and `sha256` name the file that was read, if it was one.
    """

    layer_ids: tuple[int, ...]
    n_experts: int
    layout: str = ""
    model: str = ""
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    path: str = ""
    sha256: str = ""

    @property
    def n_layers(self) -> int:
        """L, recorded layers."""
        return len(self.layer_ids)


@dataclass(frozen=True, kw_only=True)
class TokenColumns:
    """What is known of each of T tokens, in the order in which they were served; int32 [T], -1 where unknown.

    `sequence` is the number of the token's sequence, `step` that of its forward
    pass, `position` its place in the sequence, `phase` int8 [T] a key of PHASES
    and `topic` the number of its sequence's topic.
    """

    sequence: NDArray[np.int32]
    step: NDArray[np.int32]
    position: NDArray[np.int32]
    phase: NDArray[np.int8]
    topic: NDArray[np.int32]

    @property
    def n_tokens(self) -> int:
        """T, tokens."""
        return len(self.sequence)


@dataclass(frozen=True, kw_only=True)
class Trace(TokenColumns, RecordingFacts):
    """Choices of T tokens in L MoE layers.

    `expert` int32 [L, T, K], -1 where nothing was recorded; `weight` float32
    [L, T, K], or None where no weights were recorded.
    """

    expert: NDArray[np.int32]
    weight: NDArray[np.float32] | None

    @property
    def n_recorded_layers(self) -> int:
        """Layers of which any choice was recorded."""
        return int((self.expert >= 0).any(axis=(1, 2)).sum())

    @property
    def top_k(self) -> int:
        """K, choices of a token."""
        return int(self.expert.shape[2])


@dataclass(frozen=True, kw_only=True)
class CountsTrace(RecordingFacts):
    """Assignments that each expert got, by step and layer, without the tokens behind them.

    `count` int64 [S, L, E]; `step` int64 [S] are the numbers of the steps as
    recorded; `phase` int8 [S] keys of PHASES. `first_choice` is true where only
    the first choice of every token was counted.
    """

    count: NDArray[np.int64]
    step: NDArray[np.int64]
    phase: NDArray[np.int8]
    first_choice: bool = False

    @property
    def n_steps(self) -> int:
        """S, steps."""
        return len(self.step)


@dataclass(frozen=True, kw_only=True)
class LogitsTrace(TokenColumns, RecordingFacts):
    """Router logits float32 [L, T, E] of T tokens in L MoE layers, before any bias or normalisation."""

    logits: NDArray[np.float32]


Recording = Trace | CountsTrace | LogitsTrace


class KnownColumns(TypedDict):
    """The columns of `TokenColumns`, to make one of its kinds with."""

    sequence: NDArray[np.int32]
    step: NDArray[np.int32]
    position: NDArray[np.int32]
    phase: NDArray[np.int8]
    topic: NDArray[np.int32]


def token_columns(n_tokens: int, **known: NDArray[Any] | None) -> KnownColumns:
    """The columns of `TokenColumns` of T tokens by name: those that are known, the others -1.

    Where no sequences are known, all tokens are of sequence 0.
    """

    def column(name: str, dtype: type[np.signedinteger[Any]], missing: int = UNKNOWN) -> NDArray[Any]:
        given = known.get(name)
        return np.full(n_tokens, missing, dtype) if given is None else np.asarray(given).astype(dtype, copy=False)

    return KnownColumns(
        sequence=column("sequence", np.int32, 0),
        step=column("step", np.int32),
        position=column("position", np.int32),
        phase=column("phase", np.int8),
        topic=column("topic", np.int32),
    )
