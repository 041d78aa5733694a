"""Figures of the cluster: how busy its GPUs are and what travels between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from moesim.report.figures.frame import (
    ROW_PX,
    colour_axis,
    finish,
    first_runs,
    nothing,
    outer_titles,
    panels,
    variant_axis,
)
from moesim.report.palette import TEXT, run_styles
from moesim.report.run import RunLike
from moesim.report.text import label
from moesim.report.units import bytes_scale, bytes_text
from moesim.types import COMPUTE_KINDS, PARTS

_STRIPS = {
    "busy: share of the step spent computing": [f"{kind}_s" for kind in COMPUTE_KINDS],
    "wait: share of the step spent waiting for slower GPUs": ["wait_s"],
}
_STRIP_GAP_PX = 60
MAX_ECDF_POINTS = 200
"""A line needs no more to look the same."""


def gpu_time(runs: Mapping[str, RunLike]) -> go.Figure:
    """Two strips with a row a variant and a cell a GPU: share of the time that it computes, and that it waits."""
    title = "How busy each GPU is"
    shares = {name: _time_shares(run) for name, run in runs.items()}
    n_gpus = max((len(share[0]) for share in shares.values()), default=0)
    if not n_gpus:
        return nothing(title, "No GPU has measured time.")
    strips_px = len(_STRIPS) * max(2, len(runs)) * ROW_PX + _STRIP_GAP_PX
    figure = make_subplots(
        rows=len(_STRIPS),
        subplot_titles=list(_STRIPS),
        shared_xaxes=True,
        vertical_spacing=_STRIP_GAP_PX / strips_px,
    )
    figure.update_annotations(font_size=14)
    for strip, panel in enumerate(_STRIPS):
        cells = np.full((len(runs), n_gpus), np.nan, dtype=np.float32)
        for row, share in enumerate(shares.values()):
            cells[row, : len(share[strip])] = share[strip]
        figure.add_heatmap(
            meta=panel,
            z=cells,
            x=np.arange(n_gpus),
            y=np.arange(len(runs)),
            xgap=0.5,
            ygap=2,
            coloraxis="coloraxis",
            hovertemplate="GPU %{x}: %{z:.1%}<extra></extra>",
            row=strip + 1,
            col=1,
        )
    finish(figure, title, height=strips_px + 150)
    largest = max(float(np.max(strip, initial=0.0)) for share in shares.values() for strip in share)
    figure.update_layout(coloraxis=colour_axis("share of<br>the step", largest, tickformat=".0%", len=strips_px))
    figure.update_xaxes(showgrid=False)
    figure.update_xaxes(title_text="GPU", row=len(_STRIPS), col=1)
    figure.update_yaxes(**variant_axis(runs))
    return figure


def _time_shares(run: RunLike) -> list[NDArray[np.float64]]:
    """For each strip the share of all measured time of each GPU, [G]."""
    total = run.gpus.groupby("gpu")[[f"{part}_s" for part in PARTS]].sum()
    whole = total.sum(axis=1)
    whole = whole.where(whole > 0, 1.0)
    return [(total[parts].sum(axis=1) / whole).to_numpy(dtype=np.float64) for parts in _STRIPS.values()]


def gpu_load(runs: Mapping[str, RunLike]) -> go.Figure:
    """A line a variant: share of (step, GPU) pairs whose processed load is no more than so many times the mean."""
    title = "Load of the GPUs"
    figure = go.Figure()
    ends = [1.0]
    for style, (name, run) in zip(run_styles(runs), runs.items(), strict=True):
        mean = run.gpus.groupby("step")["processed"].transform("mean")
        load = np.sort((run.gpus["processed"] / mean)[mean > 0].to_numpy(dtype=np.float64))
        if not len(load):
            continue
        ends += [float(load[0]), float(load[-1])]
        share = np.arange(1, len(load) + 1) / len(load)
        kept = _every(len(load))
        figure.add_scatter(
            x=np.concatenate((load[:1], load[kept])),
            y=np.concatenate(([0.0], share[kept])),
            mode="lines",
            line={"color": style.colour, "dash": style.dash, "width": 2, "shape": "hv"},
            name=label(name),
            hovertemplate="%{y:.1%} have up to %{x:.3g} times the mean",
        )
    if not figure.data:
        return nothing(title, "No GPU has processed any load.")
    figure.add_vline(x=1.0, line={"color": TEXT, "width": 1, "dash": "dot"})
    finish(figure, title, height=420 + 14 * len(runs))
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}, margin={"b": 90})
    figure.update_xaxes(
        title_text="processed load of all layers / mean over the GPUs of the step", range=_room(min(ends), max(ends))
    )
    figure.update_yaxes(title_text="share of (step, GPU) pairs", tickformat=".0%", range=[0, 1.03])
    return figure


def _room(low: float, high: float) -> list[float]:
    """A range with room at both ends."""
    pad = max(0.05 * (high - low), 0.01)
    return [low - pad, high + pad]


def _every(n: int) -> NDArray[np.intp]:
    """At most MAX_ECDF_POINTS places of n, evenly spaced, with the first and the last."""
    return np.unique(np.linspace(0, n - 1, min(n, MAX_ECDF_POINTS)).round().astype(np.intp))


def link_traffic(runs: Mapping[str, RunLike]) -> go.Figure:
    """A matrix a variant, source by destination: bytes per step; lines part the nodes, the title has the sums."""
    title = "Traffic between GPUs"
    shown, some = first_runs({name: run for name, run in runs.items() if not run.links.empty})
    if not shown:
        return nothing(title, "No traffic was kept (keep.links: none), or none flowed.")
    matrices = [_traffic(run) for run in shown.values()]
    scale, unit = bytes_scale(max(float(matrix.max()) for matrix in matrices))
    titles = [f"{label(name, 40)}<br>{_sums(run)}" for name, run in shown.items()]
    figure, height, places = panels(titles, columns=3, panel_px=290, gap_px=110)
    for name, matrix, (row, column) in zip(shown, matrices, places, strict=True):
        figure.add_heatmap(
            meta=label(name, 40),
            z=(matrix / scale).astype(np.float32),
            coloraxis="coloraxis",
            hovertemplate=f"GPU %{{y}} to %{{x}}: %{{z:.4g}} {unit}<extra></extra>",
            row=row,
            col=column,
        )
    borders = [shape for i, run in enumerate(shown.values()) for shape in _node_borders(run, i)]
    finish(figure, f"{title}{some}", height=height, shapes=borders)  # at once: one by one each would look at all
    figure.update_layout(margin={"t": 96})
    largest = max(float(matrix.max()) for matrix in matrices) / scale
    figure.update_layout(coloraxis=colour_axis(f"{unit} per<br>step", largest))
    figure.update_xaxes(showgrid=False, constrain="domain")
    figure.update_yaxes(showgrid=False, autorange="reversed", constrain="domain")
    outer_titles(figure, places, "destination GPU", "source GPU")
    for i in range(len(places)):
        figure.layout[f"yaxis{i + 1 if i else ''}"].scaleanchor = f"x{i + 1 if i else ''}"
    return figure


def _traffic(run: RunLike) -> NDArray[np.float64]:
    """Bytes per step from each GPU to each, both levels, [G, G]."""
    n_gpus = 1 + max(int(run.links["source"].max()), int(run.links["destination"].max()))
    if len(run.gpus):
        n_gpus = max(n_gpus, 1 + int(run.gpus["gpu"].max()))
    matrix = np.zeros((n_gpus, n_gpus))
    place = (run.links["source"].to_numpy(), run.links["destination"].to_numpy())
    np.add.at(matrix, place, run.links["bytes"].to_numpy(dtype=np.float64))
    return matrix / max(1, len(run.steps))


def _sums(run: RunLike) -> str:
    levels = run.links.groupby("level")["bytes"].sum() / max(1, len(run.steps))
    words = {"within_node": "within nodes", "across_nodes": "across nodes"}
    stated = run.summary.get("bytes_by_level", {})
    return ", ".join(
        f"{bytes_text(float(levels[level]), 3)} {words.get(level, f'over level {level}')}"
        for level in (*words, *stated)
        if level in levels
    )


def _node_borders(run: RunLike, panel: int) -> list[dict[str, Any]]:
    """White lines across a panel where the node changes between one GPU and the next."""
    nodes = run.gpus.drop_duplicates("gpu").sort_values("gpu")["node"].to_numpy()
    places = [float(i) + 0.5 for i in np.flatnonzero(nodes[1:] != nodes[:-1])]
    x, y = (f"{side}{panel + 1 if panel else ''}" for side in "xy")
    white = {"type": "line", "line": {"color": "white", "width": 1.5}}
    upright = [{**white, "xref": x, "yref": f"{y} domain", "x0": at, "x1": at, "y0": 0, "y1": 1} for at in places]
    level = [{**white, "xref": f"{x} domain", "yref": y, "x0": 0, "x1": 1, "y0": at, "y1": at} for at in places]
    return [*upright, *level]
