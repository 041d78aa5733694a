"""What the rows of a measured table must hold to be predicted: columns in their types, and which rows are right.

Problems are lines "file: row, column: found X, wanted Y", one for all rows of a column that are wrong in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moesim.calibration.layout import Layout
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]

_COMPUTING = ("moe_dtype", "gemm_dtype", "gemm_type", "attn_dtype", "mla_dtype", "bmm_dtype", "quant_type")
"""Columns of the data type that a kernel computes in, which the GPU must have."""

_MOVING = ("quant_dtype", "kv_cache_dtype", "nccl_dtype", "comm_dtype", "allreduce_dtype")
"""Columns of a data type that is only moved."""

_MIN: Mapping[str, int] = {"past_kv_tokens": 0, "num_gpus": 2}
"""The smallest size where it is not 1; nothing is exchanged on one GPU."""

_MAX: Mapping[str, int] = {
    "num_experts": 2**16,
    "topk": 2**9,
    "num_topk": 2**9,
    "message_size": 10**12,
    "message_size_elements": 10**12,
}
_MAX_OTHERWISE = 10**9
"""The largest size: products of two fit int64, and loads of all experts fit this machine."""

_CHOICES = ("topk", "num_topk")
"""Columns of the experts that a token chooses, of `num_experts`."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A table that is checked.

    `frame` has the rows of the file `path` as `typed` gives them, `raw` the same
    rows as they were read; what is wrong is added to `problems`.
    """

    path: str
    frame: pd.DataFrame
    raw: pd.DataFrame
    problems: list[str]

    def accept(
        self, column: str, right: pd.Series[bool], wanted: str, *, also: str = "", as_read: bool = False
    ) -> Mask:
        """`right` as an array; the first row that is wrong becomes a problem, which says how many others there are.

        Args:
            column: whose value is shown.
            right: whether each row is.
            wanted: what would be right.
            also: another column whose value is shown.
            as_read: show the value as it was read.
        """
        good = right.to_numpy(dtype=np.bool_)
        wrong = np.flatnonzero(~good)
        if len(wrong):
            row = int(wrong[0])
            others = f" (and {len(wrong) - 1:,} rows more)" if len(wrong) > 1 else ""
            place = f" on {self.frame[also].iloc[row]}" if also else ""
            value = (self.raw if as_read else self.frame)[column].iloc[row]
            self.problems.append(
                f"{self.path}: row {row + 1}, column {column}: found {_shown(value)}{place}, wanted {wanted}{others}"
            )
        return good


def typed(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """A copy with text as text, numbers in 64 bits, and sums; what is no number where one is wanted becomes NaN."""
    import pandas as pd

    frame = frame.copy()
    for column in frame.columns:
        values = frame[column]
        if layout.columns.get(column) == "number":
            frame[column] = _numbers(values)
            continue
        empty = column not in layout.columns and values.isna().all()  # a CSV file tells no text from no number
        if column in layout.columns or empty or pd.api.types.is_string_dtype(values.dtype):
            if values.isna().any():
                values = values.astype(object).where(values.notna(), "")
            frame[column] = values.astype(str)
    for column, parts in layout.sums.items():
        if set(parts) <= set(frame.columns):
            frame[column] = sum(_numbers(frame[part]).astype(np.float64) for part in parts)
    return frame


def _numbers(values: pd.Series[Any]) -> pd.Series[Any]:
    """As int64, or float64 where there are fractions or gaps: products of narrower integers would wrap around."""
    import pandas as pd

    try:
        found = pd.to_numeric(values, errors="coerce")
    except OverflowError:  # whole numbers beyond float64; as text they become infinite
        found = pd.to_numeric(values.astype(str), errors="coerce")
    if found.dtype.kind in "biu" and found.notna().all() and (found <= np.iinfo(np.int64).max).all():
        return found.astype(np.int64)
    return pd.Series(found.to_numpy(dtype=np.float64, na_value=np.nan), index=values.index)


def right_inputs(
    table: Inspection, layout: Layout, systems: Mapping[str, GpuSpec | None], known: Iterable[str]
) -> Mask:
    """Rows whose inputs are right, [R]: sizes, names, a known system, data types that it has.

    Args:
        table: the rows.
        layout: of the table.
        systems: the GPU of each word in column `system`, None for an unknown one.
        known: names of systems to choose from.
    """
    frame = table.frame
    good = np.ones(len(frame), dtype=np.bool_)
    for column, sort in layout.columns.items():
        if sort == "number" and column not in layout.measured:
            least, most = _MIN.get(column, 1), _MAX.get(column, _MAX_OTHERWISE)
            right = (frame[column] >= least) & (frame[column] <= most) & (frame[column] % 1 == 0)
            beyond = (frame[column] > most).any()
            wanted = f"a whole number from {least} {f'to {most:,}' if beyond else 'on'}"
            good &= table.accept(column, right, wanted, as_read=True)
    for column in _CHOICES:
        if column in layout.columns:
            right = (frame[column] <= frame["num_experts"]) | ~good
            good &= table.accept(column, right, "no more than num_experts")
    good &= _right_names(table, layout)
    there = frame["system"].map({system: gpu is not None for system, gpu in systems.items()}).astype(bool)
    good &= table.accept("system", there, f"one of {', '.join(known)}")
    for column in (*_COMPUTING, *_MOVING):
        if column in frame:
            good &= _right_dtype(table, column, systems)
    return good


def _right_names(table: Inspection, layout: Layout) -> Mask:
    """Rows whose words leave the name of their group in its parts, which slashes divide."""
    frame = table.frame
    good = np.ones(len(frame), dtype=np.bool_)
    for column in map(str, frame.select_dtypes("string").columns):
        divided = frame[column].isin([word for word in frame[column].unique() if "/" in word])
        if divided.any():
            rows = frame[divided]
            whole = rows.assign(**{column: rows[column].str.replace("/", "-")})
            right = ~divided
            right[divided] = layout.group(rows).str.count("/") == layout.group(whole).str.count("/")
            good &= table.accept(column, right, "a name without slashes")
    return good


def _right_dtype(table: Inspection, column: str, systems: Mapping[str, GpuSpec | None]) -> Mask:
    """Rows whose data type is known and, where the kernel computes in it, one that the GPU has."""
    frame = table.frame
    pairs = frame["system"] + "\n" + frame[column].astype(str)
    right = {}
    for pair in pairs.unique():
        system, _, word = str(pair).partition("\n")
        dtype, gpu = computing_dtype(word), systems.get(system)
        there = gpu is None or column in _MOVING or dtype in {"", *gpu.peak_tflops}
        right[pair] = dtype is not None and there
    wanted = "a data type"
    if column in _COMPUTING:
        first = next((str(pair).partition("\n")[0] for pair, good in right.items() if not good), "")
        gpu = systems.get(first)
        wanted += f" that the GPU has ({', '.join(gpu.peak_tflops)})" if gpu else " that the GPU has"
    return table.accept(column, pairs.map(right).astype(bool), wanted, also="system")


def computing_dtype(word: str) -> str | None:
    """The data type that tables mean by a word, as the peaks of a GPU name it; "" for none, None if unknown.

    Weights of fewer bits with 16-bit activations compute in bfloat16.
    """
    plain = word.lower()
    if plain in {"", "default", "none", "auto"}:
        return ""
    if "a16" in plain or plain.endswith("_wo"):
        return "bf16"
    for dtype, words in _WORDS.items():
        if any(name in plain for name in words):
            return dtype
    return None


_WORDS: Mapping[str, tuple[str, ...]] = {
    "fp8": ("a8_mxfp4_mxfp8", "mxfp8", "afp8", "fp8", "e4m3"),
    "fp4": ("fp4",),
    "int8": ("int8", "sq"),
    "bf16": ("bf16", "bfloat16"),
    "fp16": ("fp16", "float16", "half"),
    "fp32": ("fp32", "float32", "tf32", "float"),
}


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | np.number) else f"{value!s:.60}"
