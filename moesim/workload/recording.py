"""Recorded routing: which experts a real router chose, per token and layer, in one parquet file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moesim.atomic import replacing
from moesim.errors import OutputError, TraceError

FORMAT = b"moesim-routing-trace-1"
COLUMNS = ("token", "sequence", "layer", "experts", "weights")


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Choices of T tokens in L MoE layers, in the order in which they were served.

    `expert` int32 [L, T, K], -1 where nothing was recorded; `weight` float32
    [L, T, K]; `sequence` int32 [T]. `path` and `sha256` name the file it came from.
    """

    expert: NDArray[np.int32]
    weight: NDArray[np.float32]
    sequence: NDArray[np.int32]
    path: str = ""
    sha256: str = ""

    @property
    def n_layers(self) -> int:
        """L, MoE layers."""
        return int(self.expert.shape[0])

    @property
    def n_recorded_layers(self) -> int:
        """Layers of which any choice was recorded."""
        return int((self.expert >= 0).any(axis=(1, 2)).sum())

    @property
    def n_tokens(self) -> int:
        """T, tokens."""
        return int(self.expert.shape[1])

    @property
    def top_k(self) -> int:
        """K, choices of a token."""
        return int(self.expert.shape[2])

    @property
    def n_experts(self) -> int:
        """One more than the highest expert that occurs."""
        return int(self.expert.max()) + 1


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
    except (OSError, pa.ArrowInvalid):
        metadata = {}
    if metadata.get(b"format") != FORMAT:
        raise OutputError(f"{path}: exists and is no trace of moesim, so it is not replaced; choose another -o")


def write_trace(trace: Trace, path: str | Path) -> None:
    """Write a trace: a row a token and layer, `experts` and `weights` lists of K; the same bytes for the same trace.

    Raises:
        OutputError: the file cannot be written, or is no trace; an existing one is then unharmed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_replaceable(path)
    n_layers, n_tokens, top_k = trace.expert.shape
    token, layer = np.meshgrid(np.arange(n_tokens), np.arange(n_layers), indexing="ij")
    by_token = trace.expert.transpose(1, 0, 2), trace.weight.transpose(1, 0, 2)
    table = pa.table(
        {
            "token": pa.array(token.ravel(), pa.int64()),
            "sequence": pa.array(trace.sequence[token.ravel()], pa.int32()),
            "layer": pa.array(layer.ravel(), pa.int32()),
            "experts": pa.FixedSizeListArray.from_arrays(pa.array(by_token[0].ravel(), pa.int32()), top_k),
            "weights": pa.FixedSizeListArray.from_arrays(pa.array(by_token[1].ravel(), pa.float32()), top_k),
        }
    ).replace_schema_metadata({"format": FORMAT})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_trace(path: str | Path) -> Trace:
    """Read a trace that `moesim import` wrote; one that has not changed since it was read is not read again.

    Raises:
        TraceError: the file is absent, damaged, of another format, or its rows do not form whole tokens.
    """
    try:
        found = Path(path).stat()
    except OSError as error:
        raise TraceError(f"a readable trace ({error.strerror or error}); 'moesim import' makes one") from None
    return _read(str(path), found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=2)  # the variants of a comparison replay the same trace
def _read(path: str, _changed_ns: int, _size: int) -> Trace:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = Path(path).read_bytes()
        table = pq.read_table(pa.BufferReader(content))
    except OSError as error:
        raise TraceError(f"a readable trace ({error.strerror or error}); 'moesim import' makes one") from None
    except pa.ArrowInvalid:
        raise TraceError("a parquet file that 'moesim import' wrote") from None
    if (table.schema.metadata or {}).get(b"format") != FORMAT or tuple(table.column_names) != COLUMNS:
        raise TraceError("a routing trace that 'moesim import' wrote (other parquet files lack its columns)")
    return _trace(table, path, hashlib.sha256(content).hexdigest())


def _trace(table: object, path: str, sha256: str) -> Trace:
    """The arrays of a table whose rows are ordered by token and layer."""
    import pyarrow as pa

    assert isinstance(table, pa.Table)
    if not _right_types(table.schema):
        raise TraceError("columns of the types that 'moesim import' writes")
    column = {name: table[name].combine_chunks() for name in COLUMNS}
    n_rows = table.num_rows
    if n_rows == 0 or any(column[name].null_count for name in COLUMNS):
        raise TraceError("a trace with at least one token and no empty cells")
    token, layer = column["token"].to_numpy(), column["layer"].to_numpy()
    n_layers = max(1, int(layer.max()) + 1)
    n_tokens = n_rows // n_layers
    whole = n_tokens * n_layers == n_rows
    if not (
        whole
        and np.array_equal(token, np.repeat(np.arange(n_tokens), n_layers))
        and np.array_equal(layer, np.tile(np.arange(n_layers), n_tokens))
    ):
        raise TraceError("rows ordered by token and layer, every token with every layer")
    top_k = column["experts"].type.list_size
    expert = np.array(column["experts"].flatten(), dtype=np.int32).reshape(n_tokens, n_layers, top_k)
    weight = np.array(column["weights"].flatten(), dtype=np.float32).reshape(n_tokens, n_layers, top_k)
    if expert.min() < -1 or expert.max() < 0:
        raise TraceError("experts counted from 0, or -1 where nothing was recorded")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise TraceError("weights that are finite numbers from 0")
    ordered = np.sort(expert, axis=2)
    if np.any((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)):
        raise TraceError("distinct experts in every choice of a token")
    return Trace(
        expert=np.ascontiguousarray(expert.transpose(1, 0, 2)),
        weight=np.ascontiguousarray(weight.transpose(1, 0, 2)),
        sequence=np.array(column["sequence"].to_numpy()[::n_layers], dtype=np.int32),
        path=path,
        sha256=sha256,
    )


def _right_types(schema: object) -> bool:
    """Whether the columns have the types that `write_trace` gives them."""
    import pyarrow as pa

    assert isinstance(schema, pa.Schema)
    plain = [schema.field(name).type for name in ("token", "sequence", "layer")] == [pa.int64(), pa.int32(), pa.int32()]
    lists = [schema.field(name).type for name in ("experts", "weights")]
    if not plain or not all(pa.types.is_fixed_size_list(each) for each in lists):
        return False
    alike = lists[0].list_size == lists[1].list_size >= 1
    return bool(alike and [each.value_type for each in lists] == [pa.int32(), pa.float32()])
