"""The routing trace: choices, counts or logits of real tokens in one documented parquet file.

Format 2 has a row for each (layer, token), ordered by layer and then by token,
with the columns `layer`, `token` (0 to T - 1 in every layer), `sequence`,
`step`, `position`, `phase` (0 prefill, 1 decode, 2 train), `topic` (-1 where
one of these is unknown) and `experts` and `weights`, lists of K, or `logits`, a
list of E. Counts have a row for each (step, layer) with `step`, `layer`,
`phase` and `counts`, a list of E. The metadata of the schema say `format`,
`kind` (choices, counts or logits) and, as JSON, `facts`. Files of format 1 are
read as well.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moesim.atomic import replacing
from moesim.errors import OutputError, TraceError
from moesim.recordings.first_format import FIRST_FORMAT, read_first_format
from moesim.recordings.stream import reason
from moesim.types import CountsTrace, LogitsTrace, Recording, Trace

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = b"moesim-routing-trace-2"
TOKEN_COLUMNS = ("sequence", "step", "position", "phase", "topic")
_INTEGERS = {"layer": "int32", "token": "int64", **dict.fromkeys(TOKEN_COLUMNS, "int32"), "phase": "int8"}
_COUNTS_INTEGERS = {"step": "int64", "layer": "int32", "phase": "int8"}
_FACTS = ("n_experts", "layout", "model", "synthetic", "notes")
_ROWS = 1 << 16
"""Rows that are held at a time beyond the arrays themselves."""


def check_replaceable(path: str | Path) -> None:
    """Refuse to write a trace over anything but a trace.

    Raises:
        OutputError: something else stands there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not os.path.lexists(path):
        return
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        metadata = {}
    if metadata.get(b"format") not in (FORMAT, FIRST_FORMAT):
        raise OutputError(f"{path}: exists and is no trace of moesim, so it is not replaced; choose another -o")


def write_trace(trace: Recording, path: str | Path) -> None:
    """Write a trace in format 2; the same bytes for the same trace.

    Raises:
        OutputError: the file cannot be written, or is no trace; an existing one is then unharmed.
    """
    import pyarrow.parquet as pq

    check_replaceable(path)
    batches = _count_batches(trace) if isinstance(trace, CountsTrace) else _token_batches(trace)
    first = next(batches)
    repeated = [name for name in first.schema.names if name in {*_INTEGERS, *_COUNTS_INTEGERS} - {"token"}]
    schema = first.schema.with_metadata(_metadata(trace))
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(
            temporary, schema, compression="zstd", use_dictionary=[*repeated, "experts.list.element"]
        ) as writer,
    ):
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _metadata(trace: Recording) -> dict[str, str]:
    kind = "choices" if isinstance(trace, Trace) else "counts" if isinstance(trace, CountsTrace) else "logits"
    facts = {name: getattr(trace, name) for name in _FACTS}
    if isinstance(trace, CountsTrace):
        facts["first_choice"] = trace.first_choice
    return {"format": FORMAT.decode(), "kind": kind, "facts": json.dumps(facts)}


def _lists(values: NDArray[Any]) -> pa.Array:
    """Rows [N, K] as lists of K."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[-1])


def _token_batches(trace: Trace | LogitsTrace) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for row, layer in enumerate(trace.layer_ids):
        for first in range(0, max(1, trace.n_tokens), 16 * _ROWS):
            some = slice(first, min(first + 16 * _ROWS, trace.n_tokens))
            n_rows = some.stop - first
            columns = {
                "layer": pa.array(np.full(n_rows, layer, np.int32)),
                "token": pa.array(np.arange(first, some.stop)),
                **{name: pa.array(getattr(trace, name)[some]) for name in TOKEN_COLUMNS},
            }
            if isinstance(trace, LogitsTrace):
                columns["logits"] = _lists(trace.logits[row, some])
            else:
                columns["experts"] = _lists(trace.expert[row, some].astype(np.int32, copy=False))
                if trace.weight is not None:
                    columns["weights"] = _lists(trace.weight[row, some])
            yield pa.record_batch(columns)


def _count_batches(trace: CountsTrace) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    n_layers = len(trace.layer_ids)
    at_once = max(1, _ROWS // n_layers)
    for first in range(0, trace.n_steps, at_once):
        some = slice(first, first + at_once)
        step = trace.step[some]
        columns = {
            "step": pa.array(np.repeat(step, n_layers)),
            "layer": pa.array(np.tile(np.array(trace.layer_ids, np.int32), len(step))),
            "phase": pa.array(np.repeat(trace.phase[some], n_layers)),
            "counts": _lists(trace.count[some].reshape(len(step) * n_layers, -1)),
        }
        yield pa.record_batch(columns)


def read_trace(path: str | Path) -> Recording:
    """Read a trace that `moesim import` wrote; one that has not changed since it was read is not read again.

    Raises:
        TraceError: the file is absent, damaged, of another format, or its rows do not form whole tokens.
    """
    try:
        found = Path(path).stat()
    except OSError as error:
        raise _unreadable(error) from None
    return _read(str(path), found.st_mtime_ns, found.st_size)


def is_trace(path: str | Path) -> bool:
    """Whether the file is a routing trace of either format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return (pq.read_schema(path).metadata or {}).get(b"format") in (FORMAT, FIRST_FORMAT)
    except (OSError, pa.ArrowException):
        return False


def _unreadable(error: OSError) -> TraceError:
    return TraceError(f"a readable trace ({reason(error)}); 'moesim import' makes one")


@lru_cache(maxsize=2)  # the variants of a comparison replay the same trace
def _read(path: str, _changed_ns: int, _size: int) -> Recording:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with Path(path).open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if metadata.get(b"format") == FIRST_FORMAT:
                return read_first_format(file.read(), path, sha256)
            if metadata.get(b"format") != FORMAT:
                raise TraceError("a routing trace that 'moesim import' wrote (other parquet files lack its columns)")
            facts = {"path": path, "sha256": sha256, **_facts(metadata)}
            kind = metadata.get(b"kind", b"").decode(errors="replace")
            if kind == "counts":
                return _read_counts(file, facts)
            if kind in ("choices", "logits"):
                return _read_tokens(file, kind, facts)
            raise TraceError(f"a trace of choices, counts or logits; it says that it has {kind[:40]!r}")
    except pa.ArrowException:
        raise TraceError("a parquet file that 'moesim import' wrote") from None
    except OSError as error:  # pyarrow raises it of damaged files too
        raise _unreadable(error) from None


def _facts(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """What the metadata state, of the right types."""
    try:
        found = json.loads(metadata.get(b"facts", b"{}"))
        notes = tuple(map(str, found.get("notes", ())))
        return {
            "n_experts": int(found["n_experts"]),
            "layout": str(found.get("layout", "")),
            "model": str(found.get("model", "")),
            "synthetic": bool(found.get("synthetic", False)),
            "notes": notes,
            **({"first_choice": bool(found["first_choice"])} if "first_choice" in found else {}),
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise TraceError("metadata `facts` with n_experts, as 'moesim import' writes them") from None


def _check_types(schema: pa.Schema, integers: dict[str, str], lists: dict[str, str]) -> None:
    """Refuse columns that are missing or not of the types that `write_trace` gives them."""
    import pyarrow as pa

    for name, dtype in integers.items():
        if name not in schema.names or str(schema.field(name).type) != dtype:
            raise TraceError(f"a column {name} of {dtype}, as 'moesim import' writes it")
    for name, dtype in lists.items():
        found = schema.field(name).type if name in schema.names else None
        if found is None or not pa.types.is_fixed_size_list(found) or str(found.value_type) != dtype:
            raise TraceError(f"a column {name} of lists of {dtype}, all equally long, as 'moesim import' writes it")
        if found.list_size < 1:
            raise TraceError(f"at least one number in each list of {name}")


def _column(file: pa.parquet.ParquetFile, name: str, rows: int) -> NDArray[Any]:
    """The first rows of a column, lists as a further axis."""
    parts: list[NDArray[Any]] = []
    n_read = 0
    for batch in file.iter_batches(batch_size=_ROWS, columns=[name]):
        column = batch.column(0)[: rows - n_read]
        n_read += len(column)
        parts.append(_array(column, name))
        if n_read >= rows:
            break
    return np.concatenate(parts) if parts else np.empty(0)


def _array(column: pa.Array, name: str) -> NDArray[Any]:
    import pyarrow as pa

    if column.null_count:
        raise TraceError(f"no empty cells; {name} has some")
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy())
    flat = column.flatten()
    if flat.null_count:
        raise TraceError(f"no empty cells; {name} has some")
    return np.asarray(flat.to_numpy()).reshape(len(column), column.type.list_size)


def _read_tokens(file: pa.parquet.ParquetFile, kind: str, facts: dict[str, Any]) -> Trace | LogitsTrace:
    schema = file.schema_arrow
    lists = {"logits": "float"} if kind == "logits" else {"experts": "int32"}
    if "weights" in schema.names:
        lists["weights"] = "float"
    _check_types(schema, _INTEGERS, lists)
    n_rows = file.metadata.num_rows
    layer, token = _column(file, "layer", n_rows), _column(file, "token", n_rows)
    if not n_rows:
        raise TraceError("a trace with at least one token")
    n_layers = 1 + int(np.count_nonzero(np.diff(layer)))
    n_tokens = n_rows // n_layers
    ids = layer[:: max(1, n_tokens)][:n_layers]
    whole = n_layers * n_tokens == n_rows and ids[0] >= 0 and bool((np.diff(ids) > 0).all())
    if not (
        whole
        and np.array_equal(layer, np.repeat(ids, n_tokens))
        and (token.reshape(n_layers, n_tokens) == np.arange(n_tokens)).all()
    ):
        raise TraceError("rows ordered by layer and token, every layer with every token")
    columns = {name: _column(file, name, n_tokens) for name in TOKEN_COLUMNS}
    facts |= {"layer_ids": tuple(map(int, ids)), **columns}
    if kind == "logits":
        logits = _filled(file, "logits", np.float32, (n_layers, n_tokens))
        if not np.isfinite(logits).all() or logits.shape[2] != facts["n_experts"]:
            raise TraceError(f"finite logits of {facts['n_experts']} experts")
        return LogitsTrace(logits=logits, **facts)
    expert = _filled(file, "experts", np.int32, (n_layers, n_tokens))
    weight = _filled(file, "weights", np.float32, (n_layers, n_tokens)) if "weights" in lists else None
    if weight is not None and weight.shape != expert.shape:
        raise TraceError("as many weights as experts in every row")
    check_choices(expert, weight, facts["n_experts"])
    return Trace(expert=expert, weight=weight, **facts)


def _filled(file: pa.parquet.ParquetFile, name: str, dtype: type, shape: tuple[int, int]) -> NDArray[Any]:
    """A column of lists as [L, T, K], filled batch by batch."""
    width = file.schema_arrow.field(name).type.list_size
    out = np.empty((shape[0] * shape[1], width), dtype)
    at = 0
    for batch in file.iter_batches(batch_size=_ROWS, columns=[name]):
        part = _array(batch.column(0), name)
        out[at : at + len(part)] = part
        at += len(part)
    return out.reshape(*shape, width)


def check_choices(expert: NDArray[np.int32], weight: NDArray[np.float32] | None, n_experts: int) -> None:
    """Refuse choices [L, T, K] that no router makes.

    Raises:
        TraceError: expert ids that are out of range or occur twice in a row, or weights that are no finite numbers
            from 0.
    """
    if not expert.size or expert.min() < -1 or expert.max() < 0:
        raise TraceError("experts counted from 0, or -1 where nothing was recorded")
    if expert.max() >= n_experts:
        raise TraceError(f"experts below the {n_experts} that the trace states; {expert.max()} occurs")
    for layer in expert:  # a layer at a time, so that little memory is needed beside the trace
        ordered = np.sort(layer, axis=1)
        if np.any((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)):
            raise TraceError("distinct experts in every choice of a token")
    if weight is not None and not (np.isfinite(weight) & (weight >= 0)).all():
        raise TraceError("weights that are finite numbers from 0")


def _read_counts(file: pa.parquet.ParquetFile, facts: dict[str, Any]) -> CountsTrace:
    _check_types(file.schema_arrow, _COUNTS_INTEGERS, {"counts": "int64"})
    n_rows = file.metadata.num_rows
    if not n_rows:
        raise TraceError("a trace with at least one step")
    step, layer, phase = (_column(file, name, n_rows) for name in ("step", "layer", "phase"))
    ids = np.unique(layer)
    n_steps = n_rows // len(ids)
    if n_steps * len(ids) != n_rows or ids[0] < 0 or not np.array_equal(layer, np.tile(ids, n_steps)):
        raise TraceError("rows ordered by step and layer, every step with every layer")
    count = _filled(file, "counts", np.int64, (n_steps, len(ids)))
    if count.min() < 0 or count.shape[2] != facts["n_experts"]:
        raise TraceError(f"counts from 0 of {facts['n_experts']} experts")
    facts = {"first_choice": False} | facts | {"layer_ids": tuple(map(int, ids))}
    return CountsTrace(count=count, step=step[:: len(ids)], phase=phase[:: len(ids)], **facts)
