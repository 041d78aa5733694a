"""The load of every expert as it moves from step to step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from moesim.report.figures.frame import colour_axis, finish, nothing, outer_titles, panels
from moesim.report.run import RunLike
from moesim.report.text import label

MAX_VARIANTS = 3
MAX_FRAMES = 40
MAX_CELLS = 200_000
"""Cells of all frames together: more makes the file large and the animation no clearer."""


def load_animation(runs: Mapping[str, RunLike]) -> go.Figure:
    """A heat map a variant, layer by expert, a frame a step: requested load over the mean of its layer in that step."""
    title = "Load of every expert, step by step"
    loads = {name: _loads(run) for name, run in list(runs.items())[:MAX_VARIANTS] if not run.experts.empty}
    if not loads:
        return nothing(title, "No MoE layer has any load.")
    cells = sum(load[0].size for load, _, _ in loads.values())
    steps = [int(step) for step in next(iter(loads.values()))[1]]
    shown = _some(steps, max(2, min(MAX_FRAMES, MAX_CELLS // max(1, cells))))
    most_layers = max(load.shape[1] for load, _, _ in loads.values())
    figure, height, places = panels(
        [label(name, 40) for name in loads], columns=MAX_VARIANTS, panel_px=min(360, max(180, 9 * most_layers))
    )
    for name, (row, col) in zip(loads, places, strict=True):
        figure.add_trace(_map(name, loads[name], shown[0]), row=row, col=col)
    figure.frames = [
        go.Frame(
            name=str(step),
            data=[_map(name, load, step) for name, load in loads.items()],
            traces=list(range(len(loads))),
        )
        for step in shown
    ]
    some = "" if len(loads) == len(runs) else f" (first {len(loads)} of {len(runs)} variants)"
    cut = "" if len(shown) == len(steps) else f", {len(shown)} of {len(steps)} steps"
    finish(figure, f"{title}{some}{cut}", height=height + 90)
    largest = max(1.0, *(float(np.nanmax(load)) for load, _, _ in loads.values()))
    figure.update_layout(
        coloraxis=colour_axis("load / mean<br>of the layer", largest),
        margin={"b": 130},
        updatemenus=[_buttons()],
        sliders=[_slider(shown)],
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False, autorange="reversed")
    outer_titles(figure, places, "expert", "layer")
    return figure


def _loads(run: RunLike) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Requested load over the mean of its layer and step, [S, L, E]; the steps [S]; the layers [L]."""
    table = run.experts.pivot_table("requested", ["step", "layer"], "expert", aggfunc="sum")
    steps = table.index.get_level_values(0).unique().to_numpy()
    layers = table.index.get_level_values(1).unique().to_numpy()
    load = table.to_numpy(dtype=np.float64)
    mean = load.mean(axis=1, keepdims=True)
    load = load / np.where(mean > 0, mean, 1.0)
    return load.reshape(len(steps), len(layers), -1).astype(np.float32), steps, layers


def _some(steps: list[int], n: int) -> list[int]:
    """All steps, or so many of them, evenly spaced from the first to the last."""
    if len(steps) <= n:
        return steps
    return [steps[round(i)] for i in np.linspace(0, len(steps) - 1, n)]


def _map(name: str, loads: tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]], step: int) -> go.Heatmap:
    load, steps, layers = loads
    place = int(np.searchsorted(steps, step).clip(max=len(steps) - 1))
    return go.Heatmap(
        z=load[place],
        x=np.arange(load.shape[2]),
        y=layers,
        coloraxis="coloraxis",
        meta=label(name, 40),
        hovertemplate="layer %{y}, expert %{x}: %{z:.3g} times the mean<extra></extra>",
    )


def _buttons() -> dict[str, object]:
    play = {"frame": {"duration": 250, "redraw": True}, "transition": {"duration": 0}, "fromcurrent": True}
    stop = {"frame": {"duration": 0, "redraw": False}, "mode": "immediate", "transition": {"duration": 0}}
    return {
        "type": "buttons",
        "direction": "left",
        "showactive": False,
        "x": 0,
        "xanchor": "left",
        "y": 0,
        "yanchor": "top",
        "pad": {"t": 62},
        "buttons": [
            {"label": "play", "method": "animate", "args": [None, play]},
            {"label": "stop", "method": "animate", "args": [[None], stop]},
        ],
    }


def _slider(steps: list[int]) -> dict[str, object]:
    at = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate", "transition": {"duration": 0}}
    return {
        "x": 0.14,
        "len": 0.86,
        "y": 0,
        "yanchor": "top",
        "pad": {"t": 52},
        "currentvalue": {"prefix": "step ", "font": {"size": 13}},
        "steps": [{"label": str(step), "method": "animate", "args": [[str(step)], at]} for step in steps],
    }
