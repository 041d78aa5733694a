"""Figures of one run or of several on shared axes.

In: runs by variant, in order (the first is the baseline). Out: Plotly figures.
`FIGURES` names them all; each is a function `(runs) -> Figure` that draws from
frames only, with units on its axes and the same colour for the same variant or
part of a step everywhere. Importing this package does not import Plotly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from moesim.errors import InputError, nearest
from moesim.report.comparison import averaged, points_of, with_axes
from moesim.report.run import RunLike
from moesim.report.sample import sample_of_points, sample_of_runs

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_HERE = "moesim.report.figures"
_SUBTITLE_PX = 20

_OF_RUNS: Mapping[str, tuple[str, str]] = {
    "latency_breakdown": (f"{_HERE}.latency:latency_breakdown", "Where the time of a step goes"),
    "imbalance_penalty": (f"{_HERE}.latency:imbalance_penalty", "What imbalance costs"),
    "drop_tradeoff": (f"{_HERE}.latency:drop_tradeoff", "Dropped assignments against step time"),
    "step_time": (f"{_HERE}.latency:step_time", "Step time over the run"),
    "layer_imbalance": (f"{_HERE}.load:layer_imbalance", "Load imbalance by layer"),
    "load_over_steps": (f"{_HERE}.load:load_over_steps", "Load over the run"),
    "load_distribution": (f"{_HERE}.load:load_distribution", "Load distribution over experts"),
    "expert_load": (f"{_HERE}.load:expert_load", "Load of every expert"),
    "load_animation": (f"{_HERE}.animation:load_animation", "Load of every expert, step by step"),
    "gpu_load": (f"{_HERE}.gpus:gpu_load", "Load of the GPUs"),
    "gpu_time": (f"{_HERE}.gpus:gpu_time", "How busy each GPU is"),
    "link_traffic": (f"{_HERE}.gpus:link_traffic", "Traffic between GPUs"),
    "timeline": (f"{_HERE}.timeline:timeline", "Timeline of the first kept step"),
}

_OF_SUMMARIES = ("latency_breakdown", "imbalance_penalty", "drop_tradeoff")
"""Figures that show summaries alone: of several seeds, their means."""

POINT_FIGURES: Mapping[str, tuple[str, str]] = {
    "capacity_drops": (f"{_HERE}.tradeoffs:capacity_drops", "Drops against capacity factor"),
    "skew_balance": (f"{_HERE}.tradeoffs:skew_balance", "Balance against skew"),
    "latency_axes": (f"{_HERE}.tradeoffs:latency_axes", "Step time along the axes"),
    "pareto": (f"{_HERE}.tradeoffs:pareto", "Throughput against latency"),
}
"""Figures of a frame of points (axes, variant, seed, summary keys): all that a sweep keeps."""

FIGURES: Mapping[str, tuple[str, str]] = {**_OF_RUNS, **POINT_FIGURES}
"""Name -> ("module:function", title)."""


def draw(figure: str, runs: Mapping[str, RunLike], points: pd.DataFrame | None = None) -> go.Figure:
    """Draw a figure by name; below its title it says how many steps, runs and seeds it shows.

    Args:
        figure: a name of FIGURES.
        runs: by variant, in order, the first is the baseline; may be empty for POINT_FIGURES with points.
        points: axes, `variant`, `seed`, summary keys, a row a point (summary.parquet of a sweep); default: of the runs.

    Raises:
        InputError: no such figure, or nothing to draw it from.
    """
    if figure not in FIGURES:
        near = nearest(figure, FIGURES)
        hint = f"did you mean {near!r}?" if near else f"choose one of {', '.join(FIGURES)}"
        raise InputError(f"no figure is named {figure!r}; {hint}")
    if figure in POINT_FIGURES:
        if points is None and runs:
            points = points_of(runs)
        if points is None or points.empty:
            raise InputError("found no point to draw; at least one run or row is needed")
        points = with_axes(points, runs)
        return _with_sample(_drawing(figure)(points), sample_of_points(points))
    if not runs:
        only = f"; of a sweep's points alone: {', '.join(POINT_FIGURES)}" if points is not None else ""
        raise InputError(f"found no run to draw; at least one is needed{only}")
    if figure in _OF_SUMMARIES and points is not None:
        means = averaged(runs, points)
        return _with_sample(_drawing(figure)(means), sample_of_runs(runs, None if means is runs else points))
    return _with_sample(_drawing(figure)(runs), sample_of_runs(runs))


def _drawing(figure: str) -> Callable[[Any], go.Figure]:
    module, function = FIGURES[figure][0].split(":")
    return cast("Callable[[Any], go.Figure]", getattr(import_module(module), function))


def _with_sample(figure: go.Figure, sample: str) -> go.Figure:
    """The figure with a line below its title."""
    layout = figure.layout
    return figure.update_layout(
        {
            "title": {"subtitle": {"text": layout.title.subtitle.text or sample}},
            "margin": {"t": layout.margin.t + _SUBTITLE_PX},
            "height": layout.height + _SUBTITLE_PX,
        }
    )
