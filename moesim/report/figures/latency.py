"""Figures of time: where it goes, what imbalance and drops have to do with it, how it spreads over steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moesim.report.figures.frame import finish, nothing, rows_height, variant_axis
from moesim.report.figures.labels import label_points
from moesim.report.keys import lookup
from moesim.report.palette import GREY, PART_COLOURS, TEXT, fill, run_styles
from moesim.report.run import RunLike
from moesim.report.text import label
from moesim.report.units import number, percent, time_scale
from moesim.types import PARTS

_LABEL_GAP_PX = 22
_PERCENTILES = (("p50", "circle"), ("p95", "diamond"), ("p99", "x"))


def latency_breakdown(runs: Mapping[str, RunLike]) -> go.Figure:
    """A bar a variant: mean time of each part over GPUs and steps; the bars are as long as the mean step."""
    title = "Where the time of a step goes"
    longest = max(lookup(run.summary, "step_time_s.mean") or 0.0 for run in runs.values())
    scale, unit = time_scale(longest)
    figure = go.Figure()
    rows = list(range(len(runs)))
    for part in PARTS:
        times = [(lookup(run.summary, f"breakdown_s.{part}") or 0.0) / scale for run in runs.values()]
        if not any(times):
            continue
        colour, pattern = PART_COLOURS[part]
        figure.add_bar(
            x=times,
            y=rows,
            orientation="h",
            name=part.replace("_", " "),
            marker={**fill(colour, pattern), "line": {"color": "white", "width": 0.5}},
            hovertemplate=f"%{{x:.4g}} {unit}",
        )
    if not figure.data:
        return nothing(title, "The summaries hold no breakdown.")
    for row, run in enumerate(runs.values()):
        total = lookup(run.summary, "step_time_s.mean")
        if total is not None:
            figure.add_annotation(
                x=total / scale,
                y=row,
                text=f"{number(total / scale)} {unit}",
                showarrow=False,
                xanchor="left",
                xshift=6,
            )
    finish(figure, title, height=rows_height(runs, 220), barmode="stack", bargap=0.35)
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "traceorder": "normal"})
    figure.update_layout(margin={"t": 96})
    figure.update_xaxes(title_text=f"mean time per step [{unit}]", range=[0, 1.18 * longest / scale])
    figure.update_yaxes(**variant_axis(runs))
    return figure


def imbalance_penalty(runs: Mapping[str, RunLike]) -> go.Figure:
    """A bar a variant from 1: mean step time over that of the same load spread evenly, with the drop rate."""
    title = "What imbalance costs"
    found = [lookup(run.summary, "imbalance_penalty") for run in runs.values()]
    known = [value for value in found if value is not None]
    if not known:
        return nothing(title, "The summaries hold no imbalance penalty.")
    low, high = min(1.0, *known), max(1.05, *known)
    figure = go.Figure()
    for row, (run, value, style) in enumerate(zip(runs.values(), found, run_styles(runs), strict=True)):
        if value is None:
            continue
        figure.add_bar(
            x=[value - 1.0],
            base=[1.0],
            y=[row],
            orientation="h",
            showlegend=False,
            marker={
                "color": style.colour,
                "pattern": {"shape": style.pattern, "fgcolor": "white", "fillmode": "overlay"},
            },
            hovertemplate=f"{number(value)} times the balanced step<extra></extra>",
        )
        drops = percent(lookup(run.summary, "drop_rate"))
        figure.add_annotation(
            x=max(1.0, value),
            y=row,
            text=f"{number(value)} \u00d7, drops {drops} %",
            showarrow=False,
            xanchor="left",
            xshift=6,
        )
    figure.add_vline(x=1.0, line={"color": TEXT, "width": 1.5})
    finish(figure, title, height=rows_height(runs), bargap=0.4)
    pad = high - low
    figure.update_xaxes(
        title_text="mean step time / mean step time of the same load, spread evenly",
        range=[low - (0.1 * pad if low < 1 else 0.0), high + 0.35 * pad],
    )
    figure.update_yaxes(**variant_axis(runs))
    return figure


def drop_tradeoff(runs: Mapping[str, RunLike]) -> go.Figure:
    """A point a variant: drop rate across, mean step time up, a whisker to the 99th percentile."""
    title = "Dropped assignments against step time"
    points = []
    for style, (name, run) in zip(run_styles(runs), runs.items(), strict=True):
        drop, mean = lookup(run.summary, "drop_rate"), lookup(run.summary, "step_time_s.mean")
        if drop is not None and mean is not None:
            points.append((style, name, 100.0 * drop, mean, lookup(run.summary, "step_time_s.p99") or mean))
    if not points:
        return nothing(title, "No variant has both a drop rate and a step time.")
    scale, unit = time_scale(max(p99 for *_, p99 in points))
    height = max(440, 200 + _LABEL_GAP_PX * len(points))
    top, right = 1.2 * max(p99 for *_, p99 in points) / scale, max(1.0, *(drop for _, _, drop, _, _ in points))
    figure = go.Figure()
    for style, name, drop, mean, p99 in points:
        figure.add_scatter(
            x=[drop],
            y=[mean / scale],
            mode="markers",
            name=label(name),
            showlegend=False,
            marker={"color": style.colour, "symbol": style.symbol, "size": 12, "line": {"color": TEXT, "width": 1}},
            error_y={"type": "data", "symmetric": False, "array": [(p99 - mean) / scale], "arrayminus": [0]},
            hovertemplate=f"drops %{{x:.3g}} %, mean %{{y:.4g}} {unit}, p99 {number(p99 / scale)} {unit}",
        )
    finish(figure, title, height=height)
    figure.update_xaxes(title_text="drop rate [% of the requested assignments]", range=[-0.04 * right, 1.4 * right])
    figure.update_yaxes(title_text=f"mean step time, whisker to p99 [{unit}]", range=[0, top])
    named = [(drop, mean / scale, label(name, 60)) for _, name, drop, mean, _ in points]
    margin = figure.layout.margin
    label_points(figure, named, font_px=13, height_px=height - margin.t - margin.b)
    return figure


def step_time(runs: Mapping[str, RunLike]) -> go.Figure:
    """Left: step time of every step. Right: the share of steps that are no longer, with the percentiles marked."""
    title = "Step time over the run"
    measured = [run.steps["step_time_s"] for run in runs.values() if len(run.steps)]
    extremes = [float(extreme) for times in measured for extreme in (times.min(), times.max())]
    if not extremes:
        return nothing(title, "No step was measured.")
    scale, unit = time_scale(max(extremes))
    figure = make_subplots(
        cols=2, subplot_titles=("every step", "share of steps up to this time"), horizontal_spacing=0.12
    )
    for index, (style, (name, run)) in enumerate(zip(run_styles(runs), runs.items(), strict=True)):
        times = run.steps["step_time_s"].to_numpy(dtype=np.float64) / scale
        if not len(times):
            continue
        line = {"color": style.colour, "dash": style.dash, "width": 2}
        figure.add_scatter(
            x=run.steps["step"].to_numpy(),
            y=times,
            mode="lines+markers" if len(times) <= 40 else "lines",
            name=label(name),
            legendgroup=str(index),
            line=line,
            marker={"color": style.colour, "symbol": style.symbol, "size": 6},
            hovertemplate=f"step %{{x}}: %{{y:.4g}} {unit}",
            row=1,
            col=1,
        )
        ordered = np.sort(times)
        figure.add_scatter(
            x=np.concatenate((ordered[:1], ordered)),
            y=np.arange(len(ordered) + 1) / len(ordered),
            mode="lines",
            line={**line, "shape": "hv"},
            legendgroup=str(index),
            name=label(name),
            showlegend=False,
            hovertemplate=f"%{{y:.0%}} of the steps take up to %{{x:.4g}} {unit}",
            row=1,
            col=2,
        )
        for percentile, symbol in _PERCENTILES:
            figure.add_scatter(
                x=[float(np.percentile(times, float(percentile[1:])))],
                y=[float(percentile[1:]) / 100.0],
                mode="markers",
                marker={"color": style.colour, "symbol": symbol, "size": 9, "line": {"color": "white", "width": 1}},
                name=label(name),
                legendgroup=str(index),
                showlegend=False,
                hovertemplate=f"{percentile}: %{{x:.4g}} {unit}",
                row=1,
                col=2,
            )
    for percentile, symbol in _PERCENTILES:  # a grey key for the symbols
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=percentile, marker={"color": GREY, "symbol": symbol, "size": 9}
        )
    finish(figure, title, height=440 + 14 * len(runs))
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"}, margin={"b": 90})
    figure.update_annotations(font_size=14)
    figure.update_xaxes(title_text="step", row=1, col=1)
    figure.update_yaxes(title_text=f"step time [{unit}]", rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title_text=f"step time [{unit}]", range=_room([t / scale for t in extremes]), row=1, col=2)
    figure.update_yaxes(title_text="share of steps", tickformat=".0%", range=[0, 1.03], row=1, col=2)
    return figure


def _room(values: list[float]) -> list[float]:
    """A range with room around the values, also where they are all but equal."""
    low, high = min(values), max(values)
    pad = max(0.05 * (high - low), 0.01 * high)
    return [low - pad, high + pad]
