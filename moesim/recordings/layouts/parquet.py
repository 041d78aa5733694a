"""Parquet: traces of moesim itself, and tables of counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.layout import ImportJob, Layout
from moesim.recordings.layouts.tables import columns_of, counts_of_rows
from moesim.recordings.parquet import is_trace, read_trace
from moesim.recordings.sample import Sample
from moesim.recordings.stream import reason
from moesim.types import CountsTrace, Recording


def _read_trace(job: ImportJob) -> Recording:
    if len(job.files) > 1:
        raise TraceError(f"{job.files[1]}: found a second trace, wanted one at a time")
    path = job.files[0]
    try:
        trace = read_trace(path)
    except TraceError as error:
        raise TraceError(f"{path}: wanted {error}") from None
    job.progress(path.stat().st_size)
    for note in trace.notes:
        job.note(note)
    return trace


def _has_counts(sample: Sample) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if sample.kind != "parquet":
        return False
    try:
        return columns_of(tuple(name.lower() for name in pq.read_schema(sample.path).names)) is not None
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"{sample.path}: cannot be read: the parquet file is damaged ({reason(error)})") from None


def _read_counts(job: ImportJob) -> CountsTrace:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if len(job.files) > 1:
        raise TraceError(f"{job.files[1]}: found a second table of counts, wanted one at a time")
    path = job.files[0]
    try:
        names = tuple(pq.read_schema(path).names)
        places = columns_of(tuple(name.lower() for name in names))
        if places is None:
            raise TraceError(f"{path}: found columns {', '.join(names)!s:.60}, wanted layer, expert and count")
        table = pq.read_table(path, columns=[names[i] for i in places.values() if i >= 0])
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"{path}: cannot be read: the parquet file is damaged ({reason(error)})") from None
    job.progress(path.stat().st_size)
    if not table.num_rows:
        raise TraceError(f"{path}: found no records, wanted rows of layer, expert and count")
    columns: dict[str, NDArray[Any]] = {"step": np.zeros(table.num_rows)}
    for name, place in places.items():
        if place < 0:
            continue
        column = table[names[place]]
        number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        if not number or column.null_count:
            raise TraceError(f"{path}: {names[place]}: found {column.type} or empty cells, wanted numbers")
        columns[name] = column.to_numpy()
    return counts_of_rows(columns, job, str(path))


PARQUET_TRACE = Layout(
    name="moesim-trace",
    summary="parquet trace that moesim wrote, of either format",
    recognises=lambda sample: sample.kind == "parquet" and is_trace(sample.path),
    read=_read_trace,
)
PARQUET_COUNTS = Layout(
    name="parquet-counts",
    summary="parquet table of counts: columns layer, expert, count and, for several steps, step",
    recognises=_has_counts,
    read=_read_counts,
)
