"""Routing traces of format 1: a row for each (token, layer), ordered by token."""

from __future__ import annotations

import numpy as np

from moesim.errors import TraceError
from moesim.types import Trace, token_columns

FIRST_FORMAT = b"moesim-routing-trace-1"
_COLUMNS = ("token", "sequence", "layer", "experts", "weights")


def read_first_format(table: object, path: str, sha256: str) -> Trace:
    """The trace of a table of format 1.

    Raises:
        TraceError: columns or rows that no version of moesim wrote.
    """
    import pyarrow as pa

    assert isinstance(table, pa.Table)
    if tuple(table.column_names) != _COLUMNS or not _right_types(table.schema):
        raise TraceError("columns of the types that 'moesim import' writes")
    column = {name: table[name].combine_chunks() for name in _COLUMNS}
    n_rows = table.num_rows
    if n_rows == 0 or any(column[name].null_count for name in _COLUMNS):
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
        **token_columns(n_tokens, sequence=column["sequence"].to_numpy()[::n_layers]),
        layer_ids=tuple(range(n_layers)),
        n_experts=int(expert.max()) + 1,
        path=path,
        sha256=sha256,
    )


def _right_types(schema: object) -> bool:
    """Whether the columns have the types that format 1 gives them."""
    import pyarrow as pa

    assert isinstance(schema, pa.Schema)
    plain = [schema.field(name).type for name in ("token", "sequence", "layer")] == [pa.int64(), pa.int32(), pa.int32()]
    lists = [schema.field(name).type for name in ("experts", "weights")]
    if not plain or not all(pa.types.is_fixed_size_list(each) for each in lists):
        return False
    alike = lists[0].list_size == lists[1].list_size >= 1
    return bool(alike and [each.value_type for each in lists] == [pa.int32(), pa.float32()])
