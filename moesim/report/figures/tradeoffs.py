"""Figures over the axes of a sweep, or over the fields on which compared variants differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from moesim.report.axes import (
    BATCH,
    CAPACITY,
    EP_SIZE,
    INTERCONNECT,
    SKEW,
    Line,
    axis_title,
    few_lines,
    first_axis,
    groups,
    interval,
    is_numeric,
    lines,
    say,
    telling,
    varying,
)
from moesim.report.comparison import NONE
from moesim.report.figures.frame import finish, nothing, panels
from moesim.report.figures.labels import label_points
from moesim.report.palette import GREY, Style, styles
from moesim.report.text import label
from moesim.report.units import percent, time_scale

MAX_LINES = 24
MAX_LATENCY_PANELS = 6
_LOG_FROM = 8.0
"""Ratio of the largest to the smallest value of an axis from which it is drawn on a logarithmic scale."""
_LABELLED = 12
_PARETO_PX = 310
"""Height of the axes of `pareto`, about: its legend takes what it needs."""
_CLEAR_LINES = 8
"""More lines than this in a panel say little: other axes are then held at their first value."""


def capacity_drops(points: pd.DataFrame) -> go.Figure:
    """A line a router: dropped assignments and wholly dropped tokens against the capacity factor."""
    title = "Drops against capacity factor"
    axis = first_axis(points, CAPACITY)
    if axis is None:
        return nothing(title, "The capacity factor does not vary.")
    return _panels(
        title,
        points,
        [
            (axis, "drop_rate", "dropped assignments", 1.0),
            (axis, "token_drop_rate", "tokens that no expert serves", 1.0),
        ],
        "share of what was asked for",
        tickformat=".2~%",
    )


def skew_balance(points: pd.DataFrame) -> go.Figure:
    """A line a variant against skew: MaxVio of the experts and balancedness of the GPUs, requested and processed."""
    title = "Balance against skew"
    axis = first_axis(points, SKEW)
    if axis is None:
        return nothing(title, "The skew of the popularity does not vary.")
    wanted = [
        ("max_violation.mean", "MaxVio of the experts, requested"),
        ("max_violation_processed.mean", "MaxVio of the experts, processed"),
        ("balancedness_requested.mean", "balancedness of the GPUs, requested"),
        ("balancedness.mean", "balancedness of the GPUs, processed"),
    ]
    return _panels(
        title, points, [(axis, key, text, 1.0) for key, text in wanted if key in points], "mean over layers and steps"
    )


def latency_axes(points: pd.DataFrame) -> go.Figure:
    """A panel an axis (batch, EP size, interconnect, then the others): mean step time, a line a variant."""
    title = "Step time along the axes"
    chosen = [axis for names in (BATCH, EP_SIZE, INTERCONNECT) if (axis := first_axis(points, names)) is not None]
    others = [axis for axis in varying(points) if axis not in (*chosen, "variant") and is_numeric(points[axis])]
    axes = [axis for axis in [*chosen, *others] if lines(points, axis, "step_time_s.mean")]
    if not axes:
        return nothing(title, "No batch, EP size, interconnect or other numeric axis varies.")
    scale, unit = time_scale(float(points["step_time_s.mean"].max()))
    drawn = [(axis, "step_time_s.mean", "", scale) for axis in axes[:MAX_LATENCY_PANELS]]
    return _panels(title, points, drawn, f"mean step time [{unit}]", rangemode="tozero")


def pareto(points: pd.DataFrame) -> go.Figure:
    """A point a combination: mean step time across, tokens per second and GPU up; a line along those nothing beats."""
    title = "Throughput against latency"
    keys = ("step_time_s.mean", "tokens_per_s_per_gpu")
    if any(key not in points or points[key].isna().all() for key in keys):
        return nothing(title, "No run has both a step time and a throughput.")
    combinations = _combinations(points)
    scale, unit = time_scale(max(found["time"] for found in combinations))
    hues = list(dict.fromkeys(found["group"] for found in combinations))
    style = dict(zip(hues, styles(hues), strict=True))
    frontier = _frontier([(found["time"], found["throughput"]) for found in combinations])
    figure = go.Figure()
    best = [combinations[i] for i in frontier]
    figure.add_scatter(
        x=[found["time"] / scale for found in best],
        y=[found["throughput"] for found in best],
        mode="lines",
        line={"color": GREY, "width": 1.5, "shape": "hv"},
        name="nothing is better in both",
        hoverinfo="skip",
    )
    for group in hues:
        for drops in (False, True):
            members = [found for found in combinations if found["group"] == group and found["drops"] == drops]
            if not members:
                continue
            figure.add_scatter(
                x=[found["time"] / scale for found in members],
                y=[found["throughput"] for found in members],
                mode="markers",
                name=label(group or "all") + (", drops" if drops else ""),
                legendgroup=str(hues.index(group)),
                marker={
                    "color": style[group].colour,
                    "symbol": style[group].symbol + ("-open" if drops else ""),
                    "size": 10,
                    "line": {"color": style[group].colour if drops else "white", "width": 2 if drops else 1},
                },
                error_x=_errors(members, "time_low", "time", "time_high", scale),
                error_y=_errors(members, "throughput_low", "throughput", "throughput_high", 1.0),
                text=[label(found["name"], 60) for found in members],
                customdata=[percent(found["drop_rate"]) for found in members],
                hovertemplate=(
                    f"%{{text}}: %{{y:.4g}} tokens/s/GPU at %{{x:.4g}} {unit}, drops %{{customdata}} %<extra></extra>"
                ),
            )
    finish(figure, title, height=480 + 10 * len(hues))
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}, margin={"b": 90})
    times = [found["time"] / scale for found in combinations]
    room = 0.05 * (max(times) - min(times)) or 0.05 * max(times)
    figure.update_xaxes(title_text=f"mean step time [{unit}]", range=[min(times) - room, max(times) + 5 * room])
    low = min(found["throughput_low"] for found in combinations)
    high = max(found["throughput_high"] for found in combinations)
    pad = 0.07 * (high - low) or 0.05 * high
    figure.update_yaxes(title_text="throughput [tokens/s/GPU]", range=[low - pad, high + 2 * pad])
    if len(best) <= _LABELLED:
        named = [(found["time"] / scale, found["throughput"], label(found["name"], 70)) for found in best]
        label_points(figure, named, font_px=12, height_px=_PARETO_PX)
    return figure


def _combinations(points: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean over seeds of each combination of axes and variant."""
    names = varying(points)
    parts = [(dict(zip(names, values, strict=True)), part) for values, part in groups(points, names)]
    told = telling([values for values, _ in parts])
    found = []
    for values, part in parts:
        time = interval(part["step_time_s.mean"].astype(float).tolist())
        throughput = interval(part["tokens_per_s_per_gpu"].astype(float).tolist())
        drop_rate, lost = (
            float(part[key].astype(float).mean()) if key in part else 0.0 for key in ("drop_rate", "token_drop_rate")
        )
        variants = part["variant"].unique()
        own = len(variants) == 1 and (points["variant"] == variants[0]).sum() == len(part)
        found.append(
            {
                **dict(zip(("time", "time_low", "time_high"), time, strict=True)),
                **dict(zip(("throughput", "throughput_low", "throughput_high"), throughput, strict=True)),
                "name": str(variants[0]) if own else ", ".join(say(name, values[name]) for name in told),
                "group": values.get("routing.strategy", str(variants[0]) if own else values.get("variant", "")),
                "drop_rate": drop_rate,
                "drops": drop_rate > 0 or lost > 0,
            }
        )
    return found


def _errors(members: Sequence[Mapping[str, Any]], low: str, mid: str, high: str, scale: float) -> dict[str, Any] | None:
    """Whiskers to the ends of the intervals; None where no point has one."""
    up = [(found[high] - found[mid]) / scale for found in members]
    down = [(found[mid] - found[low]) / scale for found in members]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down} if any([*up, *down]) else None


def _frontier(places: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both, by time (low is good) and throughput (high is good)."""
    order = sorted(range(len(places)), key=lambda i: (places[i][0], -places[i][1]))
    best = float("-inf")
    kept: list[int] = []
    for i in order:
        if places[i][1] > best:
            best, kept = places[i][1], [*kept, i]
    return kept


def _panels(
    title: str, points: pd.DataFrame, wanted: Sequence[tuple[str, str, str, float]], y_title: str, **y_axis: Any
) -> go.Figure:
    """A panel for each (axis, summary key, its title, unit): a line for every combination of what else varies."""
    drawn = []
    for axis, key, text, scale in wanted:
        found, held = few_lines(points, axis, key, _CLEAR_LINES)
        if found:
            drawn.append((axis, "<br>".join(label(part, 44) for part in (text, held) if part), scale, found))
    if not drawn:
        return nothing(title, "No line along the axis has two points.")
    names = list(dict.fromkeys((line.name, line.group) for *_, found in drawn for line in found))[:MAX_LINES]
    style = _styles(names)
    figure, height, places = panels(
        [text for _, text, _, _ in drawn],
        columns=2 if len(drawn) == 4 else min(3, len(drawn)),
        panel_px=330,
        gap_px=110,
    )
    for (axis, text, scale, found), (row, col) in zip(drawn, places, strict=True):
        numeric = is_numeric(points[axis])
        ticks = _ticks(found) if numeric else {}
        for line in found:
            if (line.name, line.group) not in style:
                continue
            _add_line(
                figure,
                line,
                style,
                ticks,
                scale,
                row=row,
                col=col,
                meta=text or axis_title(axis),
            )
        _scale_axis(figure, axis, found, ticks, numeric, row=row, col=col)
    seen: set[str] = set()
    for trace in figure.data:
        trace.showlegend = trace.legendgroup not in seen and len(names) > 1
        seen.add(trace.legendgroup)
    every = len({(line.name, line.group) for *_, found in drawn for line in found})
    some = "" if every <= MAX_LINES else f" (first {MAX_LINES} of {every} lines)"
    finish(figure, f"{title}{some}", height=height + 14 * len(names))
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"}, margin={"b": 90, "t": 96})
    for row, col in places:
        figure.update_yaxes(**y_axis, row=row, col=col)
        if col == 1:
            figure.update_yaxes(title_text=y_title, row=row, col=col)
    return figure


def _styles(names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Style]:
    return dict(zip(names, styles([group for _, group in names]), strict=True))


def _add_line(
    figure: go.Figure,
    line: Line,
    styles_of: Mapping[tuple[str, str], Style],
    ticks: Mapping[Any, float],
    scale: float,
    *,
    meta: str,
    **place: int,
) -> None:
    style = styles_of[line.name, line.group]
    figure.add_scatter(
        x=[ticks.get(x, x) for x in line.x],
        y=[value / scale for value in line.mean],
        mode="lines+markers" if ticks else "markers",
        name=label(line.name or "all runs"),
        legendgroup=str(list(styles_of).index((line.name, line.group))),
        line={"color": style.colour, "dash": style.dash, "width": 2},
        marker={"color": style.colour, "symbol": style.symbol, "size": 8},
        error_y=_errors(
            [{"low": a, "mid": b, "high": c} for a, b, c in zip(line.low, line.mean, line.high, strict=True)],
            "low",
            "mid",
            "high",
            scale,
        ),
        customdata=line.n,
        hovertemplate="%{x}: %{y:.4g} (%{customdata} seeds)",
        meta=meta,
        **place,
    )


def _ticks(found: Sequence[Line]) -> dict[Any, float]:
    """Value -> its place on the axis; "none" stands right of the largest number."""
    values = {x for line in found for x in line.x}
    numbers = sorted(x for x in values if not isinstance(x, str))
    ticks: dict[Any, float] = {x: x for x in numbers}
    if NONE in values:
        gap = (numbers[-1] - numbers[0]) / max(1, len(numbers) - 1) or 1.0
        ticks[NONE] = numbers[-1] + gap
    return ticks


def _scale_axis(
    figure: go.Figure, axis: str, found: Sequence[Line], ticks: Mapping[Any, float], numeric: bool, **place: int
) -> None:
    """Title and ticks of a horizontal axis: the simulated values themselves where they are few."""
    options: dict[str, Any] = {"title_text": axis_title(axis)}
    if not numeric:
        order = list(dict.fromkeys(x for line in found for x in line.x))
        options.update(type="category", categoryorder="array", categoryarray=order)
    else:
        numbers = [x for x in ticks if not isinstance(x, str)]
        if len(ticks) <= 10:
            options.update(tickmode="array", tickvals=list(ticks.values()))
            options["ticktext"] = [x if isinstance(x, str) else f"{x:g}" for x in ticks]
        if NONE not in ticks and min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_FROM:
            options["type"] = "log"
    figure.update_xaxes(**options, **place)
