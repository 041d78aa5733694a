"""Differences between variants and the points of a sweep, as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moesim.frames import nested
from moesim.report.columns import COLUMNS, FEW, Column, columns_of, table_notes
from moesim.report.terminal import text_table
from moesim.report.text import printable
from moesim.report.units import ABSENT, count, number
from moesim.report.work import compared

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

METRICS = ("step_time_s.mean", "imbalance_penalty", "drop_rate")
"""The summary keys whose differences are printed; paired.parquet has them all."""
MAX_ROWS = 60
"""Rows of a table of points; the file has them all."""


def paired_text_table(paired: pd.DataFrame, metrics: Sequence[str] = METRICS) -> Table:
    """A row a variant and metric: baseline, difference with its 95 % interval, how many seeds +-2 % would take.

    Args:
        paired: `Study.paired`; columns before `variant` are axes and are shown.
        metrics: dotted summary keys, of those that COLUMNS know; where variant and baseline do not do the same work,
            their throughput stands in place of their step times.
    """
    known = {column.keys[0]: column for column in COLUMNS if len(column.keys) == 1}
    axes = list(paired.columns[: list(paired.columns).index("variant")])
    shown, replaced = compared(paired, [key for key in metrics if key in known])
    shown = shown[(shown["baseline_mean"] != 0) | (shown["mean"] != 0)]
    headers = [
        *_short(axes),
        "variant",
        "metric",
        "baseline",
        "difference",
        "95 % CI",
        "ratio",
        "seeds",
        "seeds for ±2 %",
    ]
    rows = []
    for row in shown.to_dict("records")[:MAX_ROWS]:
        column = known[str(row["metric"])]
        unit = f" [{column.unit}]" if column.unit else ""
        few = " (few steps)" if row["too_few_steps"] else ""
        sure = "" if row["significant"] or row["n"] < 2 else " n.s."
        rows.append(
            [
                *(_place(row[axis]) for axis in axes),
                printable(row["variant"]),
                f"{column.header}{unit}{few}",
                column.text(row["baseline_mean"]),
                _signed(column, row["difference"]) + sure,
                f"{_signed(column, row['ci_low'])} to {_signed(column, row['ci_high'])}" if row["n"] > 1 else ABSENT,
                number(row["ratio"]),
                count(row["n"]),
                count(row["seeds_needed"]),
            ]
        )
    caption = "n.s. = no significant difference: the interval of the differences, paired by seed, includes 0"
    caption = "; ".join(text for text in (caption, replaced) if text)
    return text_table(headers, rows, len(axes) + 2, _with_rest(caption, len(shown)))


def points_text_table(summary: pd.DataFrame, axes: Sequence[str]) -> Table:
    """A row a point and variant of a sweep: axes, variant, then the columns of a comparison.

    Args:
        summary: `Study.summary` of a sweep.
        axes: its swept fields.
    """
    several = len(set(summary["variant"])) > 1 or not axes
    shown = summary.head(MAX_ROWS)
    flat = shown.drop(columns=[*axes, "variant"]).to_dict("records")
    found = [nested({str(key): value for key, value in row.items() if value == value}) for row in flat]
    columns = [column for column in columns_of(found) if all(key in summary for key in column.keys)]
    headers = [*_short(axes), *(["variant"] if several else [])]
    headers += [f"{column.header}\n[{column.unit}]" if column.unit else column.header for column in columns]
    rows = [
        [
            *(_place(row[axis]) for axis in axes),
            *([printable(row["variant"])] if several else []),
            *(column.text(column.value(own)) + (FEW if column.too_few_steps(own) else "") for column in columns),
        ]
        for row, own in zip(shown.to_dict("records"), found, strict=True)
    ]
    return text_table(headers, rows, len(axes) + several, _with_rest("; ".join(table_notes(found)), len(summary)))


def _place(value: Any) -> str:
    """A value of an axis; NaN is what was none."""
    if isinstance(value, float):
        return "none" if math.isnan(value) else f"{value:.12g}"
    return printable(value)


def _signed(column: Column, value: float) -> str:
    text = column.text(value)
    return text if text == ABSENT or value <= 0 else f"+{text}"


def _short(axes: Sequence[str]) -> list[str]:
    last = [axis.rpartition(".")[2] for axis in axes]
    return [axis if last.count(name) > 1 else name for axis, name in zip(axes, last, strict=True)]


def _with_rest(caption: str, n_rows: int) -> str:
    rest = f"{n_rows - MAX_ROWS:,} more rows are in the files" if n_rows > MAX_ROWS else ""
    return "; ".join(text for text in (caption, rest) if text)
