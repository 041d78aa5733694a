"""Records of texts one at a time, for layouts whose lines differ or nest too deeply to be columns."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_EXPERTS
from moesim.recordings.layout import ChoiceBlock
from moesim.recordings.stream import line_blocks, open_stream, read_document, reason, unreadable

MAX_JSON_BYTES = 1 << 28
"""Of one JSON document, whose values take about twenty times as much memory at worst."""
MAX_WEIGHT = float(np.finfo(np.float32).max)
COLUMNS = ("step", "phase", "sequence", "position")
_FIRST_BYTES = 1 << 16
_ROWS = 50_000
"""Choices that are held before they become a block."""


class Row(NamedTuple):
    """The choices of one token in one layer; of the token only what is recorded, else -1."""

    token: int
    layer: int
    experts: list[int]
    weights: list[float] | None = None
    phase: int = -1
    step: int = -1
    sequence: int = -1
    position: int = -1


def json_records(path: Path, progress: Callable[[int], None] | None = None) -> Iterator[tuple[str, Any]]:
    """The values of a file of JSON lines with file and line; blank lines are passed over.

    Raises:
        TraceError: a line that is no JSON, or a file that cannot be read.
    """
    for first, block in line_blocks(path, progress):
        for number, line in enumerate(block.splitlines(), start=first):
            if line.strip():
                yield f"{path}:{number}", _parsed(f"{path}:{number}", line)


def json_objects(path: Path, progress: Callable[[int], None] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `json_records`, of a file whose every line is an object.

    Raises:
        TraceError: as `json_records`, or another value.
    """
    for where, value in json_records(path, progress):
        if not isinstance(value, dict):
            raise TraceError(f"{where}: found {value!r:.40}, wanted a JSON object")
        yield where, value


def json_document(path: Path, progress: Callable[[int], None] | None = None) -> Any:
    """The value of a JSON file.

    Raises:
        TraceError: it is no JSON, cannot be read, or is too large to be held.
    """
    return _parsed(str(path), read_document(path, progress, MAX_JSON_BYTES))


def json_values(path: Path, progress: Callable[[int], None] | None = None) -> Iterator[tuple[str, Any]]:
    """The values of a JSON document, or of JSON lines where the first line is a whole value.

    Raises:
        TraceError: as `json_document` and `json_records`.
    """
    try:
        with open_stream(path) as stream:
            line, end, _ = stream.read(_FIRST_BYTES).partition(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None
    if end and _is_json(line):
        yield from json_records(path, progress)
        return
    content = read_document(path, progress, MAX_JSON_BYTES)
    if not end and not _is_json(content):  # lines that are longer than what was read first
        del content
        yield from json_records(path, progress)
        return
    yield str(path), _parsed(str(path), content)


def csv_rows(path: Path, progress: Callable[[int], None] | None = None) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV, of which none is blank, with their lines; the header is the first.

    Raises:
        TraceError: bytes that are no text, a cell that is too long, or a file that cannot be read.
    """
    for first, block in line_blocks(path, progress):
        yield from rows_of_block(path, first, block)


def rows_of_block(path: Path, first: int, block: bytes) -> Iterator[tuple[int, list[str]]]:
    """The rows of a block of whole lines, of which `first` is the number of the first.

    Raises:
        TraceError: bytes that are no text, or a cell that is too long.
    """
    try:
        text = block.decode("utf-8-sig" if first == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line = first + block[: error.start].count(b"\n")
        raise TraceError(f"{path}:{line}: found bytes that are no text, wanted a CSV") from None
    reader = csv.reader(text.splitlines(), strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            line = first + reader.line_num - 1
            raise TraceError(f"{path}:{line}: found a broken row ({reason(error)}), wanted a CSV") from None
        if any(cell.strip() for cell in row):
            yield first + reader.line_num - 1, row


def blocks_of_rows(rows: Iterable[tuple[str, Row]]) -> Iterator[ChoiceBlock]:
    """Blocks of rows, each with the place that errors name."""
    held: list[tuple[str, Row]] = []
    for each in rows:
        held.append(each)
        if len(held) == _ROWS:
            yield _block(held)
            held = []
    if held:
        yield _block(held)


def _block(held: list[tuple[str, Row]]) -> ChoiceBlock:
    places, rows = [place for place, _ in held], [row for _, row in held]
    width = max(len(row.experts) for row in rows)
    expert = np.full((len(rows), width), -1, dtype=np.int32)
    weight = np.zeros((len(rows), width), dtype=np.float32) if rows[0].weights is not None else None
    for at, (place, row) in enumerate(held):
        expert[at, : len(row.experts)] = row.experts
        if (row.weights is None) != (weight is None):
            raise TraceError(f"{place}: found weights in some records and not in others, wanted them in all or none")
        if weight is not None:
            weight[at, : len(row.experts)] = row.weights
    columns = {name: np.array([getattr(row, name) for row in rows], dtype=np.int64) for name in COLUMNS}
    return ChoiceBlock(
        token=np.array([row.token for row in rows], dtype=np.int64),
        layer=np.array([row.layer for row in rows], dtype=np.int64),
        expert=expert,
        weight=weight,
        where=places.__getitem__,
        **{name: values for name, values in columns.items() if (values >= 0).any()},
    )


def whole(where: str, value: Any, end: int) -> int:
    """A whole number from 0 below `end`.

    Raises:
        TraceError: it is none.
    """
    if type(value) is not int or not 0 <= value < end:
        raise TraceError(f"{where}: found {value!r:.60}, wanted a whole number from 0 below {end}")
    return value


def cell(where: str, text: str, end: int) -> int:
    """The whole number from 0 below `end` of a CSV's cell; one with a fraction of zero is taken.

    Raises:
        TraceError: something else.
    """
    stripped = text.strip().removesuffix(".0")
    if not stripped.isascii() or not stripped.isdecimal() or len(stripped) > 18 or int(stripped) >= end:
        raise TraceError(f"{where}: found {text[:40]!r}, wanted a whole number from 0 below {end}")
    return int(stripped)


def distinct(where: str, value: Any, n_experts: int = MAX_EXPERTS) -> list[int]:
    """A list of distinct expert ids.

    Raises:
        TraceError: it is none.
    """
    if not isinstance(value, list) or not value or len(value) > n_experts:
        raise TraceError(f"{where}: found {value!r:.60}, wanted a list of distinct experts")
    if any(type(each) is not int or not 0 <= each < n_experts for each in value):
        raise TraceError(f"{where}: found {value!r:.60}, wanted whole numbers from 0 below {n_experts}")
    if len(set(value)) != len(value):
        raise TraceError(f"{where}: found {value!r:.60}, wanted a list of distinct experts")
    return value


def finite(where: str, value: Any, length: int) -> list[float]:
    """A list of `length` finite weights from 0.

    Raises:
        TraceError: it is none.
    """
    right = isinstance(value, list) and len(value) == length
    if not right or not all(type(weight) in (int, float) and 0 <= weight <= MAX_WEIGHT for weight in value):
        raise TraceError(f"{where}: found {value!r:.60}, wanted {length} finite numbers from 0")
    return [float(each) for each in value]


def _is_json(text: bytes) -> bool:
    try:
        _parsed("", text)
    except TraceError:
        return False
    return True


def _parsed(where: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise TraceError(f"{where}: found {text[:40].decode(errors='replace')!r}, wanted JSON") from None
