"""Predictions of measured tables against their measurements."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError, OutputError
from moesim.hardware.tables.kind import Constants
from moesim.hardware.tables.reading import Reading, Table, far_off, left_out, predict_usable, read_folder
from moesim.validation.scores import error_table, kind_table, score, slowdown_table, slowdowns

if TYPE_CHECKING:
    import pandas as pd

MEASURED = Path(__file__).with_name("measured")
"""The tables that ship with moesim."""


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
        target = Path(path)
        try:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
                temporary = Path(folder) / target.name
                self.predictions.to_parquet(temporary, index=False)
                temporary.replace(target)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from None

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
        kernels: constants by noun instead of the shipped ones, as `calibrate` gives them.

    Raises:
        InputError: there is nothing to read. What is wrong with single tables and rows is in `problems`.
    """
    import pandas as pd

    reading = read(data)
    if not reading.tables:
        raise InputError("; ".join(reading.problems) or f"{data}: no table of a known layout, found {_few(reading)}")
    scores, slow, predictions, notes = [], [], [], []
    problems = list(reading.problems)
    for table in reading.tables:
        constants = (kernels or {}).get(table.kind.noun or table.kind.name) or None
        predicted = predict_usable(table, constants=constants)
        wrong, doubtful = far_off(table, predicted)
        problems += wrong
        notes += doubtful + _without_prediction(table, predicted)
        scores.append(score(table, predicted))
        slow.append(slowdowns(table, predicted))
        predictions.append(_with_predictions(table, predicted))
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
        notes=_other_systems(reading.tables) + notes,
        left_out=left_out(reading.tables),
    )


def read(data: str | Path | None) -> Reading:
    """The tables that `validate` and `calibrate` mean by `data`."""
    if isinstance(data, str) and data.startswith("aiconfigurator:"):
        from moesim.validation.aiconfigurator import read_installed

        return read_installed(data.partition(":")[2])
    return read_folder(data or MEASURED)


def _with_predictions(table: Table, predicted: Any) -> pd.DataFrame:
    own = predicted / table.kind.unit_s
    columns = {"table": table.stem, "predicted": own.sum(axis=1)}
    if len(table.kind.measured) > 1:
        columns |= {f"predicted_{name}": own[:, i] for i, name in enumerate(table.kind.measured)}
    return table.frame.assign(**columns)


def _other_systems(tables: Sequence[Table]) -> list[str]:
    """A word about each system whose constants are not of its own GPU."""
    of_system = Counter(str(system) for table in tables for system in table.frame["system"].unique())
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
