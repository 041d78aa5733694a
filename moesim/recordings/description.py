"""A recording in numbers: what it holds, and the statistics of each layer in each phase."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ParameterError
from moesim.recordings.sampling import groups_of
from moesim.recordings.statistics import (
    Estimate,
    LayerStatistics,
    TokenRelations,
    counted_layer_statistics,
    hot_experts,
    layer_statistics,
    pair_counts,
    pair_lifts,
    token_relations,
)
from moesim.types import CountsTrace, LogitsTrace, Recording, Trace
from moesim.types.recording import PHASES

_THREADS = 2
"""Layers at a time; a layer's numbers do not depend on the others."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What `moesim describe` says of a recording.

    `rows` are ordered by phase and layer. `groups` says in words what the
    standard errors rest on; `n_sequences` and `top_k` are 0 where unknown.
    `coactivation` has the row with the strongest pair, and the lifts of all
    pairs of its layer [E, E] (`pair_lifts`).
    """

    path: str
    kind: str
    layout: str
    model: str
    synthetic: bool
    notes: tuple[str, ...]
    n_tokens: int
    n_sequences: int
    n_steps: int
    n_experts: int
    top_k: int
    n_ranks: int
    groups: str
    rows: tuple[LayerStatistics, ...]
    coactivation: tuple[LayerStatistics, NDArray[np.float64]] | None = None

    def data(self) -> dict[str, Any]:
        """The same as plain data: estimates as {value, error, even}, null where unknown."""
        facts = {
            name: getattr(self, name)
            for name in (
                *("path", "kind", "layout", "model", "synthetic", "n_tokens", "n_sequences"),
                *("n_steps", "n_experts", "top_k", "n_ranks"),
            )
        }
        return {
            **facts,
            "notes": list(self.notes),
            "errors_from": self.groups,
            "hot_experts": hot_experts(self.n_experts),
            "layers": [
                {
                    "layer": row.layer,
                    "phase": row.phase,
                    "n_tokens": row.n_tokens,
                    "n_assignments": int(row.load.sum()),
                    "n_steps": row.n_steps,
                    **{name: _plain(estimate) for name, estimate in row.values.items()},
                    "pair": {"experts": list(row.pair), "lift": _plain(row.pair_lift)} if row.pair else None,
                    "load": row.load.tolist(),
                }
                for row in self.rows
            ],
        }


def _plain(estimate: Estimate) -> dict[str, float | None]:
    numbers = {"value": estimate.value, "error": estimate.error, "even": estimate.even}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def describe_recording(recording: Recording, *, n_ranks: int | None = None, top_k: int | None = None) -> Description:
    """The statistics of a recording.

    Args:
        recording: choices, counts, or logits, of which the `top_k` largest are taken as the choices.
        n_ranks: expert-parallel ranks of consecutive experts, for destinations and their balance.
        top_k: K of logits, and of counts, where it only tells how many tokens there were.

    Raises:
        ParameterError: more ranks than experts, or logits without a top_k of 1 to E.
    """
    n_experts = recording.n_experts
    if n_ranks is not None and not 1 <= n_ranks <= n_experts:
        raise ParameterError("ep", n_ranks, f"1 to the {n_experts} experts")
    if isinstance(recording, CountsTrace):
        return _of_counts(recording, n_ranks, top_k)
    if isinstance(recording, LogitsTrace):
        if top_k is None or not 1 <= top_k <= n_experts:
            wanted = f"1 to {n_experts}, the choices of a token, as the recording holds logits"
            raise ParameterError("top_k", "none" if top_k is None else top_k, wanted)
        return _of_choices(recording, _largest(recording.logits, top_k), n_ranks)
    return _of_choices(recording, recording.expert, n_ranks)


def _largest(logits: NDArray[np.float32], top_k: int) -> NDArray[np.int32]:
    """The experts of the K largest logits [L, T, K], the lowest number first of equal ones."""
    return np.stack([np.argsort(-layer, axis=1, kind="stable")[:, :top_k] for layer in logits]).astype(np.int32)


def _of_choices(recording: Trace | LogitsTrace, expert: NDArray[np.int32], n_ranks: int | None) -> Description:
    _, groups = groups_of(recording.sequence)
    tasks: list[Callable[[], LayerStatistics]] = []
    for code in sorted({int(phase) for phase in np.unique(recording.phase)}, key=lambda code: (code < 0, code)):
        kept = recording.phase == code
        columns = (np.ascontiguousarray(c[kept]) for c in (recording.sequence, recording.step, recording.position))
        tokens = token_relations(*columns)
        tasks += [
            partial(_of_layer, recording, expert[i], i, code, kept, tokens, n_ranks)
            for i in range(len(expert))
            if (expert[i, :, 0] >= 0)[kept].any()
        ]
    with ThreadPoolExecutor(_THREADS) as pool:
        rows = tuple(pool.map(lambda task: task(), tasks))
    strongest = max((row for row in rows if row.pair), key=lambda row: row.pair_lift.value, default=None)
    coactivation = None
    if strongest is not None:
        kept = np.isin(recording.phase, [code for code, name in PHASES.items() if name == strongest.phase])
        choices = np.ascontiguousarray(expert[recording.layer_ids.index(strongest.layer)][kept])
        coactivation = strongest, pair_lifts(pair_counts(choices, recording.n_experts), strongest.load)
    return Description(
        path=recording.path,
        kind="choices" if isinstance(recording, Trace) else "logits",
        layout=recording.layout,
        model=recording.model,
        synthetic=recording.synthetic,
        notes=recording.notes,
        n_tokens=recording.n_tokens,
        n_sequences=len(np.unique(recording.sequence)),
        n_steps=len(np.unique(recording.step[recording.step >= 0])),
        n_experts=recording.n_experts,
        top_k=expert.shape[2],
        n_ranks=n_ranks or 0,
        groups=groups,
        rows=rows,
        coactivation=coactivation,
    )


def _of_layer(
    recording: Trace | LogitsTrace,
    expert: NDArray[np.int32],
    index: int,
    code: int,
    kept: NDArray[np.bool_],
    tokens: TokenRelations,
    n_ranks: int | None,
) -> LayerStatistics:
    """The statistics of the layer of this index, of the tokens of one phase."""
    return layer_statistics(
        np.ascontiguousarray(expert if kept.all() else expert[kept]),
        layer=recording.layer_ids[index],
        phase=PHASES.get(code, str(code)),
        n_experts=recording.n_experts,
        tokens=tokens,
        n_ranks=n_ranks,
    )


def _of_counts(recording: CountsTrace, n_ranks: int | None, top_k: int | None) -> Description:
    rows = []
    for code in sorted({int(phase) for phase in np.unique(recording.phase)}, key=lambda code: (code < 0, code)):
        count = recording.count[recording.phase == code]
        rows += [
            counted_layer_statistics(
                count[:, i],
                layer=layer,
                phase=PHASES.get(code, str(code)),
                top_k=1 if recording.first_choice else top_k,
                n_ranks=n_ranks,
            )
            for i, layer in enumerate(recording.layer_ids)
            if count[:, i].any()
        ]
    n_steps = recording.n_steps
    return Description(
        path=recording.path,
        kind="counts",
        layout=recording.layout,
        model=recording.model,
        synthetic=recording.synthetic,
        notes=recording.notes,
        n_tokens=0,
        n_sequences=0,
        n_steps=n_steps,
        n_experts=recording.n_experts,
        top_k=top_k or 0,
        n_ranks=n_ranks or 0,
        groups=f"{min(n_steps, 128)} groups of steps" if n_steps > 1 else "no groups: a single step",
        rows=tuple(rows),
    )
