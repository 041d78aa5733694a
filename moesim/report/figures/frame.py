"""What all figures share: fonts, axes, panels, and what to draw where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moesim.report.palette import GRID, SEQUENTIAL, TEXT
from moesim.report.run import RunLike
from moesim.report.text import label

FONT = {"family": "Helvetica, Arial, DejaVu Sans, sans-serif", "size": 14, "color": TEXT}
MAX_PANELS = 9
ROW_PX = 40


@cache
def _template() -> go.layout.Template:
    """Fonts, colours and plain axes: set once, so that a figure holds only what is its own."""
    axis = {
        "showline": True,
        "linecolor": TEXT,
        "ticks": "outside",
        "tickcolor": TEXT,
        "gridcolor": GRID,
        "zeroline": False,
        "automargin": True,
        "tickfont": {"size": 13},
        "title": {"font": {"size": 14}, "standoff": 10},
    }
    return go.layout.Template(
        layout={
            "title": {
                "font": {"size": 17},
                "subtitle": {"font": {"size": 13}},
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": 14},
            },
            "font": FONT,
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "legend": {"font": {"size": 13}},
            "hoverlabel": {"font": {"size": 13}, "namelength": -1},
            "xaxis": axis,
            "yaxis": axis,
        }
    )


def finish(figure: go.Figure, title: str, *, height: int = 420, **layout: Any) -> go.Figure:
    """Give a figure its title, fonts and plain axes."""
    margin = {"l": 70, "r": 30, "t": 76, "b": 60}
    return figure.update_layout(
        {"template": _template(), "title": {"text": title}, "height": height, "margin": margin, **layout}
    )


def variant_axis(runs: Mapping[str, RunLike]) -> dict[str, Any]:
    """A vertical axis with a row a variant, the first on top; rows are numbered, so no name is read as a number."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(runs))),
        "ticktext": [label(name) for name in runs],
        "range": [len(runs) - 0.5, -0.5],
        "showgrid": False,
    }


def rows_height(runs: Mapping[str, RunLike], extra: int = 180) -> int:
    """Height in pixels of a figure with a row a variant."""
    return extra + max(2, len(runs)) * ROW_PX


def panels(
    titles: Sequence[str], *, columns: int, panel_px: int, gap_px: int = 70, **options: Any
) -> tuple[go.Figure, int, list[tuple[int, int]]]:
    """A grid of panels with titles: the figure, its height and the (row, column) of each panel."""
    columns = max(1, min(columns, len(titles)))
    rows = -(-len(titles) // columns)
    inner = rows * panel_px + (rows - 1) * gap_px
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=list(titles),
        vertical_spacing=gap_px / inner if rows > 1 else 0.0,
        horizontal_spacing=0.08 if columns > 1 else 0.0,
        **options,
    )
    figure.update_annotations(font_size=14)
    return figure, inner + 160, [(i // columns + 1, i % columns + 1) for i in range(len(titles))]


def colour_axis(title: str, largest: float, **colorbar: Any) -> dict[str, Any]:
    """The shared colour scale of heat maps, from 0 to the largest value, with a bar next to the topmost panels."""
    return {
        "colorscale": SEQUENTIAL,
        "cmin": 0,
        "cmax": largest,
        "colorbar": {
            "title": {"text": f"{title}<br> ", "font": {"size": 13}},
            "tickfont": {"size": 13},
            "thickness": 16,
            "lenmode": "pixels",
            "len": 290,
            "y": 1,
            "yanchor": "top",
            "ypad": 0,
            **colorbar,
        },
    }


def outer_titles(figure: go.Figure, places: Sequence[tuple[int, int]], x: str, y: str) -> None:
    """Axis titles of a grid of panels: below the lowest panel of each column, left of the first of each row."""
    lowest = {column: row for row, column in places}
    for row, column in places:
        if lowest[column] == row:
            figure.update_xaxes(title_text=x, row=row, col=column)
        if column == 1:
            figure.update_yaxes(title_text=y, row=row, col=column)


def first_runs(runs: Mapping[str, RunLike]) -> tuple[dict[str, RunLike], str]:
    """The runs that get a panel, and a word for the title where that is not all."""
    shown = dict(list(runs.items())[:MAX_PANELS])
    return shown, "" if len(shown) == len(runs) else f" (first {len(shown)} of {len(runs)} variants)"


def nothing(title: str, why: str) -> go.Figure:
    """A figure that says why there is nothing to draw; its `layout.meta` is "nothing"."""
    figure = go.Figure(go.Scatter(x=[], y=[], showlegend=False))
    figure.add_annotation(text=why, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font_size=15)
    finish(figure, title, height=220, meta="nothing")
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure
