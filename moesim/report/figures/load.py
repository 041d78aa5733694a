"""Figures of load: what was requested of each expert, what was processed, and how unevenly."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from moesim.report.figures.frame import colour_axis, finish, first_runs, nothing, outer_titles, panels
from moesim.report.palette import TEXT, run_styles
from moesim.report.run import RunLike
from moesim.report.text import label

_NO_LOAD = "No MoE layer has any load."


def layer_imbalance(runs: Mapping[str, RunLike]) -> go.Figure:
    """A line a variant: MaxVio of the requested load by layer, mean over steps; a marker at the worst step."""
    title = "Load imbalance by layer"
    figure = go.Figure()
    for index, (style, (name, run)) in enumerate(zip(run_styles(runs), runs.items(), strict=True)):
        if run.layers.empty:
            continue
        by_layer = run.layers.groupby("layer")["max_violation"].agg(["mean", "max"])
        layers = by_layer.index.to_numpy()
        figure.add_scatter(
            x=layers,
            y=by_layer["mean"].to_numpy(),
            mode="lines",
            name=label(name),
            legendgroup=str(index),
            line={"color": style.colour, "dash": style.dash, "width": 2},
            hovertemplate="layer %{x}: mean %{y:.3g}",
        )
        figure.add_scatter(
            x=layers,
            y=by_layer["max"].to_numpy(),
            mode="markers",
            name=label(name),
            legendgroup=str(index),
            showlegend=False,
            marker={"color": style.colour, "symbol": "triangle-down-open", "size": 8},
            hovertemplate="layer %{x}: worst step %{y:.3g}",
        )
    if not figure.data:
        return nothing(title, _NO_LOAD)
    figure.add_scatter(
        x=[None], y=[None], mode="markers", name="worst step", marker={"color": TEXT, "symbol": "triangle-down-open"}
    )
    finish(figure, title, height=420 + 14 * len(runs))
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}, margin={"b": 90})
    figure.update_xaxes(title_text="layer")
    figure.update_yaxes(title_text="MaxVio of the requested load (max / mean - 1)", rangemode="tozero")
    return figure


_OVER_STEPS = (
    ("entropy", "entropy of the load / ln E"),
    ("max_violation", "MaxVio of the requested load"),
    ("dead_experts", "experts without load"),
    ("drop_rate", "dropped assignments"),
)
"""Column of the layers frame, or drop_rate, and the title of its panel."""


def load_over_steps(runs: Mapping[str, RunLike]) -> go.Figure:
    """Four panels, a line a variant: entropy, MaxVio, dead experts and drop rate of every step, mean over layers."""
    title = "Load over the run"
    figure, height, places = panels([text for _, text in _OVER_STEPS], columns=2, panel_px=240)
    for index, (style, (name, run)) in enumerate(zip(run_styles(runs), runs.items(), strict=True)):
        if run.layers.empty:
            continue
        asked = run.layers["requested"].where(run.layers["requested"] > 0)
        layers = run.layers.assign(drop_rate=run.layers["dropped"] / asked)
        by_step = layers.groupby("step")[[column for column, _ in _OVER_STEPS]].mean()
        for (column, panel), (row, col) in zip(_OVER_STEPS, places, strict=True):
            figure.add_scatter(
                meta=panel,
                x=by_step.index.to_numpy(),
                y=by_step[column].to_numpy(dtype=np.float64),
                mode="lines+markers" if len(by_step) <= 40 else "lines",
                name=label(name),
                legendgroup=str(index),
                showlegend=(row, col) == (1, 1),
                line={"color": style.colour, "dash": style.dash, "width": 2},
                marker={"color": style.colour, "symbol": style.symbol, "size": 6},
                hovertemplate="step %{x}: %{y:.3g}",
                row=row,
                col=col,
            )
    if not figure.data:
        return nothing(title, _NO_LOAD)
    finish(figure, title, height=height + 14 * len(runs))
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.12, "yanchor": "top"}, margin={"b": 90})
    outer_titles(figure, places, "step", "")
    for (column, _), (row, col) in zip(_OVER_STEPS, places, strict=True):
        figure.update_yaxes(rangemode="tozero", tickformat=".2~%" if column == "drop_rate" else None, row=row, col=col)
    return figure


def load_distribution(runs: Mapping[str, RunLike]) -> go.Figure:
    """A line a variant: requested load of the experts from the busiest down, mean over layers and steps.

    Experts are ranked anew in every layer and step, so no averaging hides a peak that moves.
    """
    title = "Load distribution over experts"
    figure = go.Figure()
    for style, (name, run) in zip(run_styles(runs), runs.items(), strict=True):
        ranked = _ranked_load(run)
        if ranked is None:
            continue
        figure.add_scatter(
            x=(np.arange(len(ranked)) + 0.5) / len(ranked),
            y=ranked,
            mode="lines+markers" if len(ranked) <= 32 else "lines",
            name=label(name),
            line={"color": style.colour, "dash": style.dash, "width": 2},
            marker={"color": style.colour, "symbol": style.symbol, "size": 6},
            hovertemplate="busiest %{x:.1%}: %{y:.3g} times the mean",
        )
    if not figure.data:
        return nothing(title, _NO_LOAD)
    figure.add_hline(y=1.0, line={"color": TEXT, "width": 1, "dash": "dot"})
    finish(figure, title, height=420 + 14 * len(runs))
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}, margin={"b": 90})
    figure.update_xaxes(title_text="experts, busiest first [share of all]", tickformat=".0%", range=[0, 1])
    figure.update_yaxes(title_text="requested load / mean", rangemode="tozero")
    return figure


def _ranked_load(run: RunLike) -> NDArray[np.float64] | None:
    """Requested load over its mean by rank of the expert in its layer and step, [E]; None without load."""
    if run.experts.empty:
        return None
    table = run.experts.pivot_table("requested", ["step", "layer"], "expert", aggfunc="sum").to_numpy(dtype=np.float64)
    table = table[table.sum(axis=1) > 0]
    if not len(table):
        return None
    ranked = -np.sort(-table, axis=1) / table.mean(axis=1, keepdims=True)
    return np.asarray(ranked.mean(axis=0), dtype=np.float64)


def expert_load(runs: Mapping[str, RunLike]) -> go.Figure:
    """A heat map a variant, layer by expert: load over the mean requested load of the layer, over all steps.

    Where any variant drops or reroutes, requested and processed load stand side by side.
    """
    title = "Load of every expert"
    shown, some = first_runs({name: run for name, run in runs.items() if not run.experts.empty})
    if not shown:
        return nothing(title, _NO_LOAD)
    limited = any((run.experts[["dropped", "rerouted_away"]].to_numpy() != 0).any() for run in shown.values())
    loads = ("requested", "processed") if limited else ("requested",)
    maps = [
        (f"{label(name, 40)}: {load}" if limited else label(name, 40), _load_map(run.experts, load))
        for name, run in shown.items()
        for load in loads
    ]
    most_layers = max(len(load_map) for _, load_map in maps)
    figure, height, places = panels(
        [name for name, _ in maps],
        columns=2 if limited else 3,
        panel_px=min(320, max(130, 7 * most_layers)),
    )
    for (panel, load_map), (row, column) in zip(maps, places, strict=True):
        figure.add_heatmap(
            meta=panel,
            z=load_map.to_numpy(dtype=np.float32),
            x=load_map.columns.to_numpy(),
            y=load_map.index.to_numpy(),
            coloraxis="coloraxis",
            hovertemplate="layer %{y}, expert %{x}: %{z:.3g} times the mean<extra></extra>",
            row=row,
            col=column,
        )
    finish(figure, f"{title}{some}", height=height)
    largest = max(1.0, *(float(load_map.to_numpy().max()) for _, load_map in maps))
    figure.update_layout(coloraxis=colour_axis("load / mean<br>of the layer", largest))
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False, autorange="reversed")
    outer_titles(figure, places, "expert", "layer")
    return figure


def _load_map(experts: pd.DataFrame, load: str) -> pd.DataFrame:
    """Load summed over steps, over the mean *requested* load of its layer; rows layers, columns experts."""
    table = experts.pivot_table(load, "layer", "expert", aggfunc="sum").astype(np.float64)
    mean = experts.pivot_table("requested", "layer", "expert", aggfunc="sum").mean(axis=1)
    return table.div(mean.where(mean > 0, 1.0), axis=0)
