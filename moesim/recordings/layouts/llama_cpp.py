"""CSV files of selected experts: moe-trace of llama.cpp, and one row of ids a (token, layer).

Facts: ggml-org/llama.cpp pull request 28544 writes `layer,expert`, a row an assignment without its token, which gives
counts alone. Other tools write `layer_id,expert_ids` with the ids of a token in one cell; the n-th row of a layer is
then its n-th token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_CELLS, MAX_EXPERTS, MAX_LAYERS, stated_experts
from moesim.recordings.layout import ChoiceBlock, ImportJob, Layout
from moesim.recordings.layouts.arrays import counts_trace
from moesim.recordings.number_rows import NumberRows, number_rows
from moesim.recordings.records import Row, blocks_of_rows, cell, csv_rows, distinct
from moesim.types import CountsTrace

COUNTS, SELECTIONS = ("layer", "expert"), ("layer_id", "expert_ids")


def _cells(job: ImportJob) -> Iterator[tuple[int, str, list[str]]]:
    """Rows of all files with the number of the file and their place."""
    for number, path in enumerate(job.files):
        for line, row in csv_rows(path, job.progress):
            where = f"{path}:{line}"
            if len(row) != len(SELECTIONS):
                raise TraceError(f"{where}: found {len(row)} cells, wanted {','.join(SELECTIONS)}")
            if line > 1 or tuple(name.strip().lower() for name in row) != SELECTIONS:
                yield number, where, row


def _read_counts(job: ImportJob) -> CountsTrace:
    """The counts of all files, a file a step.

    Raises:
        TraceError: a cell that is no number.
    """
    counts: Counter[tuple[int, int, int]] = Counter()
    for step, path in enumerate(job.files):
        for rows in number_rows(path, len(COUNTS), header=True, progress=job.progress):
            codes, numbers = np.unique(_codes(path, rows), return_counts=True)
            for code, number in zip(codes.tolist(), numbers.tolist(), strict=True):
                counts[step, code // MAX_EXPERTS, code % MAX_EXPERTS] += number
    if not counts:
        raise TraceError(f"{job.files[0]}: found no assignments, wanted a row for each")
    layers = sorted({layer for _, layer, _ in counts})
    n_experts = stated_experts(job, max(expert for _, _, expert in counts))
    if len(job.files) * len(layers) * n_experts > MAX_CELLS:
        raise TraceError(f"{job.files[0]}: found too many layers and experts, wanted at most {MAX_CELLS} counts")
    count = np.zeros((len(job.files), len(layers), n_experts), dtype=np.int64)
    at = {layer: number for number, layer in enumerate(layers)}
    for (step, layer, expert), value in counts.items():
        count[step, at[layer], expert] = value
    job.note("the file names no tokens: the assignments of a file are counted as one step")
    return counts_trace(count, job, layer_ids=tuple(layers))


def _codes(path: Path, rows: NumberRows) -> NDArray[np.int64]:
    """The assignments of rows as layer x MAX_EXPERTS + expert.

    Raises:
        TraceError: a row that is no layer and expert.
    """
    limits = np.array([MAX_LAYERS, MAX_EXPERTS])
    right = (rows.values >= 0) & (rows.values < limits) & (rows.values == np.floor(rows.values))
    if not right.all():
        row, column = (int(i) for i in np.argwhere(~right)[0])
        found, wanted = rows.values[row, column], f"a whole number from 0 below {limits[column]}"
        raise TraceError(f"{path}:{rows.lines[row]}: {COUNTS[column]}: found {found:g}, wanted {wanted}")
    return (rows.values[:, 0] * MAX_EXPERTS + rows.values[:, 1]).astype(np.int64)


def _rows(job: ImportJob) -> Iterator[tuple[str, Row]]:
    """A row a (token, layer), tokens in the order of their rows in each layer.

    Raises:
        TraceError: a cell that is no number, or an expert that is named twice.
    """
    seen: dict[tuple[int, int], int] = {}
    for number, where, row in _cells(job):
        layer = cell(f"{where}: layer_id", row[0], MAX_LAYERS)
        named = f"{where}: expert_ids"
        ids = distinct(named, [cell(named, each, MAX_EXPERTS) for each in row[1].split()])
        token = seen.get((number, layer), 0)
        seen[number, layer] = token + 1
        yield where, Row((number << 32) + token, layer, ids)


def _read_selections(job: ImportJob) -> Iterator[ChoiceBlock]:
    job.note("tokens are taken to be in the same order in every layer, as the file does not number them")
    return blocks_of_rows(_rows(job))


LAYOUTS = (
    Layout(
        name="llama-cpp-csv",
        summary="llama.cpp's moe-trace (CSV of layer,expert), counts alone",
        recognises=lambda sample: sample.header == COUNTS,
        read=_read_counts,
    ),
    Layout(
        name="expert-selection-csv",
        summary="the experts of a token in a cell (CSV of layer_id,expert_ids)",
        recognises=lambda sample: sample.header == SELECTIONS,
        read=_read_selections,
    ),
)
