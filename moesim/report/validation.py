"""The page and the table of a validation: errors by kernel and regime, and figures of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from moesim.report.page import figure_html, page_html
from moesim.report.terminal import text_table
from moesim.report.text import printable
from moesim.report.units import count, number, percent

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from rich.table import Table

_TEXTS = ("table", "framework", "kernel", "dtype", "regime", "rows")
_HEADERS = (
    "table",
    "framework",
    "kernel",
    "data type",
    "regime",
    "rows",
    "n",
    "median %",
    "p90 %",
    "bias %",
    "slowdown median %",
    "slowdown p90 %",
)
_MAX_LINES = 8
_OWN = "rows of groups that the constants given with --kernels hold, which may have been fitted to them or to others."
_KIND_HEADERS = ("kind of table", "rows", "n", "median %", "p90 %", "bias %")


def kind_rows(kinds: pd.DataFrame) -> list[list[str]]:
    """The errors by kind as text, a list a row in the order of the headers."""
    return [
        [row["kind"], row["rows"], count(row["n"]), *(_percent(row[name]) for name in ("median", "p90", "bias"))]
        for row in kinds.to_dict("records")
    ]


def validation_rows(errors: pd.DataFrame) -> list[list[str]]:
    """The error table as text, a list a row in the order of the headers; shares become per cent."""
    rows = []
    for row in errors.to_dict("records"):
        texts = [printable(row[name], 60) for name in _TEXTS]
        shares = [row[name] for name in ("median", "p90", "bias", "slowdown_median", "slowdown_p90")]
        rows.append([*texts, count(row["n"]), *(_percent(share) for share in shares)])
    return rows


def validation_table(errors: pd.DataFrame) -> Table:
    """The error table for the terminal."""
    return text_table(_HEADERS, validation_rows(errors), n_left=len(_TEXTS))


def kind_table(kinds: pd.DataFrame) -> Table:
    """The errors by kind for the terminal."""
    return text_table(_KIND_HEADERS, kind_rows(kinds), n_left=2)


def slowdown_rows(slowdown: pd.DataFrame) -> list[list[str]]:
    """The errors of slowdowns as text: case, kernels, rows, n, median, p90, rank correlation."""
    return [
        [
            printable(row["case"]),
            printable(row["kernels"]),
            printable(row["rows"]),
            count(row["n"]),
            _percent(row["median"]),
            _percent(row["p90"]),
            number(row["spearman"], 3),
        ]
        for row in slowdown.to_dict("records")
    ]


def skipped_lines(paths: Sequence[str]) -> list[str]:
    """Files of no known layout for a terminal: a line each, of many their names alone in one line."""
    if len(paths) <= _MAX_LINES:
        return [f"skipped, of no known layout: {printable(path, len(path))}" for path in paths]
    names = Counter(PurePath(path).name for path in paths)
    listed = ", ".join(f"{printable(name)} ({n})" if n > 1 else printable(name) for name, n in sorted(names.items()))
    return [f"skipped, {len(paths)} files of no known layout: {listed}"]


def validation_html(
    errors: pd.DataFrame,
    kinds: pd.DataFrame,
    slowdown: pd.DataFrame,
    scores: pd.DataFrame,
    slowdowns: pd.DataFrame,
    summary: Mapping[str, Any],
) -> str:
    """The report of a validation as the text of an HTML5 file that needs no network."""
    from moesim.report.figures.validation import predicted_against_measured, slowdown_against_ep

    predicted = predicted_against_measured(scores)
    own = _OWN if "own constants" in set(errors["rows"]) else ""
    figures = [
        {
            "name": "predicted-against-measured",
            "title": "Predicted against measured",
            "html": figure_html(predicted, "predicted_against_measured"),
            "caption": predicted_caption(predicted, len(scores), own),
        },
        {
            "name": "slowdown-against-ep",
            "title": "Slowdown against EP size",
            "html": figure_html(slowdown_against_ep(slowdowns), "slowdown_against_ep"),
            "caption": "How many times longer the most loaded rank takes than with the same tokens spread evenly, "
            "mean over the numbers of tokens; below 1, skew is faster because fewer experts are active.",
        },
    ]
    return page_html(
        "validation.html.j2",
        headers=_HEADERS,
        own=own,
        rows=validation_rows(errors),
        kind_headers=_KIND_HEADERS,
        kinds=kind_rows(kinds),
        slowdown=slowdown_rows(slowdown),
        figures=figures,
        summary=summary,
    )


def predicted_caption(figure: go.Figure, n_rows: int, own: str = "") -> str:
    """What stands below predictions against measurements of `n_rows` rows: how many are drawn, what `own` ones are."""
    from moesim.report.figures.validation import MAX_POINTS

    n_drawn = sum(len(trace.x) for trace in figure.data if trace.mode == "markers")
    drawn = (
        f"{count(n_drawn)} of {count(n_rows)} rows are drawn, at most {MAX_POINTS} of each table and split, "
        "evenly picked. "
    )
    return (
        "Every point is a row of a table; on the line the prediction is what was measured. "
        f"{drawn if n_drawn < n_rows else ''}The constants saw the circles, not the crosses."
        f"{' Squares: ' if own else ''}{own}"
    )


def _percent(share: float) -> str:
    return percent(float(share))
