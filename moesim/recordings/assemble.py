"""Blocks of choices, in any order, become the arrays of a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.json_lines import MAX_EXPERTS, MAX_LAYER, MAX_WEIGHT, repeated
from moesim.recordings.layout import ChoiceBlock, ImportJob
from moesim.types import UNKNOWN, Trace, token_columns

_COLUMNS = ("sequence", "step", "position", "phase", "topic")
_BLOCKS_BETWEEN_CHECKS = 64
_MEMORY_SHARE = 0.8
"""Part of the machine's free memory that a recording may take."""


@dataclass
class _Tokens:
    """The keys of all tokens of the blocks, each block's once, with the columns of their first rows."""

    keys: list[NDArray[np.int64]] = field(default_factory=list)
    columns: dict[str, list[NDArray[np.int32]]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})

    def add(self, block: ChoiceBlock) -> None:
        """Note the tokens of a block in the order in which they first occur."""
        changes = np.flatnonzero(np.r_[True, block.token[1:] != block.token[:-1]])
        _, first = np.unique(block.token[changes], return_index=True)
        rows = changes[np.sort(first)]
        self.keys.append(block.token[rows])
        for name in _COLUMNS:
            known = getattr(block, name)
            self.columns[name].append(
                np.full(len(rows), UNKNOWN, np.int32) if known is None else np.asarray(known)[rows].astype(np.int32)
            )

    def numbered(self) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Keys in ascending order, the number of each by first occurrence, and the columns by number."""
        keys = np.concatenate(self.keys)
        self.keys.clear()
        ordered, first = np.unique(keys, return_index=True)
        by_number = np.argsort(first, kind="stable")
        number = np.empty(len(first), dtype=np.int64)
        number[by_number] = np.arange(len(first))
        rows = first[by_number]
        return ordered, number, {name: np.concatenate(parts)[rows] for name, parts in self.columns.items()}


@dataclass
class _Rows:
    """The rows of a block, as small as they can be kept."""

    token: NDArray[np.int64]
    layer: NDArray[np.int16]
    expert: NDArray[Any]
    weight: NDArray[np.float32] | None
    block: ChoiceBlock | None
    """With what names the places of rows only."""


def assemble(blocks: Iterator[ChoiceBlock], job: ImportJob) -> Trace:
    """The trace of all blocks: tokens in the order in which they first occur, layers by number.

    What was not recorded is -1 and said in a note.

    Raises:
        TraceError: a row that is no choice of a router, a (token, layer) that occurs twice, no row at all, or more of
            them than fit the memory of this machine. The text names the place where the layout knows it.
    """
    tokens, rows, layers = _Tokens(), [], set[int]()
    free = _MEMORY_SHARE * psutil.virtual_memory().available
    held, top_k, weighted = 0, 1, True
    for block in blocks:
        if not len(block.token):
            continue
        kept = _checked(block, job)
        layers.update(np.unique(kept.layer).tolist())
        tokens.add(block)
        rows.append(kept)
        top_k, weighted = max(top_k, kept.expert.shape[1]), weighted and kept.weight is not None
        held += len(kept.token) * (24 + 16 * kept.expert.shape[1])  # with the arrays that they become
        if held > free:
            raise TraceError(
                f"{job.files[0]}: found above {held / 1e9:.1f} GB of choices, wanted at most the {free / 1e9:.1f} GB "
                "that this machine has free: import fewer files or layers at a time"
            )
    if not rows:
        raise TraceError(f"{job.files[0]}: found no records, wanted one line a (token, layer)")
    if not weighted and any(kept.weight is not None for kept in rows):
        job.note("some rows have no weights: the weights of the others are left out")
    ids = np.array(sorted(layers))
    keys, number, columns = tokens.numbered()
    return _filled(rows, ids, keys, number, columns, top_k=top_k, weighted=weighted, job=job)


def _checked(block: ChoiceBlock, job: ImportJob) -> _Rows:
    """The rows of a block, which are choices that a router can make."""
    expert, layer, weight = np.asarray(block.expert), np.asarray(block.layer), block.weight
    limit = MAX_EXPERTS if job.n_experts is None else job.n_experts
    _refuse(
        (expert < -1) | (expert >= limit),
        block,
        expert,
        f"experts from 0 to {limit - 1}" + ("" if job.n_experts is None else f", as there are {limit}"),
    )
    _refuse(((layer < 0) | (layer > MAX_LAYER))[:, None], block, layer[:, None], f"layers from 0 to {MAX_LAYER}")
    if job.dense_are_zero and expert.shape[1] > 1:
        signed = expert.astype(np.int64) if expert.dtype.kind == "u" else expert
        expert = np.where(np.any(expert, axis=1, keepdims=True), signed, -1)
    if job.rows_are_distinct:
        _refuse(repeated(expert)[:, None], block, expert, "distinct experts in a row")
    if weight is not None:
        weight = np.asarray(weight)
        _refuse(~((weight >= 0) & (weight <= MAX_WEIGHT)), block, weight, "weights that are finite numbers from 0")
        weight = weight.astype(np.float32, copy=False)
        if expert.min() < 0:
            weight = np.where(expert < 0, np.float32(0), weight)
    small = np.int8 if expert.max() < 128 else np.int16 if expert.max() < 2**15 else np.int32
    return _Rows(
        token=np.asarray(block.token, dtype=np.int64),
        layer=layer.astype(np.int16),
        expert=expert.astype(small),
        weight=weight,
        block=ChoiceBlock(token=_NONE, layer=_NONE, expert=_NONE, where=block.where),
    )


_NONE = np.empty(0, dtype=np.int64)


def _refuse(wrong: NDArray[np.bool_], block: ChoiceBlock, found: NDArray[Any], wanted: str) -> None:
    """Refuse the first row of which anything is wrong, [N, K]."""
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong.any(axis=1))[0])
    shown = found[row].tolist() if wrong.shape[1] == 1 and found.shape[1] > 1 else found[row][wrong[row]].tolist()
    raise TraceError(f"{block.where(row)}: found {str(shown)[:60]}, wanted {wanted}")


def _filled(
    rows: list[_Rows],
    ids: NDArray[Any],
    keys: NDArray[np.int64],
    number: NDArray[np.int64],
    columns: dict[str, NDArray[Any]],
    *,
    top_k: int,
    weighted: bool,
    job: ImportJob,
) -> Trace:
    n_tokens, n_layers = len(keys), len(ids)
    expert = np.full((n_layers, n_tokens, top_k), -1, dtype=np.int32)
    weight = np.zeros((n_layers, n_tokens, top_k), dtype=np.float32) if weighted else None
    row_of_layer = np.full(MAX_LAYER + 1, -1)
    row_of_layer[ids] = np.arange(n_layers)
    owner = np.full(n_layers * n_tokens, -1, dtype=np.int32)
    n_rows = 0
    rows.reverse()
    while rows:  # each block is dropped once it is placed, so that the rows are not held twice
        kept = rows.pop()
        token = number[np.searchsorted(keys, kept.token)]
        layer = row_of_layer[kept.layer]
        cell = layer * n_tokens + token
        mine = np.arange(n_rows, n_rows + len(cell), dtype=np.int32)
        taken = owner[cell] >= 0
        owner[cell] = mine
        taken |= owner[cell] != mine
        if taken.any():
            row = int(np.flatnonzero(taken)[0])
            assert kept.block is not None
            raise TraceError(f"{kept.block.where(row)}: this token has layer {kept.layer[row]} twice")
        n_rows += len(cell)
        width = kept.expert.shape[1]
        expert[layer, token, :width] = kept.expert
        if weight is not None and kept.weight is not None:
            weight[layer, token, :width] = kept.weight
    missing = n_layers * n_tokens - n_rows
    if missing:
        whole = np.count_nonzero((owner.reshape(n_layers, n_tokens) >= 0).all(axis=0))
        job.note(
            f"{missing} of {n_layers * n_tokens} (token, layer) pairs were not recorded; they make no choice there "
            f"({n_tokens - whole} of {n_tokens} tokens are incomplete)"
        )
    if (columns["sequence"] < 0).all():
        columns["sequence"] = np.zeros(n_tokens, np.int32)
    return Trace(
        expert=expert,
        weight=weight,
        **token_columns(n_tokens, **columns),
        layer_ids=tuple(map(int, ids)),
        n_experts=job.n_experts or int(expert.max()) + 1,
        model=job.model,
    )
