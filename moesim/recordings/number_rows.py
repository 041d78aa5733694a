"""Tables of numbers in CSV, read by PyArrow in blocks; one that is wrong is read again, row by row, to say where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.records import rows_of_block
from moesim.recordings.stream import line_blocks


class NumberRows(NamedTuple):
    """Rows of numbers float64 [N, W] and the numbers of their lines int64 [N]."""

    values: NDArray[np.float64]
    lines: NDArray[np.int64]


def number_rows(
    path: Path, width: int, *, header: bool, progress: Callable[[int], None] | None = None
) -> Iterator[NumberRows]:
    """The rows of a table of numbers, block by block; blank lines are passed over.

    Args:
        path: of the file, plain or compressed with gzip.
        width: W, cells of a row.
        header: whether the first line is none of the rows.
        progress: is told how many bytes were read.

    Raises:
        TraceError: a row of another width, a cell that is no number, or a file that cannot be read.
    """
    for first, block in line_blocks(path, progress):
        text, line = block, first
        if first == 1 and header:
            text, line = block.partition(b"\n")[2], 2
        if text.strip():
            yield _columns(text, line, width) or _row_by_row(path, text, line, width)


def _columns(text: bytes, first: int, width: int) -> NumberRows | None:
    """The rows as PyArrow reads them, None where a line is blank or wrong."""
    import pyarrow as pa
    from pyarrow import csv

    names = [str(column) for column in range(width)]
    try:
        table = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=len(text) + 1),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float64()), null_values=[]),
        )
    except pa.ArrowException:
        return None
    n_lines = text.count(b"\n") + (not text.endswith(b"\n"))
    if table.num_rows != n_lines:
        return None
    return NumberRows(np.column_stack([table[name].to_numpy() for name in names]), np.arange(first, first + n_lines))


def _row_by_row(path: Path, text: bytes, first: int, width: int) -> NumberRows:
    rows, lines = [], []
    for line, row in rows_of_block(path, first, text):
        if len(row) != width:
            raise TraceError(f"{path}:{line}: found {len(row)} cells, wanted {width}, as the first line has")
        rows.append([_number(f"{path}:{line}", cell) for cell in row])
        lines.append(line)
    return NumberRows(np.array(rows, dtype=np.float64).reshape(-1, width), np.array(lines, dtype=np.int64))


def _number(where: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise TraceError(f"{where}: found {cell[:40]!r}, wanted a number") from None
