"""MindIE's expert loads: one CSV an NPU, a row for each MoE layer again and again, a column for each of its experts.

Facts: MindIE's documentation of expert load balancing (mindie_llm0431); separator and header are not documented, so
commas and none are taken. Experts are numbered through the NPUs in the order of the numbers in the files' names.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_CELLS, MAX_COUNT
from moesim.recordings.layout import ImportJob, Layout
from moesim.recordings.layouts.arrays import counts_trace
from moesim.recordings.records import cell, csv_rows
from moesim.types import CountsTrace


def _read(job: ImportJob) -> CountsTrace:
    """Counts of all NPUs side by side.

    Raises:
        TraceError: the model is not stated, a cell is no count, or files differ in rows.
    """
    model = job.options.model
    if model is None:
        raise TraceError(
            f"{job.files[0]}: found rows of numbers alone, which may be loads of MindIE (a file an NPU, a row an MoE "
            "layer); say how many layers there are: --model NAME"
        )
    n_layers = len(model.moe_layers)
    paths = sorted(job.files, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
    tables = [_table(path, job) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if len(table) != len(tables[0]) or len(table) % n_layers:
            wanted = f"a multiple of {n_layers} (MoE layers of {model.name}), the same in every file"
            raise TraceError(f"{path}: found {len(table)} rows, wanted {wanted}")
    count = np.concatenate(tables, axis=1).reshape(-1, n_layers, sum(table.shape[1] for table in tables))
    job.note(f"experts are numbered through {len(paths)} files in the order of the numbers in their names")
    return counts_trace(count, job, layer_ids=model.moe_layers)


def _table(path: Path, job: ImportJob) -> NDArray[np.int64]:
    """The numbers of a file [rows, experts]."""
    rows: list[list[int]] = []
    cells = 0
    for line, row in csv_rows(path, job.progress):
        if rows and len(row) != len(rows[0]):
            raise TraceError(f"{path}:{line}: found {len(row)} cells, wanted {len(rows[0])} as in the first row")
        cells += len(row)
        if cells > MAX_CELLS:
            raise TraceError(f"{path}:{line}: more than {MAX_CELLS} counts, wanted less")
        rows.append([cell(f"{path}:{line}", text, MAX_COUNT) for text in row])
    return np.array(rows, dtype=np.int64)


LAYOUT = Layout(
    name="mindie-csv",
    summary="MindIE's expert loads (a CSV an NPU; say --layout mindie-csv --model NAME)",
    recognises=lambda sample: False,  # noqa: ARG005 - a table of numbers alone says nothing
    read=_read,
)
