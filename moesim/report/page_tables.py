"""Tables of the page: what is shown, by what it is sorted, and what is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from moesim.frames import nested
from moesim.report.axes import axis_text, axis_title, groups, is_numeric, varying
from moesim.report.columns import COLUMNS, FEW, Cell, Column, cells, columns_of, table_notes
from moesim.report.comparison import means
from moesim.report.text import printable
from moesim.report.units import count, number
from moesim.report.work import compared

MAX_ROWS = 1000
"""Rows of a sweep that the page shows; all of them are in its parquet file."""


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """A cell: its text, the value it is sorted by ("" where it has none), whether it is the best of its column.

    `marks` stand behind the text: * of the best, FEW of a percentile of too few steps.
    """

    text: str
    value: str
    best: bool = False
    marks: str = ""


@dataclass(frozen=True, kw_only=True)
class TableHeader:
    """The header of a column: `first` is the order of the first click, best values on top."""

    text: str
    unit: str
    first: str
    numeric: bool


@dataclass(frozen=True, kw_only=True)
class Table:
    """Headers of the names, each with whether they are numbers, heads, and for each row its names and its cells.

    `links` says that row i leads to the page of variant i; `notes` stand below.
    """

    names: list[tuple[str, bool]]
    heads: list[TableHeader]
    rows: list[tuple[list[str], list[TableCell]]]
    links: bool
    left_out: int = 0
    notes: Sequence[str] = ()

    @classmethod
    def of_columns(
        cls,
        names: Sequence[list[str]],
        name_heads: list[tuple[str, bool]],
        summaries: Mapping[str, Mapping[str, Any]],
        *,
        links: bool,
        left_out: int = 0,
    ) -> Table:
        """The columns of a comparison: a row for each of `names` and of their nested summaries."""
        columns = columns_of(summaries.values())
        heads = [
            TableHeader(
                text=column.header,
                unit=column.unit,
                first="descending" if column.better == "high" else "ascending",
                numeric=True,
            )
            for column in columns
        ]
        rows = [
            (name, [_shown(cell, column.value(summary)) for cell, column in zip(row, columns, strict=True)])
            for name, summary, row in zip(names, summaries.values(), cells(summaries).values(), strict=True)
        ]
        notes = table_notes(summaries.values())
        return cls(names=name_heads, heads=heads, rows=rows, links=links, left_out=left_out, notes=notes)


def points_page_table(points: pd.DataFrame) -> Table:
    """A row for every combination of variant and axes: the means over its seeds."""
    names = ["variant", *(name for name in varying(points) if name != "variant")]
    parts = groups(points, names)
    summaries = {str(i): nested(means(part)) for i, (_, part) in enumerate(parts[:MAX_ROWS])}
    return Table.of_columns(
        [[*values, str(len(part))] for values, part in parts[:MAX_ROWS]],
        [*((_name(name), name != "variant" and is_numeric(points[name])) for name in names), ("seeds", True)],
        summaries,
        links=False,
        left_out=max(0, len(parts) - MAX_ROWS),
    )


def _name(axis: str) -> str:
    return axis if axis == "variant" else axis_title(axis).partition(" [")[0]


_PAIRED = ("step_time_s.mean", "step_time_s.p99", "tokens_per_s_per_gpu", "imbalance_penalty", "drop_rate")
"""Metrics whose differences the page shows; a sweep shows the first alone."""


def paired_page_table(paired: pd.DataFrame) -> Table:
    """Differences to the baseline, a row a variant and metric, in the units of the summary table.

    Args:
        paired: axes, `variant`, `metric`, `baseline_mean`, `difference`, `ci_low`, `ci_high`, `ratio`, `n`,
            `significant`, `seeds_needed`, `too_few_steps` and `same_work`.
    """
    axes = [str(name) for name in paired.columns[: list(paired.columns).index("variant")]]
    of_metric = {column.keys[0]: column for column in COLUMNS if len(column.keys) == 1}
    wanted = _PAIRED[:1] if axes else _PAIRED
    found, replaced = compared(paired, wanted)
    shown = found[(found["baseline_mean"] != 0) | (found["difference"] != 0)]
    rows = [_paired_row(row, axes, of_metric[str(row["metric"])]) for row in shown.to_dict("records")[:MAX_ROWS]]
    texts = ("baseline", "difference", "95 % from", "to", "ratio", "seeds", "seeds for \u00b12 %")
    return Table(
        names=[*((_name(axis), is_numeric(paired[axis])) for axis in axes), ("variant", False), ("metric", False)],
        heads=[
            *(TableHeader(text=text, unit="", first="ascending", numeric=True) for text in texts),
            TableHeader(text="", unit="", first="ascending", numeric=False),
        ],
        rows=rows,
        links=False,
        left_out=max(0, len(shown) - MAX_ROWS),
        notes=[replaced] if replaced else [],
    )


def _paired_row(row: Mapping[Any, Any], axes: Sequence[str], column: Column) -> tuple[list[str], list[TableCell]]:
    values = [row[name] for name in ("baseline_mean", "difference", "ci_low", "ci_high")]
    cells = [TableCell(text=column.text(value), value=_sortable(value)) for value in values]
    cells += [TableCell(text=number(row["ratio"]), value=_sortable(row["ratio"]))]
    cells += [TableCell(text=count(row[name]), value=_sortable(row[name])) for name in ("n", "seeds_needed")]
    notes = [] if row["significant"] else ["not significant"]
    notes += ["of too few steps"] if row["too_few_steps"] else []
    metric = f"{column.header} [{column.unit}]" if column.unit else column.header
    names = [*(axis_text(row[axis]) for axis in axes), printable(row["variant"]), metric]
    return names, [*cells, TableCell(text=", ".join(notes), value=", ".join(notes))]


def _shown(cell: Cell, value: float | None) -> TableCell:
    marks = ("*" if cell.best else "") + (FEW if cell.too_few_steps else "")
    return TableCell(text=cell.text, value=_sortable(value), best=cell.best, marks=marks)


def _sortable(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else repr(float(value))
