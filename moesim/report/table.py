"""Tables of the page: what is shown, by what it is sorted, and what is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from moesim.report.axes import axis_title, groups, is_numeric, varying
from moesim.report.columns import COLUMNS, Cell, cells
from moesim.report.points import means, nested
from moesim.report.text import plain
from moesim.report.units import number

MAX_ROWS = 1000
"""Rows of a sweep that the page shows; all of them are in its parquet file."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A cell: its text, the value it is sorted by ("" where it has none), and whether it is the best of its column."""

    text: str
    value: str
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Head:
    """The header of a column: `first` is the order of the first click, best values on top."""

    text: str
    unit: str
    first: str
    numeric: bool


@dataclass(frozen=True, kw_only=True)
class Table:
    """Headers of the names, each with whether they are numbers, heads, and for each row its names and its cells.

    `links` says that row i leads to the page of variant i.
    """

    names: list[tuple[str, bool]]
    heads: list[Head]
    rows: list[tuple[list[str], list[Shown]]]
    links: bool
    left_out: int = 0

    @classmethod
    def of_columns(
        cls,
        names: Sequence[list[str]],
        name_heads: list[tuple[str, bool]],
        shown: Sequence[Sequence[Cell]],
        values: Sequence[Sequence[float | None]],
        *,
        links: bool,
        left_out: int = 0,
    ) -> Table:
        """The table of COLUMNS: a row for each of `names`."""
        heads = [
            Head(
                text=column.header,
                unit=column.unit,
                first="descending" if column.better == "high" else "ascending",
                numeric=True,
            )
            for column in COLUMNS
        ]
        rows = [
            (name, [Shown(text=c.text, value=_sortable(v), best=c.best) for c, v in zip(row, of_row, strict=True)])
            for name, row, of_row in zip(names, shown, values, strict=True)
        ]
        return cls(names=name_heads, heads=heads, rows=rows, links=links, left_out=left_out)


def points_table(points: pd.DataFrame) -> Table:
    """A row for every combination of variant and axes: the means over its seeds."""
    names = ["variant", *(name for name in varying(points) if name != "variant")]
    parts = groups(points, names)
    summaries = {str(i): nested(means(part)) for i, (_, part) in enumerate(parts[:MAX_ROWS])}
    shown = cells(summaries)
    values = [[column.value(summary) for column in COLUMNS] for summary in summaries.values()]
    return Table.of_columns(
        [[*values, str(len(part))] for values, part in parts[:MAX_ROWS]],
        [*((_name(name), name != "variant" and is_numeric(points[name])) for name in names), ("seeds", True)],
        list(shown.values()),
        values,
        links=False,
        left_out=max(0, len(parts) - MAX_ROWS),
    )


def _name(axis: str) -> str:
    return axis if axis == "variant" else axis_title(axis).partition(" [")[0]


def paired_table(paired: pd.DataFrame) -> Table:
    """Differences between variants, a row each, of the metrics that the summary table shows."""
    shown = {key for column in COLUMNS for key in column.keys}
    if "metric" in paired:
        paired = paired[paired["metric"].isin(shown)]
    return frame_table(paired)


def frame_table(frame: pd.DataFrame) -> Table:
    """Any frame as it is: numbers with few digits, texts as texts, truth values as yes and no."""
    numeric = [pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind) for kind in frame.dtypes]
    heads = [
        Head(text=plain(name).replace("_", " "), unit="", first="ascending", numeric=is_number)
        for name, is_number in zip(frame.columns, numeric, strict=True)
    ]
    rows: list[tuple[list[str], list[Shown]]] = [
        (
            [],
            [
                Shown(text=number(float(value)), value=_sortable(float(value)))
                if is_number and not pd.isna(value)
                else Shown(text=_word(value), value=_word(value))
                for value, is_number in zip(row, numeric, strict=True)
            ],
        )
        for row in frame.itertuples(index=False, name=None)
    ]
    return Table(names=[], heads=heads, rows=rows, links=False)


def _word(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return "" if value is None or pd.isna(value) else plain(value)


def _sortable(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else repr(float(value))
