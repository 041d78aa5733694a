"""JSON lines as columns: PyArrow reads them in blocks; one that is wrong is read again line by line, to say where."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.stream import count_newlines, line_blocks

MAX_ID = 2**31 - 1
_TASK_BYTES = 1 << 20
"""Of a block, what a thread parses at a time; a longer line is read by itself."""
MAX_LAYER = 9_999
MAX_EXPERTS = 100_000
"""As a scenario's model may have."""
MAX_WEIGHT = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a record.

    `kind` is "integer", "integers" (a list of distinct ones), "numbers" (a list
    of them), "key" (an integer or a text) or "text". Numbers are `minimum` to
    `maximum`. A field that is `optional` may be missing or null. A list has as
    many elements as the list `as_long_as`.
    """

    name: str
    kind: str = "integer"
    minimum: float = 0
    maximum: float = MAX_ID
    optional: bool = False
    as_long_as: str = ""


LAYER = Field(name="layer", maximum=MAX_LAYER)


def expert_list(name: str) -> Field:
    """A list of the distinct experts of a token."""
    return Field(name=name, kind="integers", maximum=MAX_EXPERTS - 1)


def weight_list(name: str, experts: str) -> Field:
    """A list of the weights of a token's experts."""
    return Field(name=name, kind="numbers", maximum=MAX_WEIGHT, as_long_as=experts)


@dataclass(kw_only=True)
class Rows:
    """N records of a block by field: integers int64 [N], lists [N, K] padded with -1 or 0, keys as codes int64 [N].

    A field that no record of the block has is absent; `lines` are the numbers of the records' lines.
    """

    path: Path
    columns: dict[str, NDArray[Any]]
    lines: range | NDArray[np.int32]

    @property
    def where(self) -> Callable[[int], str]:
        """A function that names file and line of a record, and does not keep the columns."""
        return partial(_place, self.path, self.lines)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The column of a field."""
        return self.columns[name]

    def get(self, name: str) -> NDArray[Any] | None:
        """The column of a field, None where no record has it."""
        return self.columns.get(name)


def _place(path: Path, lines: range | NDArray[np.int32], row: int) -> str:
    return f"{path}:{lines[row]}"


@dataclass
class KeyCodes:
    """Numbers of texts and other keys in the order in which they first occur, over all blocks and files."""

    codes: dict[Any, int] = field(default_factory=dict)

    def of(self, keys: Sequence[Any]) -> NDArray[np.int64]:
        """The number of each key."""
        return np.array([self.codes.setdefault(key, len(self.codes)) for key in keys], dtype=np.int64)


def read_rows(
    path: Path,
    fields: Sequence[Field],
    *,
    keys: Mapping[str, KeyCodes] | None = None,
    only: tuple[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Rows]:
    """The records of a file of JSON lines, block by block.

    Args:
        path: of the file, plain or compressed with gzip.
        fields: of the records; others are ignored.
        keys: numbers of the keys of each field of kind key.
        only: name and value of a text: records in which it has another value, or none, are skipped.
        progress: is told how many bytes were read.

    Raises:
        TraceError: a line that is no such record; the text names file and line.
    """
    parser: _Parser | None = None
    with ThreadPoolExecutor(1) as ahead:  # parses a block while the caller has the one before
        parsing: Future[Rows] | None = None
        for first_line, block in line_blocks(path, progress):
            if parser is None:
                parser = _Parser(path, fields, keys or {}, only, block)
            before, parsing = parsing, ahead.submit(parser.rows, first_line, block.removeprefix(b"\xef\xbb\xbf"))
            if before is not None and len(before.result().lines):
                yield before.result()
        if parsing is not None and len(parsing.result().lines):
            yield parsing.result()


class _Parser:
    """How the blocks of one file are parsed: the types of its keys are those of its first record."""

    def __init__(
        self,
        path: Path,
        fields: Sequence[Field],
        keys: Mapping[str, KeyCodes],
        only: tuple[str, str] | None,
        first_block: bytes,
    ) -> None:
        import pyarrow as pa

        self.path, self.fields, self.keys, self.only = path, fields, keys, only
        types = {
            "integer": pa.int64(),
            "integers": pa.list_(pa.int32()),
            "numbers": pa.list_(pa.float64()),
            "text": pa.string(),
        }
        of_keys = {
            name: pa.string() if re.search(rb'"%s"\s*:\s*"' % name.encode(), first_block[:10_000]) else pa.int64()
            for name in keys
        }
        schema = [pa.field(each.name, of_keys.get(each.name) or types[each.kind]) for each in fields]
        if only is not None:
            schema.append(pa.field(only[0], pa.string()))
        self.schema = pa.schema(schema)

    def rows(self, first_line: int, block: bytes) -> Rows:
        """The records of a block."""
        import pyarrow as pa
        import pyarrow.json as pj

        if block.isspace():
            return Rows(path=self.path, columns={}, lines=range(0))
        try:
            table = pj.read_json(
                pa.BufferReader(block),
                read_options=pj.ReadOptions(use_threads=True, block_size=min(_TASK_BYTES, len(block) + 1)),
                parse_options=pj.ParseOptions(explicit_schema=self.schema, unexpected_field_behavior="ignore"),
            )
        except pa.ArrowException:
            return self._line_by_line(first_line, block)
        n_lines = count_newlines(block) + (not block.endswith(b"\n"))
        lines: range | NDArray[np.int32] = range(first_line, first_line + n_lines)
        if table.num_rows != n_lines:
            blank = [not line.strip() for line in block.split(b"\n")[:n_lines]]
            lines = np.delete(np.asarray(lines, dtype=np.int32), blank)
        if table.num_rows != len(lines):
            return self._line_by_line(first_line, block)
        if self.only is not None:
            import pyarrow.compute as pc

            wanted = pc.fill_null(pc.equal(table[self.only[0]], self.only[1]), False)
            if not pc.all(wanted).as_py():
                table, lines = table.filter(wanted), np.asarray(lines, dtype=np.int32)[wanted.to_numpy()]
        columns: dict[str, NDArray[Any]] = {}
        lengths: dict[str, NDArray[Any]] = {}
        for each in self.fields:
            column = table[each.name].combine_chunks()
            if column.null_count == len(column) and (each.optional or not len(column)):
                continue
            found = None if column.null_count else self._values(each, column)
            if each.kind in ("integers", "numbers"):
                lengths[each.name] = np.diff(column.offsets.to_numpy())
            unequal = each.as_long_as in lengths and not np.array_equal(lengths[each.name], lengths[each.as_long_as])
            if found is None or unequal:
                return self._line_by_line(first_line, block)
            columns[each.name] = found
        return Rows(path=self.path, columns=columns, lines=lines)

    def _values(self, each: Field, column: Any) -> NDArray[Any] | None:
        """The values of a column without nulls, None where one is wrong."""
        if each.kind in ("key", "text"):
            encoded = column.dictionary_encode()
            codes = self.keys[each.name].of(encoded.dictionary.to_pylist())
            return np.asarray(codes[encoded.indices.to_numpy()])
        if each.kind == "integer":
            whole: NDArray[Any] = column.to_numpy()
            fits = not len(whole) or (whole.min() >= each.minimum and whole.max() <= each.maximum)
            return whole if fits else None
        flat = column.flatten()
        lengths = np.diff(column.offsets.to_numpy())
        if flat.null_count or (len(lengths) and lengths.min() < 1):
            return None
        values: NDArray[Any] = flat.to_numpy()
        if len(values) and not (values.min() >= each.minimum and values.max() <= each.maximum):  # also of NaN
            return None
        values = values.astype(np.float32) if each.kind == "numbers" else values
        padded = _padded(values, lengths, 0 if each.kind == "numbers" else -1)
        return None if each.kind == "integers" and repeated(padded).any() else padded

    def _line_by_line(self, first_line: int, block: bytes) -> Rows:
        """The records of a block, each checked by itself; raises the error of the first that is wrong."""
        records, lines = [], []
        for number, line in enumerate(block.split(b"\n"), start=first_line):
            if not line.strip():
                continue
            where = f"{self.path}:{number}"
            record = parsed_object(line, where)
            if self.only is not None and record.get(self.only[0]) != self.only[1]:
                continue
            check_record(record, self.fields, where)
            records.append(record)
            lines.append(number)
        columns: dict[str, NDArray[Any]] = {}
        for each in self.fields:
            values: list[Any] = [record.get(each.name) for record in records]
            if all(value is None for value in values):
                continue
            if None in values:
                where = f"{self.path}:{lines[values.index(None)]}"
                raise TraceError(f"{where}: {each.name}: missing, though other lines have it")
            if each.kind in ("key", "text"):
                columns[each.name] = self.keys[each.name].of(values)
            elif each.kind == "integer":
                columns[each.name] = np.array(values, dtype=np.int64)
            else:
                dtype, missing = (np.float32, 0) if each.kind == "numbers" else (np.int32, -1)
                lengths = np.array([len(value) for value in values])
                columns[each.name] = _padded(np.concatenate([np.array(v, dtype) for v in values]), lengths, missing)
        return Rows(path=self.path, columns=columns, lines=np.array(lines, dtype=np.int32))


def _padded(values: NDArray[Any], lengths: NDArray[Any], missing: float) -> NDArray[Any]:
    """Lists [N, K] of as many values each, filled up to the longest."""
    width = int(lengths.max()) if len(lengths) else 1
    if len(values) == width * len(lengths):
        return values.reshape(len(lengths), width)
    out = np.full((len(lengths), width), missing, dtype=values.dtype)
    out[np.arange(width) < lengths[:, None]] = values
    return out


def repeated(expert: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Whether a row [N, K] has an expert twice, [N]; -1 is none."""
    found = np.zeros(len(expert), dtype=np.bool_)
    columns = np.ascontiguousarray(expert.T)
    for i in range(len(columns)):
        for j in range(i):
            found |= (columns[i] == columns[j]) & (columns[i] >= 0)
    return found


def parsed_object(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        TraceError: it is none.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        shown = line[:40].decode("utf-8", errors="replace")
        raise TraceError(f"{where}: found {shown!r}, wanted a JSON object")
    return record


def check_record(record: Mapping[str, Any], fields: Sequence[Field], where: str) -> None:
    """Refuse a record whose fields are wrong.

    Raises:
        TraceError: file, line, field, what was found and what would be right.
    """
    missing = [each.name for each in fields if record.get(each.name) is None and not each.optional]
    if missing:
        wanted = ", ".join(each.name for each in fields if not each.optional)
        raise TraceError(f"{where}: {', '.join(missing)}: missing, wanted a record with {wanted}")
    for each in fields:
        value = record.get(each.name)
        if value is None:
            continue
        wanted = _objection(each, value, record)
        if wanted:
            raise TraceError(f"{where}: {each.name}: found {value!r:.60}, wanted {wanted}")


def _objection(each: Field, value: Any, record: Mapping[str, Any]) -> str:
    """What would be right in place of a value, "" where it is."""
    if each.kind in ("key", "text"):
        whole = type(value) is int and -(2**63) <= value < 2**63
        return "" if isinstance(value, str) or (whole and each.kind == "key") else "a text or an integer"
    if each.kind == "integer":
        fits = type(value) is int and each.minimum <= value <= each.maximum
        return "" if fits else f"an integer from {each.minimum:g} to {each.maximum:.0f}"
    length = len(record[each.as_long_as]) if each.as_long_as else 0
    if each.kind == "numbers":
        # compared as they are: an integer of JSON may be too large for any float
        numbers = isinstance(value, list) and all(
            type(x) in (int, float) and each.minimum <= x <= each.maximum for x in value
        )
        if numbers and value and (not each.as_long_as or len(value) == length):
            return ""
        return f"{length or 'some'} finite numbers from {each.minimum:g} to {each.maximum:.1e}"
    if not isinstance(value, list) or not value or len(set(map(str, value))) != len(value):
        return "a list of distinct experts"
    fits = all(type(x) is int and each.minimum <= x <= each.maximum for x in value)
    return "" if fits else f"integers from {each.minimum:g} below {each.maximum + 1:.0f}"
