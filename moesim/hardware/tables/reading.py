"""Reading measured tables from a folder, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.hardware.predict import gpu_of, predict_columns, published_gpus, shipped
from moesim.hardware.tables import KINDS, TableKind, kind_of
from moesim.hardware.tables.kind import Constants
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

_COMPUTING = ("moe_dtype", "gemm_dtype", "gemm_type", "attn_dtype", "mla_dtype", "bmm_dtype", "quant_type")
"""Columns of the data type that a kernel computes in, which the GPU must have."""

_MAY_BE_0 = ("past_kv_tokens",)
"""Sizes that may be 0."""

_MOVING = ("quant_dtype", "kv_cache_dtype", "nccl_dtype", "comm_dtype", "allreduce_dtype")
"""Columns of a data type that is only moved."""

UNITS: Mapping[float, str] = {1.0: "seconds", 1e-3: "milliseconds", 1e-6: "microseconds", 1e-9: "nanoseconds"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A measured table: its file, its stem, its kind, its rows, and which of them can be predicted and scored, [R]."""

    path: str
    stem: str
    kind: TableKind
    frame: pd.DataFrame
    predictable: NDArray[np.bool_]
    scored: NDArray[np.bool_]


def left_out(tables: Iterable[Table], system: str | None = None) -> dict[str, int]:
    """Rows by table that are not scored, of all systems or of one; tables without any are not named."""
    rows = {t.stem: ~t.scored if system is None else ~t.scored & t.frame["system"].eq(system) for t in tables}
    return {stem: int(left.sum()) for stem, left in rows.items() if left.any()}


@dataclass(kw_only=True)
class Reading:
    """The tables of a folder, the files that are none, and what is wrong.

    `kinds`: names of those that count, others are skipped; `gpus`: by the
    names in column `system`, else the published ones.
    """

    kinds: Collection[str] = tuple(KINDS)
    gpus: Mapping[str, GpuSpec] = field(default_factory=published_gpus)
    tables: list[Table] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, path: str, stem: str, frame: pd.DataFrame) -> None:
        """Recognise and check a table; what is wrong with it goes to the problems."""
        kind = kind_of(stem, frame.columns)
        written = {"table", "predicted"} <= set(frame.columns)  # predictions that validation wrote
        if kind is None or kind.name not in self.kinds or written:
            self.skipped.append(path)
            return
        try:
            self.tables.append(_checked(path, stem, kind, frame, self))
        except InputError as error:
            self.problems.append(str(error))


def table_files(folder: str | Path) -> list[Path]:
    """The parquet and CSV files of a folder in order, or one such file.

    Raises:
        InputError: no such folder, or no file in it.
    """
    place = Path(folder)
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise InputError(f"{place}: no such folder, wanted one of measured tables (parquet or CSV)")
    paths = sorted(path for path in place.iterdir() if path.suffix in {".parquet", ".csv"})
    if not paths:
        raise InputError(f"{place}: holds no parquet or CSV file, wanted measured tables")
    return paths


def read_folder(folder: str | Path, reading: Reading | None = None) -> Reading:
    """Every parquet and CSV file of a folder, or one such file, added to a reading (by default a new one).

    Raises:
        InputError: no such folder, or no file in it.
    """
    reading = Reading() if reading is None else reading
    for path in table_files(folder):
        try:
            reading.add(str(path), path.stem, read_frame(path))
        except InputError as error:
            reading.problems.append(str(error))
    return reading


def read_frame(path: Path) -> pd.DataFrame:
    """The rows of a parquet or CSV file.

    Raises:
        InputError: it cannot be read.
    """
    import pandas as pd

    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError, pd.errors.ParserError) as error:  # pyarrow's errors are ValueErrors or OSErrors
        raise InputError(f"{path}: cannot be read as a table: {error}") from None


def _checked(path: str, stem: str, kind: TableKind, frame: pd.DataFrame, reading: Reading) -> Table:
    """The table with its columns in their types; rows that are wrong are named and left out."""
    missing = [column for column in kind.columns if column not in frame]
    if missing:
        raise InputError(
            f"{path}: column {missing[0]} is missing, wanted the columns of a {kind.name} table: "
            f"{', '.join(kind.columns)}"
        )
    if not len(frame):
        raise InputError(f"{path}: holds no row")
    raw = frame.reset_index(drop=True)
    frame = _typed(raw.copy(), kind)
    predictable = _predictable(path, frame, kind, reading, raw)
    usable = np.zeros(len(frame), dtype=np.bool_)
    usable[predictable] = kind.usable(frame[predictable]).to_numpy(dtype=np.bool_)
    scored = usable & _measured(path, frame, kind, usable, reading.problems, raw)
    return Table(path=path, stem=stem, kind=kind, frame=frame, predictable=predictable, scored=scored)


def _typed(frame: pd.DataFrame, kind: TableKind) -> pd.DataFrame:
    """The columns as text or numbers; what is no number where one is wanted becomes NaN."""
    import pandas as pd

    for column in frame.columns:
        values = frame[column]
        if kind.columns.get(column) == "number":
            frame[column] = pd.to_numeric(values, errors="coerce")
            continue
        empty = column not in kind.columns and values.isna().all()  # a CSV file tells no text from no number
        if column in kind.columns or empty or pd.api.types.is_string_dtype(values.dtype):
            if values.isna().any():
                values = values.astype(object).where(values.notna(), "")
            frame[column] = values.astype(str)
    return frame


def _predictable(
    path: str, frame: pd.DataFrame, kind: TableKind, reading: Reading, raw: pd.DataFrame
) -> NDArray[np.bool_]:
    """Rows whose inputs are right: sizes, a known system, data types that it has."""
    problems, gpus = reading.problems, reading.gpus
    good = np.ones(len(frame), dtype=np.bool_)
    for column, sort in kind.columns.items():
        if sort == "number" and column not in kind.measured:
            least = 0 if column in _MAY_BE_0 else 1
            right = (frame[column] >= least) & (frame[column] < np.inf) & (frame[column] % 1 == 0)
            good &= _accept(path, frame, column, right, f"a whole number from {least} on", problems, raw=raw)
    systems = {system: gpu_of(str(system), gpus) for system in frame["system"].unique()}
    known = frame["system"].map({system: gpu is not None for system, gpu in systems.items()}).astype(bool)
    good &= _accept(path, frame, "system", known, f"one of {', '.join(gpus)}", problems)
    for column in (*_COMPUTING, *_MOVING):
        if column in frame:
            good &= _right_dtype(path, frame, column, systems, problems)
    return good


def _measured(
    path: str,
    frame: pd.DataFrame,
    kind: TableKind,
    usable: NDArray[np.bool_],
    problems: list[str],
    raw: pd.DataFrame,
) -> NDArray[np.bool_]:
    """Rows whose latencies are right; of several one may be 0, as the counts that a node need not exchange."""
    good = np.ones(len(frame), dtype=np.bool_)
    for column in kind.measured:
        right = (frame[column] >= 0) & (frame[column] < np.inf)
        good &= _accept(path, frame, column, right | ~usable, "a latency", problems, raw=raw)
    some = frame[list(kind.measured)].sum(axis=1) > 0
    return good & _accept(path, frame, kind.measured[0], some | ~(usable & good), "a latency above 0", problems)


def _right_dtype(
    path: str, frame: pd.DataFrame, column: str, systems: Mapping[str, Any], problems: list[str]
) -> NDArray[np.bool_]:
    """Rows whose data type is known and, where the kernel computes in it, one that the GPU has."""
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
    return _accept(path, frame, column, pairs.map(right).astype(bool), wanted, problems, also="system")


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


def _accept(
    path: str,
    frame: pd.DataFrame,
    column: str,
    right: pd.Series[bool],
    wanted: str,
    problems: list[str],
    also: str = "",
    raw: pd.DataFrame | None = None,
) -> NDArray[np.bool_]:
    """`right` as an array; the first row that is wrong, as in `raw`, becomes a problem, with how many there are."""
    good = right.to_numpy(dtype=np.bool_)
    wrong = np.flatnonzero(~good)
    if len(wrong):
        row = int(wrong[0])
        others = f" (and {len(wrong) - 1:,} rows more)" if len(wrong) > 1 else ""
        place = f" on {frame[also].iloc[row]}" if also else ""
        shown = frame if raw is None else raw
        problems.append(
            f"{path}: row {row + 1}, column {column}: found {_shown(shown[column].iloc[row])}{place}, wanted {wanted}"
            f"{others}"
        )
    return good


def _shown(value: Any) -> str:
    return f"{value:.60}" if isinstance(value, str) else f"{value:g}"


def predict_usable(
    table: Table, *, gpus: Mapping[str, GpuSpec] | None = None, constants: Constants | None = None
) -> NDArray[np.float64]:
    """Seconds of every row and measured column, [R, measured]; NaN where nothing is known.

    With the shipped constants and the published GPUs, or with others.
    """
    kind = table.kind
    predicted = np.full((len(table.frame), len(kind.measured)), np.nan)
    if table.predictable.any():
        rows = table.frame[table.predictable].reset_index(drop=True)
        systems = {system: gpu for system in rows["system"].unique() if (gpu := gpu_of(str(system), gpus))}
        own = shipped(kind) if constants is None else constants
        predicted[table.predictable] = predict_columns(rows, kind, gpus=systems, constants=own)
    return predicted


def far_off(table: Table, predicted: NDArray[np.float64], factor: float = 300.0) -> tuple[list[str], list[str]]:
    """(problems, notes) about latencies that are hundreds of times off the predicted seconds [R, measured].

    That is a wrong unit most likely. More than half of a column is a problem
    of the table, single rows are noted.
    """
    unit = UNITS.get(table.kind.unit_s, f"{table.kind.unit_s:g} s")
    problems, notes = [], []
    for index, column in enumerate(table.kind.measured):
        measured = table.frame[column].to_numpy(dtype=np.float64) * table.kind.unit_s
        rows = np.flatnonzero(table.scored & (measured > 0) & (predicted[:, index] > 0))
        ratio = measured[rows] / predicted[rows, index]
        off = np.maximum(ratio, 1 / ratio) > factor
        if not off.any():
            continue
        row = rows[np.argmax(off)]
        where = f"{table.path}: column {column}"
        found = (
            f"{measured[row] / table.kind.unit_s:g} where {predicted[row, index] / table.kind.unit_s:.4g} is predicted"
        )
        if off.mean() > 0.5:
            times = float(np.median(ratio))
            word = f"{times:,.0f} times" if times > 1 else f"1/{1 / times:,.0f} of"
            problems.append(f"{where}: its latencies are {word} the predicted ones ({found}); wanted {unit}")
        else:
            notes.append(f"{where}: row {row + 1} holds {found}; is it in {unit}? ({int(off.sum()):,} such rows)")
    return problems, notes
