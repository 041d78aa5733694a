"""Tables of counts in CSV: a row a (layer, expert), with a step where there are several, or a row a layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_CELLS
from moesim.recordings.json_lines import MAX_EXPERTS, MAX_LAYER
from moesim.recordings.layout import ImportJob, Layout
from moesim.recordings.layouts.arrays import counts_trace, whole_counts
from moesim.recordings.number_rows import number_rows
from moesim.recordings.records import csv_rows
from moesim.recordings.sample import Sample
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
    stated = np.zeros(len(count), dtype=np.bool_)
    stated[cell] = True
    if np.count_nonzero(stated) < len(cell):
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
    names = next(csv_rows(path), (1, [""]))[1]
    columns = columns_of(tuple(cell.strip().lower() for cell in names))
    blocks, n_rows = [], 0
    for rows in number_rows(path, len(names), header=columns is not None, progress=job.progress):
        blocks.append(rows.values)
        n_rows += len(rows.values)
        if n_rows * len(names) > MAX_CELLS:
            raise TraceError(f"{path}:{rows.lines[-1]}: found above {MAX_CELLS} numbers, wanted fewer")
    if not n_rows:
        raise TraceError(f"{path}: found a header alone, wanted rows of layer, expert and count")
    numbers = np.concatenate(blocks)
    if columns is None:
        return counts_trace(whole_counts(numbers, str(path))[None], job)
    zeros = np.zeros(n_rows)
    return counts_of_rows({n: numbers[:, i] if i >= 0 else zeros for n, i in columns.items()}, job, str(path))


CSV_COUNTS = Layout(
    name="csv-counts",
    summary="CSV of counts: columns layer, expert, count and, for several steps, step; or a matrix with a row a layer",
    recognises=_recognises,
    read=_read,
)
