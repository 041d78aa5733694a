"""Reading measured tables from a folder, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim.calibration.checks import Inspection, Mask, right_inputs, typed
from moesim.calibration.gpus import gpu_of, published_gpus
from moesim.calibration.layout import LAYOUTS, Layout, layout_of
from moesim.calibration.layouts.expert_rows import known_distribution
from moesim.calibration.predict import predict_columns, shipped
from moesim.errors import InputError
from moesim.hardware.constants import Constants
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

UNITS: Mapping[float, str] = {1.0: "seconds", 1e-3: "milliseconds", 1e-6: "microseconds", 1e-9: "nanoseconds"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A measured table: its file, its stem, its layout and its rows; masks of them, [R].

    `predictable`: their inputs are right; `scored`: so are their latencies, and they show what their columns say;
    `artefact`: their inputs are right, but they are known not to show what they say.
    """

    path: str
    stem: str
    layout: Layout
    frame: pd.DataFrame
    predictable: Mask
    scored: Mask
    artefact: Mask


def left_out(tables: Iterable[Table], system: str | None = None) -> dict[str, int]:
    """Known artefacts by table, of all systems or of one; tables without any are not named."""
    rows = {t.stem: t.artefact if system is None else t.artefact & t.frame["system"].eq(system) for t in tables}
    return {stem: int(left.sum()) for stem, left in rows.items() if left.any()}


@dataclass(kw_only=True)
class Reading:
    """The tables of a folder, the files that are none, and what is wrong.

    `layouts`: names of those that count, others are skipped; `gpus`: by the
    names in column `system`, else the published ones.
    """

    layouts: Collection[str] = tuple(LAYOUTS)
    gpus: Mapping[str, GpuSpec] = field(default_factory=published_gpus)
    tables: list[Table] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, path: str, stem: str, frame: pd.DataFrame) -> None:
        """Recognise and check a table; what is wrong with it goes to the problems."""
        layout = layout_of(stem, frame.columns)
        written = {"table", "predicted"} <= set(frame.columns)  # predictions that validation wrote
        if layout is None or layout.name not in self.layouts or written:
            self.skipped.append(path)
            return
        same = next((table.path for table in self.tables if table.stem == stem), None)
        if same is not None:
            self.problems.append(f"{path}: found another table {stem}, {same}; wanted names that differ in more")
            return
        try:
            self.tables.append(_checked(path, stem, layout, frame, self))
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


def _checked(path: str, stem: str, layout: Layout, frame: pd.DataFrame, reading: Reading) -> Table:
    """The table with its columns in their types; rows that are wrong are named and left out."""
    missing = [column for column in layout.needed if column not in frame]
    if missing:
        raise InputError(
            f"{path}: column {missing[0]} is missing, wanted the columns of a {layout.name} table: "
            f"{', '.join(layout.needed)}"
        )
    if not len(frame):
        raise InputError(f"{path}: holds no row")
    raw = frame.reset_index(drop=True)
    frame = typed(raw, layout)
    systems = {str(system): gpu_of(str(system), reading.gpus) for system in frame["system"].unique()}
    inspection = Inspection(path=path, frame=frame, raw=raw, problems=reading.problems)
    predictable = right_inputs(inspection, layout, systems, reading.gpus)
    usable = _usable(frame, layout, predictable)
    scored = usable & _measured(inspection, layout, usable)
    artefact = predictable & ~usable
    if "distribution" in layout.columns:  # after load balancing rows cannot be predicted, which is no artefact
        artefact &= known_distribution(frame).to_numpy(dtype=np.bool_)
    return Table(
        path=path, stem=stem, layout=layout, frame=frame, predictable=predictable, scored=scored, artefact=artefact
    )


def _usable(frame: pd.DataFrame, layout: Layout, predictable: Mask) -> Mask:
    """Predictable rows that are no artefact, [R]; a wrong latency says nothing of its row or of others."""
    latencies = frame[list(layout.measured)]
    right = ((latencies >= 0) & (latencies < np.inf)).all(axis=1) & (latencies.sum(axis=1) > 0)
    usable = np.zeros(len(frame), dtype=np.bool_)
    for rows, changed in ((predictable & right, {}), (predictable & ~right, dict.fromkeys(layout.measured, 1.0))):
        if rows.any():
            usable[rows] = layout.usable(frame[rows].assign(**changed)).to_numpy(dtype=np.bool_)
    return usable


def _measured(table: Inspection, layout: Layout, usable: Mask) -> Mask:
    """Rows whose latencies are right; of several one may be 0, as the counts that a node need not exchange."""
    frame = table.frame
    good = np.ones(len(frame), dtype=np.bool_)
    for column in layout.measured:
        right = (frame[column] >= 0) & (frame[column] < np.inf)
        good &= table.accept(column, right | ~usable, "a latency", as_read=True)
    some = frame[list(layout.measured)].sum(axis=1) > 0
    return good & table.accept(layout.measured[0], some | ~(usable & good), "a latency above 0")


def predict_usable(
    table: Table, *, gpus: Mapping[str, GpuSpec] | None = None, constants: Constants | None = None
) -> NDArray[np.float64]:
    """Seconds of every row and measured column, [R, measured]; NaN where nothing is known.

    With the shipped constants and the published GPUs, or with others.
    """
    layout = table.layout
    predicted = np.full((len(table.frame), len(layout.measured)), np.nan)
    if table.predictable.any():
        rows = table.frame[table.predictable].reset_index(drop=True)
        systems = {system: gpu for system in rows["system"].unique() if (gpu := gpu_of(str(system), gpus))}
        own = shipped(layout) if constants is None else constants
        predicted[table.predictable] = predict_columns(rows, layout, gpus=systems, constants=own)
    return predicted


def far_off(table: Table, predicted: NDArray[np.float64], factor: float = 300.0) -> tuple[list[str], list[str]]:
    """(problems, notes) about latencies that are hundreds of times off the predicted seconds [R, measured].

    That is a wrong unit most likely. More than half of a column is a problem
    of the table, single rows are noted.
    """
    unit_s = table.layout.unit_s
    unit = UNITS.get(unit_s, f"{unit_s:g} s")
    problems, notes = [], []
    for index, column in enumerate(table.layout.measured):
        measured = table.frame[column].to_numpy(dtype=np.float64) * unit_s
        rows = np.flatnonzero(table.scored & (measured > 0) & (predicted[:, index] > 0))
        ratio = measured[rows] / predicted[rows, index]
        off = np.maximum(ratio, 1 / ratio) > factor
        if not off.any():
            continue
        row = rows[np.argmax(off)]
        where = f"{table.path}: column {column}"
        found = f"{measured[row] / unit_s:g} where {predicted[row, index] / unit_s:.4g} is predicted"
        if off.mean() > 0.5:
            times = float(np.median(ratio))
            word = f"{times:,.0f} times" if times > 1 else f"1/{1 / times:,.0f} of"
            problems.append(f"{where}: its latencies are {word} the predicted ones ({found}); wanted {unit}")
        else:
            notes.append(f"{where}: row {row + 1} holds {found}; is it in {unit}? ({int(off.sum()):,} such rows)")
    return problems, notes
