"""Tables of counts in CSV: a row a (layer, expert), with a step where there are several, or a row a layer."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.json_lines import MAX_EXPERTS, MAX_LAYER
from moesim.recordings.layout import ImportJob, Layout
from moesim.recordings.layouts.arrays import counts_trace, whole_counts
from moesim.recordings.sample import Sample
from moesim.recordings.stream import read_document
from moesim.types import CountsTrace

COUNT_COLUMNS = {
    "step": ("step", "iteration", "iter", "forward_pass_id"),
    "layer": ("layer", "layer_id", "layer_idx"),
    "expert": ("expert", "expert_id", "expert_idx"),
    "count": ("count", "counts", "tokens", "num_tokens", "load"),
}
"""Names of the columns of a table of counts, the common one first."""
_MAX_CELLS = 1 << 30


def columns_of(names: tuple[str, ...]) -> dict[str, int] | None:
    """Where the columns of a table of counts stand, None where one is missing; a step may be."""
    found = {
        column: next((names.index(name) for name in known if name in names), -1)
        for column, known in COUNT_COLUMNS.items()
    }
    return None if min(found[name] for name in ("layer", "expert", "count")) < 0 else found


def counts_of_rows(columns: dict[str, NDArray[Any]], job: ImportJob, where: str) -> CountsTrace:
    """The counts of rows (step, layer, expert, count), which may be in any order; what has no row counts 0.

    Raises:
        TraceError: a step, layer or expert that is no whole number in range, or one (step, layer, expert) twice.
    """
    for name, limit in (("step", 2**31), ("layer", MAX_LAYER + 1), ("expert", MAX_EXPERTS)):
        values = columns[name]
        wrong = ~(np.isfinite(values) & (values >= 0) & (values < limit) & (values == np.floor(values)))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise TraceError(
                f"{where}:{row + 2}: {name}: found {values[row]:g}, wanted an integer from 0 below {limit}"
            )
    counted = whole_counts(columns["count"], where)
    steps, step = np.unique(columns["step"].astype(np.int64), return_inverse=True)
    layers, layer = np.unique(columns["layer"].astype(np.int64), return_inverse=True)
    expert = columns["expert"].astype(np.int64)
    n_experts = job.options.n_experts or (job.options.model.n_experts if job.options.model else int(expert.max()) + 1)
    if expert.max() >= n_experts:
        row = int(np.flatnonzero(expert >= n_experts)[0])
        raise TraceError(f"{where}:{row + 2}: expert: found {expert[row]}, wanted experts 0 to {n_experts - 1}")
    if len(steps) * len(layers) * n_experts > _MAX_CELLS:
        raise TraceError(
            f"{where}: found {len(steps)} steps of {len(layers)} layers of {n_experts} experts, wanted fewer"
        )
    cell = (step * len(layers) + layer) * n_experts + expert
    count = np.zeros(len(steps) * len(layers) * n_experts, dtype=np.int64)
    count[cell] = counted
    if len(np.unique(cell)) < len(cell):
        raise TraceError(f"{where}: found a layer and expert twice, wanted one row for each")
    if len(cell) < len(count):
        job.note(f"{len(count) - len(cell)} of {len(count)} (layer, expert) pairs have no row and count 0")
    return counts_trace(
        count.reshape(len(steps), len(layers), n_experts), job, layer_ids=tuple(map(int, layers)), step=steps
    )


def _recognises(sample: Sample) -> bool:
    if columns_of(sample.header) is not None:
        return True
    return len(sample.header) > 1 and len(sample.lines) > 0 and all(map(_is_number, sample.header))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read(job: ImportJob) -> CountsTrace:
    if len(job.files) > 1:
        raise TraceError(f"{job.files[1]}: found a second table of counts, wanted one at a time")
    path = job.files[0]
    rows = _rows(path, read_document(path, job.progress))
    columns = columns_of(tuple(cell.strip().lower() for cell in rows[0][1]))
    if columns is None:
        return counts_trace(whole_counts(_matrix(path, rows), str(path))[None], job)
    numbers = _matrix(path, rows[1:], len(rows[0][1]))
    zeros = np.zeros(len(numbers))
    return counts_of_rows({n: numbers[:, i] if i >= 0 else zeros for n, i in columns.items()}, job, str(path))


def _rows(path: Path, text: bytes) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, with the numbers of their lines."""
    try:
        reader = csv.reader(io.StringIO(text.decode("utf-8-sig")))
        rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read: no CSV ({error!s:.60})") from None
    if not rows:
        raise TraceError(f"{path}: found no records, wanted rows under layer,expert,count")
    return rows


def _matrix(path: Path, rows: list[tuple[int, list[str]]], width: int | None = None) -> NDArray[np.float64]:
    """Rows of equally many numbers, as many as the header has cells."""
    if not rows:
        raise TraceError(f"{path}: found a header alone, wanted rows of layer, expert and count")
    width = width or len(rows[0][1])
    for line, row in rows:
        if len(row) != width:
            raise TraceError(f"{path}:{line}: found {len(row)} cells, wanted {width}, as the first line has")
        wrong = [cell for cell in row if not _is_number(cell)]
        if wrong:
            raise TraceError(f"{path}:{line}: found {wrong[0][:40]!r}, wanted a number")
    return np.array([row for _, row in rows], dtype=np.float64)


CSV_COUNTS = Layout(
    name="csv-counts",
    summary="CSV of counts: columns layer, expert, count and, for several steps, step; or a matrix with a row a layer",
    recognises=_recognises,
    read=_read,
)
