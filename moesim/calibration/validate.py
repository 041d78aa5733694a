"""Predictions of measured tables against their measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moesim.atomic import replacing
from moesim.calibration.checks import Mask
from moesim.calibration.layout import Layout
from moesim.calibration.predict import shipped
from moesim.calibration.reading import Reading, Table, far_off, left_out, predict_usable, read_folder
from moesim.calibration.scores import error_table, kind_table, of_groups, score, slowdown_table, slowdowns
from moesim.calibration.shipped import MEASURED
from moesim.errors import InputError
from moesim.hardware.constants import Constants

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Report:
    """What validation found.

    `errors`: by table, framework, kernel, data type, regime and split, shares
    (0.05 is 5 %); `kinds`: of all tables of a kind; `slowdown`: of skewed
    against even load; `scores` and `slowdowns`: the rows behind them;
    `predictions`: every input column and row with `table`, `predicted` and, of
    tables with several measured columns, `predicted_<column>`, in the row's
    own unit. `skipped`: files of no known layout; `problems`: what is wrong with the input; `notes`; `left_out`: rows
    by table that are known artefacts.
    """

    errors: pd.DataFrame
    kinds: pd.DataFrame
    slowdown: pd.DataFrame
    scores: pd.DataFrame
    slowdowns: pd.DataFrame
    predictions: pd.DataFrame
    skipped: list[str]
    problems: list[str]
    notes: list[str]
    left_out: dict[str, int]

    def summary(self) -> dict[str, Any]:
        """All but the rows, as plain JSON types; absent figures are null."""
        return {
            "errors": records(self.errors),
            "kinds": records(self.kinds),
            "slowdown": records(self.slowdown),
            "skipped": self.skipped,
            "problems": self.problems,
            "notes": self.notes,
            "left_out": self.left_out,
        }

    def write_predictions(self, path: str | Path) -> None:
        """The predictions as one parquet file, complete or not at all.

        Raises:
            OutputError: it cannot be written there.
        """
        with replacing(path) as temporary:
            self.predictions.to_parquet(temporary, index=False)

    def save(self, folder: str | Path) -> None:
        """`report.html`, `summary.json` and a manifest in a folder that is complete or absent.

        Raises:
            OutputError: it cannot be written there.
        """
        from moesim.report.validation import validation_html
        from moesim.results.files import MANIFEST, new_folder, versions, write_json

        with new_folder(folder) as new:
            html = validation_html(self.errors, self.kinds, self.slowdown, self.scores, self.slowdowns, self.summary())
            (new / "report.html").write_text(html, encoding="utf-8")
            write_json(new / "summary.json", self.summary())
            write_json(new / MANIFEST, {"versions": versions()})


def validate(data: str | Path | None = None, *, kernels: Mapping[str, Constants] | None = None) -> Report:
    """Predict every row of every measured table and compare.

    Args:
        data: a folder of tables, one table, or aiconfigurator:<system> for an installed aiconfigurator-core; None
            for the tables that ship with moesim.
        kernels: constants by part and group that replace the shipped ones, as `calibrate` gives them; rows of groups
            that they lack are predicted as without them.

    Raises:
        InputError: there is nothing to read. What is wrong with single tables and rows is in `problems`.
    """
    import pandas as pd

    reading = read(data)
    tables, problems = _without_clashes(reading)
    if not tables:
        raise InputError("; ".join(problems) or f"{data}: no table of a known layout, found {_few(reading)}")
    scores, slow, predictions, notes, others, any_own = [], [], [], [], Counter[str](), False
    for table in tables:
        own = (kernels or {}).get(table.layout.part, {})
        mine = of_groups(table, own)
        predicted = _predicted(table, mine, own)
        wrong, doubtful = far_off(table, predicted)
        problems += wrong
        notes += doubtful + _without_prediction(table, predicted)
        scores.append(score(table, predicted, mine))
        slow.append(slowdowns(table, predicted, mine))
        predictions.append(_with_predictions(table, predicted))
        as_shipped = ~mine & np.isfinite(predicted).all(axis=1)
        others.update(str(system) for system in table.frame["system"][as_shipped].unique())
        any_own |= bool(mine.any())
    if kernels and not any_own:
        notes.insert(
            0, f"no row is of a group of the constants given ({_named(kernels)}): all are predicted as shipped"
        )
    all_scores, all_slow = _together(scores), _together(slow)
    return Report(
        errors=error_table(all_scores, all_slow),
        kinds=kind_table(all_scores),
        slowdown=slowdown_table(all_slow),
        scores=all_scores,
        slowdowns=all_slow,
        predictions=_storable(pd.concat(predictions, ignore_index=True)),
        skipped=reading.skipped,
        problems=problems,
        notes=_other_systems(others) + notes,
        left_out=left_out(tables),
    )


def read(data: str | Path | None) -> Reading:
    """The tables that `validate` and `calibrate` mean by `data`; None for those that ship with moesim.

    Raises:
        InputError: there is no such folder, or nothing to read in it.
    """
    if data == "":  # as of a variable of the shell that is not set; the working folder is "."
        raise InputError("data: found an empty name, wanted a folder of measured tables")
    if isinstance(data, str) and data.startswith("aiconfigurator:"):
        from moesim.calibration.aiconfigurator import read_installed

        return read_installed(data.partition(":")[2])
    return read_folder(MEASURED if data is None else data)


def _without_clashes(reading: Reading) -> tuple[list[Table], list[str]]:
    """The tables without a column that predictions add, and the problems with those that have one."""
    tables, problems = [], list(reading.problems)
    for table in reading.tables:
        clash = [name for name in _added(table.layout) if name in table.frame]
        if clash:
            problems.append(f"{table.path}: column {clash[0]}: predictions add one of this name, wanted another name")
        else:
            tables.append(table)
    return tables, problems


def _added(layout: Layout) -> list[str]:
    """Columns that predictions add to a table."""
    return ["table", "predicted", *(f"predicted_{name}" for name in layout.measured if len(layout.measured) > 1)]


def _predicted(table: Table, mine: Mask, own: Constants) -> NDArray[np.float64]:
    """Seconds [R, measured]: rows `mine` by constants of one's own, the others by the shipped ones."""
    predicted = predict_usable(replace(table, predictable=table.predictable & ~mine))
    if mine.any():
        constants = {**shipped(table.layout), **own}
        predicted[mine] = predict_usable(replace(table, predictable=mine), constants=constants)[mine]
    return predicted


def _with_predictions(table: Table, predicted: Any) -> pd.DataFrame:
    own = predicted / table.layout.unit_s
    values = [table.stem, own.sum(axis=1), *own.T]
    return table.frame.assign(**dict(zip(_added(table.layout), values, strict=False)))


def _named(kernels: Mapping[str, Constants]) -> str:
    """Groups of constants by their parts, as text."""
    return "; ".join(f"{part}: {', '.join(groups)}" for part, groups in kernels.items())


def _other_systems(of_system: Mapping[str, int]) -> list[str]:
    """A word about each system, predicted in so many tables, whose constants are not of its own GPU."""
    return [
        f"{system}: constants of H100, only published specifications changed (tables: {n})"
        for system, n in sorted(of_system.items())
        if system != "h100_sxm"
    ]


def _without_prediction(table: Table, predicted: Any) -> list[str]:
    unknown = int((table.predictable & ~np.isfinite(predicted).all(axis=1)).sum())
    return [f"{table.stem}: {unknown:,} rows have no prediction"] if unknown else []


def _together(frames: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    some = [frame for frame in frames if len(frame)] or frames[:1]
    return pd.concat(some, ignore_index=True)


def _storable(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns that are text in one table and numbers in another become text."""
    import pandas as pd

    for column in frame.columns:
        if frame[column].dtype == object:
            there = frame[column].notna()
            if not frame[column][there].map(lambda value: isinstance(value, bool)).all():
                frame[column] = frame[column].astype(object).where(~there, frame[column].astype(str))
    return pd.DataFrame(frame)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain JSON types, NaN as null."""
    return [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _few(reading: Reading) -> str:
    return ", ".join(Path(path).name for path in reading.skipped[:5])
