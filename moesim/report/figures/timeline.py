"""The figure of one step as it happened, GPU by GPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from moesim.report.figures.frame import finish, nothing
from moesim.report.intervals import QUEUE, group_gpus, intervals
from moesim.report.palette import PART_COLOURS
from moesim.report.run import RunLike
from moesim.report.text import label
from moesim.report.units import time_scale
from moesim.types import COMPUTE_STREAM, PARTS

MAX_GPUS = 16
MAX_BARS = 2000
"""More bars than this make a browser slow and say nothing more: the figure then ends at an earlier layer."""
OPENING_LAYERS = 6
_INSTANT_S = 1e-12
_LANE = 0.2
"""A quarter of what the bars of a GPU are high."""


def timeline(runs: Mapping[str, RunLike]) -> go.Figure:
    """A row a GPU, a bar an operation, of the first kept step of the first run that kept one.

    An exchange is split where its last participant enters: wait before, transfer after. Where exchanges and tasks run
    side by side, the tasks have the upper half of the row and the exchanges the lower.
    """
    title = "Timeline of the first kept step"
    found = next(((name, run) for name, run in runs.items() if len(run.timeline)), None)
    if found is None:
        return nothing(title, "No timeline was kept (keep.timeline_steps: 0).")
    name, run = found
    step = int(run.timeline["step"].min())
    bars = _bars(run.timeline[run.timeline["step"] == step], group_gpus(run.scenario))
    gpus = _chosen_gpus(run, step, bars)
    bars = bars[bars["gpu"].isin(gpus)]
    shown = _first_bars(bars)
    scale, unit = time_scale(float(shown["end"].max()))
    place = {gpu: i for i, gpu in enumerate(gpus)}
    halves = _side_by_side(shown)
    lane = np.where(shown["stream"] == COMPUTE_STREAM, -_LANE, _LANE) if halves else 0.0
    shown = shown.assign(row=shown["gpu"].map(place) + lane)
    figure = go.Figure()
    for part in PARTS:
        of_part = shown[shown["kind"] == part]
        if of_part.empty:
            continue
        colour, pattern = PART_COLOURS[part]
        figure.add_bar(
            base=(of_part["start"] / scale).to_numpy(dtype=np.float64),
            x=((of_part["end"] - of_part["start"]) / scale).to_numpy(dtype=np.float64),
            y=of_part["row"].to_numpy(),
            width=2 * _LANE if halves else 4 * _LANE,
            customdata=of_part["layer"].to_numpy(),
            orientation="h",
            name=part.replace("_", " "),
            marker={
                "color": colour,
                "line": {"width": 0},
                "pattern": {"shape": pattern, "fgcolor": "white", "fillmode": "overlay"},
            },
            hovertemplate=f"layer %{{customdata}}: %{{x:.4g}} {unit}",
        )
    cut = "" if len(shown) == len(bars) else f", up to layer {int(shown['layer'].max())}"
    some = "" if len(gpus) == _n_gpus(run, step) else f", {len(gpus)} of {_n_gpus(run, step)} GPUs"
    finish(
        figure,
        f"Timeline of step {step}: {label(name, 60)}{some}{cut}",
        height=230 + 26 * max(4, len(gpus)),
        barmode="overlay",
        bargap=0.2,
    )
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"})
    seed = run.manifest.get("seed")
    lanes = "; above what is computed, below what is exchanged" if halves else ""
    figure.update_layout(
        margin={"t": 96}, title_subtitle_text=f"n = 1 step, seed {'unknown' if seed is None else seed}{lanes}"
    )
    # All of a long step at once is a barcode: the view opens on the first layers, a double click shows the rest.
    figure.update_xaxes(title_text=f"time since the step began [{unit}]", range=[0, _opening(shown) / scale])
    figure.update_yaxes(
        title_text="GPU",
        tickmode="array",
        tickvals=list(range(len(gpus))),
        ticktext=[str(gpu) for gpu in gpus],
        range=[len(gpus) - 0.5, -0.5],
        showgrid=False,
    )
    return figure


def _opening(bars: pd.DataFrame) -> float:
    """Seconds until the last bar of the first few layers ends."""
    ends = bars[bars["layer"] >= 0].groupby("layer")["end"].max().sort_values()
    if len(ends) <= OPENING_LAYERS:
        return float(bars["end"].max())
    return float(ends.iloc[OPENING_LAYERS - 1])


def _side_by_side(bars: pd.DataFrame) -> bool:
    """Whether anything is exchanged on a GPU while it computes."""
    order = bars[bars["end"] > bars["start"]].sort_values(["gpu", "start", "end"])
    ended = order.groupby("gpu")["end"].cummax().groupby(order["gpu"]).shift()
    return bool((order["start"] < ended - _INSTANT_S).any())


def _n_gpus(run: RunLike, step: int) -> int:
    """Number of GPUs that have a timeline in a step."""
    return int(run.timeline.loc[run.timeline["step"] == step, "gpu"].nunique())


def _bars(step: pd.DataFrame, group: int | None) -> pd.DataFrame:
    """Rows gpu, layer, kind, start, end (seconds since the step began); waiting is a kind of its own.

    Messages of queued experts are under way while their GPU computes, dozens at a time: only tasks are shown then.
    """
    began = float(step["start_s"].min())
    bars = intervals(step, group)
    if (step["kind"] == QUEUE).any():
        bars = bars[bars["stream"] == COMPUTE_STREAM]
    return bars.assign(start=bars["start_s"] - began, end=bars["end_s"] - began)


def _chosen_gpus(run: RunLike, step: int, bars: pd.DataFrame) -> list[int]:
    """All GPUs, or those that held the others up most and then the lowest, in ascending order."""
    gpus = sorted(int(gpu) for gpu in bars["gpu"].unique())
    if len(gpus) <= MAX_GPUS:
        return gpus
    times = run.gpus[run.gpus["step"] == step].sort_values(["critical_s", "gpu"], ascending=[False, True])
    slow = [int(gpu) for gpu in times["gpu"].head(MAX_GPUS // 2)]
    others = [gpu for gpu in gpus if gpu not in slow]
    return sorted(slow + others[: MAX_GPUS - len(slow)])


def _first_bars(bars: pd.DataFrame) -> pd.DataFrame:
    """The bars of as many layers as fit, whole layers where one fits at all."""
    if len(bars) <= MAX_BARS:
        return bars
    kept = bars.head(MAX_BARS)
    last = int(kept["layer"].max())
    whole = kept[kept["layer"] < last]
    return whole if len(whole) else kept
