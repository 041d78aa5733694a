"""Assignments per layer and expert, as serving engines count them: JSON, .npy or CSV in, shares of the load out."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ParameterError

COLUMNS = (("layer", "layer_id"), ("expert", "expert_id"), ("count",))
"""Names of the columns of a CSV file that has a header."""
_MAX_ID = 100_000
_NUMBERS = "numbers of assignments"


def read_counts(
    path: str | Path, *, n_layers: int, moe_layers: Sequence[int], n_experts: int
) -> tuple[NDArray[np.float64], str]:
    """Counts [L, E] of the MoE layers, and the sha256 of the file.

    `.json`: `logical_count` [layers][experts] or [steps][layers][experts] (or
    such lists alone). `.npy`: the same shapes, or [experts]. `.csv`: a header
    layer,expert,count and its rows, or a matrix with a row a layer.
    JSON and CSV may be .gz. Steps are summed; [experts] and a matrix of one row
    stand for every layer. Rows of zeros are layers without experts where the
    others are as many as the MoE layers; of a row for each of the `n_layers` of
    the model, dense ones included, `moe_layers` are taken.

    Raises:
        ParameterError: what was found in the file and what would be right.
    """
    name = Path(path).name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    readers: dict[str, Callable[[bytes], NDArray[Any]]]
    readers = {".json": _json, ".npy": _npy, ".csv": partial(_csv, n_experts=n_experts)}
    if suffix not in readers or name.endswith(".npy.gz"):
        raise _error("another type of file", "one that ends in .json, .csv, .json.gz, .csv.gz or .npy")
    try:
        content = Path(path).read_bytes()
        text = gzip.decompress(content) if name.endswith(".gz") else content
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _error(f"nothing readable ({reason})", "counts per layer and expert") from None
    counts = _checked(readers[suffix](text))
    return _of_layers(counts, n_layers, moe_layers, n_experts), hashlib.sha256(content).hexdigest()


def _json(text: bytes) -> NDArray[Any]:
    wanted = "logical_count, a list of lists of numbers: [layers][experts] or [steps][layers][experts]"
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _error(f"no JSON ({error!s:.60})", wanted) from None
    if isinstance(data, Mapping):
        if "logical_count" not in data:
            raise _error(f"{', '.join(map(str, data))!s:.60}", wanted)
        data = data["logical_count"]
    try:
        return np.array(data)
    except ValueError:
        raise _error("rows of different lengths", wanted) from None


def _npy(content: bytes) -> NDArray[Any]:
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError) as error:  # the last of a header that promises too much
        raise _error(f"no plain array ({error!s:.60})", ".npy of numbers, not pickled") from None
    if not isinstance(found, np.ndarray):  # an archive of several
        raise _error("an archive", ".npy with one array of numbers")
    return found


def _csv(text: bytes, *, n_experts: int) -> NDArray[Any]:
    wanted = "rows under layer,expert,count, or a matrix with a row a layer, with commas"
    try:
        rows = [row for row in csv.reader(io.StringIO(text.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _error(f"no CSV ({error!s:.60})", wanted) from None
    if not rows:
        raise _error("no rows", wanted)
    head = [cell.strip().lower() for cell in rows[0]]
    order = [next((head.index(name) for name in names if name in head), -1) for names in COLUMNS]
    named = min(order) >= 0
    if not named and not _is_number(head[0]):
        raise _error(f"columns {', '.join(head)!s:.60}", wanted)
    try:
        table = np.array([[float(cell) for cell in row] for row in rows[named:]])
    except ValueError:  # a word, or rows of different lengths
        raise _error("words or rows of different lengths", wanted) from None
    if table.ndim != 2:
        raise _error("a header alone", wanted)
    if named:
        return _from_rows(table[:, order], n_experts)
    return table[0] if len(table) == 1 else table


def _from_rows(table: NDArray[np.float64], n_experts: int) -> NDArray[np.float64]:
    """A matrix of rows (layer, expert, count); what occurs twice is added up."""
    ids = table[:, :2]
    wrong = ids[~(np.isfinite(ids) & (ids >= 0) & (ids < _MAX_ID) & (ids == np.floor(ids)))]
    if wrong.size:
        raise _error(f"the layer or expert {wrong[0]:g}", f"whole numbers from 0 below {_MAX_ID}")
    layer, expert = ids.T.astype(np.int64)
    layers, row = np.unique(layer, return_inverse=True)
    matrix = np.zeros((len(layers), max(n_experts, int(expert.max()) + 1)))
    np.add.at(matrix, (row, expert), table[:, 2])
    return matrix


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _checked(found: NDArray[Any]) -> NDArray[np.float64]:
    """Finite numbers from 0 [L, E] or [E], steps summed."""
    if found.dtype.kind not in "iuf":
        raise _error(f"{found.dtype} cells", _NUMBERS)
    counts = found.astype(np.float64)
    wrong = counts[~(np.isfinite(counts) & (counts >= 0))]
    if wrong.size:
        raise _error(f"{wrong[0]:g} among the counts", f"finite {_NUMBERS} from 0")
    if counts.ndim == 3:
        counts = counts.sum(axis=0)
    if counts.ndim not in (1, 2) or not counts.size:
        raise _error(f"the shape {list(found.shape)}", "[layers, experts] or [steps, layers, experts]")
    return counts


def _of_layers(
    counts: NDArray[np.float64], n_layers: int, moe_layers: Sequence[int], n_experts: int
) -> NDArray[np.float64]:
    """The rows of the MoE layers [L, E]."""
    n_moe = len(moe_layers)
    rows = np.tile(counts, (n_moe, 1)) if counts.ndim == 1 else counts
    used = rows[rows.any(axis=1)]
    if len(rows) != n_moe and len(used) == n_moe:
        rows = used
    elif len(rows) == n_layers:
        rows = rows[list(moe_layers)]
    found = f"{len(used)} layers with counts of {counts.shape[-1]} experts"
    if rows.shape != (n_moe, n_experts):
        raise _error(found, f"{n_moe} layers of {n_experts} experts")
    if not rows.any(axis=1).all():
        raise _error(found, f"counts in all {n_moe} layers with experts")
    return rows


def _error(found: str, wanted: str) -> ParameterError:
    return ParameterError("counts", found, wanted)
