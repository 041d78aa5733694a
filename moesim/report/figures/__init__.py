"""Figures of one run or of several on shared axes.

In: runs by variant, in order (the first is the baseline). Out: Plotly figures.
`FIGURES` names them all; each is a function `(runs) -> Figure` that draws from
frames only, with units on its axes and the same colour for the same variant or
part of a step everywhere. Importing this package does not import Plotly.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

from moesim.errors import InputError
from moesim.report.run import RunLike

if TYPE_CHECKING:
    import plotly.graph_objects as go

_HERE = "moesim.report.figures"

FIGURES: Mapping[str, tuple[str, str]] = {
    "latency_breakdown": (f"{_HERE}.latency:latency_breakdown", "Where the time of a step goes"),
    "imbalance_penalty": (f"{_HERE}.latency:imbalance_penalty", "What imbalance costs"),
    "drop_tradeoff": (f"{_HERE}.latency:drop_tradeoff", "Dropped assignments against step time"),
    "step_time": (f"{_HERE}.latency:step_time", "Step time over the run"),
    "layer_imbalance": (f"{_HERE}.load:layer_imbalance", "Load imbalance by layer"),
    "load_over_steps": (f"{_HERE}.load:load_over_steps", "Load over the run"),
    "load_distribution": (f"{_HERE}.load:load_distribution", "Load distribution over experts"),
    "expert_load": (f"{_HERE}.load:expert_load", "Load of every expert"),
    "gpu_time": (f"{_HERE}.gpus:gpu_time", "How busy each GPU is"),
    "link_traffic": (f"{_HERE}.gpus:link_traffic", "Traffic between GPUs"),
    "timeline": (f"{_HERE}.timeline:timeline", "Timeline of the first kept step"),
}
"""Name -> ("module:function", title)."""


def draw(figure: str, runs: Mapping[str, RunLike]) -> go.Figure:
    """Draw a figure by name.

    Raises:
        InputError: no such figure, or no run.
    """
    if figure not in FIGURES:
        near = difflib.get_close_matches(figure, FIGURES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(FIGURES)}"
        raise InputError(f"no figure is named {figure!r}; {hint}")
    if not runs:
        raise InputError("found no run to draw; at least one is needed")
    module, function = FIGURES[figure][0].split(":")
    drawing = cast("Callable[[Mapping[str, RunLike]], go.Figure]", getattr(import_module(module), function))
    return drawing(runs)
