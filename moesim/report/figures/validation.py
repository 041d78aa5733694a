"""Figures of predictions against measurements."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from moesim.report.figures.frame import MAX_PANELS, finish, nothing, outer_titles, panels
from moesim.report.palette import BLUE, GREEN, TEXT, VERMILLION, variant_style
from moesim.report.text import label

MAX_POINTS = 400
"""Rows of a table and split that are drawn."""
_SPLITS = (("fitted", BLUE, "circle"), ("held out", VERMILLION, "x-thin"), ("own constants", GREEN, "square"))
_MAX = float(np.finfo(np.float32).max)


def predicted_against_measured(scores: pd.DataFrame, most: int = 24) -> go.Figure:
    """A panel a table on logarithmic axes: a point a row, by whether it was fitted, and the line where both are equal.

    `scores` has columns table, rows, measured_s, predicted_s. Of many rows every n-th is drawn.
    """
    title = "Predicted against measured latency"
    tables = sorted(scores["table"].unique())
    if not tables:
        return nothing(title, "No row could be scored.")
    shown = tables[:most]
    some = "" if len(shown) == len(tables) else f" (first {len(shown)} of {len(tables)} tables)"
    figure, height, places = panels([label(name, 44) for name in shown], columns=3, panel_px=260, gap_px=90)
    told: set[str] = set()
    for name, (row, column) in zip(shown, places, strict=True):
        part = scores[scores["table"] == name]
        times = 1e3 * part[["measured_s", "predicted_s"]]
        ends = [float(times.min().min()), float(times.max().max())]
        line = {"color": TEXT, "width": 1}
        figure.add_scatter(
            x=ends, y=ends, mode="lines", line=line, showlegend=False, hoverinfo="skip", row=row, col=column
        )
        for split, colour, symbol in _SPLITS:
            rows = part[part["rows"] == split]
            rows = rows.iloc[:: max(1, -(-len(rows) // MAX_POINTS))]
            if not len(rows):
                continue
            figure.add_scatter(
                x=_plotted_ms(rows["measured_s"]),
                y=_plotted_ms(rows["predicted_s"]),
                mode="markers",
                name=split,
                legendgroup=split,
                showlegend=split not in told,
                marker={
                    "color": colour,
                    "symbol": symbol,
                    "size": 5,
                    "opacity": 0.7,
                    "line": {"color": colour, "width": 1},
                },
                hovertemplate="measured %{x:.4g} ms, predicted %{y:.4g} ms",
                row=row,
                col=column,
            )
            told.add(split)
    finish(figure, f"{title}{some}", height=height)
    _legend_below_title(figure, height)
    axis = {"type": "log", "dtick": 1, "exponentformat": "none"}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    outer_titles(figure, places, "measured [ms]", "predicted [ms]")
    return figure


def _plotted_ms(seconds: pd.Series[float]) -> NDArray[np.float32]:
    """In milliseconds, of as few digits as a figure shows; what is larger than they can be is the largest."""
    return (1e3 * seconds).clip(upper=_MAX).to_numpy(dtype=np.float32)


def slowdown_against_ep(slow: pd.DataFrame) -> go.Figure:
    """A panel a table and distribution: slowdown over even load by EP size, measured and predicted, mean over tokens.

    `slow` has columns table, framework, curve, ep, measured, predicted.
    """
    title = "Slowdown of skewed against even load"
    if not len(slow):
        return nothing(title, "No table has both skewed and even rows of one key.")
    words = slow["curve"].str.rpartition("|")[2]
    named = slow["table"] + "<br>" + slow["framework"].map(label) + ", " + words.map(label)
    # deployments of one model first: a panel of a table of many models is a mean over them
    names = sorted(named.unique(), key=lambda name: (not name.startswith("wideep"), name))[:MAX_PANELS]
    figure, height, places = panels(names, columns=3, panel_px=260, gap_px=110)
    for i, (name, (row, column)) in enumerate(zip(names, places, strict=True)):
        means = slow[named == name].groupby("ep")[["measured", "predicted"]].mean()
        for index, what in enumerate(("measured", "predicted")):
            style = variant_style(index)
            figure.add_scatter(
                x=means.index.to_numpy(),
                y=means[what].to_numpy(),
                mode="lines+markers",
                name=what,
                legendgroup=what,
                showlegend=i == 0,
                line={"color": style.colour, "dash": style.dash, "width": 2},
                marker={"color": style.colour, "symbol": style.symbol, "size": 7},
                hovertemplate=f"EP %{{x}}: %{{y:.3f}} {what}",
                row=row,
                col=column,
            )
    finish(figure, title, height=height)
    _legend_below_title(figure, height)
    sizes = sorted(slow["ep"].unique())
    figure.update_xaxes(type="log", tickvals=sizes, ticktext=[str(size) for size in sizes])
    figure.update_yaxes(rangemode="tozero")
    outer_titles(figure, places, "GPUs of the EP group", "times the even load")
    return figure


def _legend_below_title(figure: go.Figure, height: int) -> None:
    legend = {"orientation": "h", "x": 0, "yref": "container", "y": 1 - 44 / height, "yanchor": "top"}
    figure.update_layout(legend=legend, margin={"t": 130})
