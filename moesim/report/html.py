"""One self-contained page: tables, figures, provenance and the scenario that reproduces it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from moesim.report.columns import COLUMNS, cells
from moesim.report.facts import facts
from moesim.report.figures import FIGURES, draw
from moesim.report.page import figure_html, page_html
from moesim.report.provenance import provenance
from moesim.report.run import RunLike
from moesim.report.text import plain
from moesim.report.units import count, number, percent, time_text
from moesim.report.worst import worst_steps

CAPTIONS: Mapping[str, str] = {
    "latency_breakdown": (
        "Each bar is as long as the mean step and shows the mean over GPUs and steps of every part; wait is time "
        "lost to GPUs that were slower, dispatch and combine are communication that nothing hides."
    ),
    "imbalance_penalty": (
        "How many times longer the mean step takes than the same load spread evenly over GPUs; read it beside the "
        "drop rate, and a value below 1 means that the uneven load streams fewer active experts."
    ),
    "drop_tradeoff": (
        "Left and low is good: a variant that is fast because it drops assignments lies to the right, and the "
        "whisker reaches up to its 99th percentile."
    ),
    "step_time": (
        "Left, the time of every step; right, the share of steps that take no longer than a given time, so that a "
        "steep line is a steady run and its symbols are the 50th, 95th and 99th percentile."
    ),
    "layer_imbalance": (
        "How far the busiest expert of a layer lies above the mean before any capacity acts (0 = even): the line is "
        "the mean over steps, the triangle the worst step."
    ),
    "load_over_steps": (
        "Every step, the mean over MoE layers: a router that collapses loses entropy and leaves experts dead while its "
        "MaxVio climbs; what a capacity then refuses is the drop rate."
    ),
    "load_distribution": (
        "Experts from the busiest to the idlest, ranked anew in every layer and step and then averaged: an even load "
        "is the dotted line at 1, a collapsed router a spike at the left."
    ),
    "expert_load": (
        "Load of each expert over the mean requested load of its layer, summed over the measured steps (1 = its fair "
        "share); where assignments were dropped or rerouted, the processed load stands beside the requested one."
    ),
    "gpu_time": (
        "A GPU that is bright in the upper strip computes most of the time; one that is bright in the lower strip "
        "waits for the dark ones."
    ),
    "link_traffic": (
        "Bytes that each GPU (row) sends to each other GPU (column) in a step, dispatch and combine together; the "
        "lines part the nodes, and a bright column is a hot receiver."
    ),
    "timeline": (
        "Operations of each GPU from the start of the step: where wait begins, a GPU has entered an exchange, and it "
        "ends when the slowest participant has entered too; the view opens on the first layers, and a double click "
        "shows the rest."
    ),
}
"""One sentence a figure: how to read it."""

_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Time": ("latency_breakdown", "imbalance_penalty", "drop_tradeoff", "step_time"),
    "Load": ("layer_imbalance", "load_over_steps", "load_distribution", "expert_load"),
    "GPUs and links": ("gpu_time", "link_traffic", "timeline"),
}


def report_html(runs: Mapping[str, RunLike], *, title: str, scenario_yaml: str | None) -> str:
    """The report of one run or several on shared axes, as the text of an HTML5 file.

    It needs no network and holds no date, wall time or path of its own: the
    same runs give the same bytes. `scenario_yaml` is shown as it is.

    Raises:
        InputError: no run.
    """
    sections = {
        heading: [
            {
                "name": name,
                "title": FIGURES[name][1],
                "caption": CAPTIONS[name],
                "html": figure_html(draw(name, runs), name),
            }
            for name in names
        ]
        for heading, names in _SECTIONS.items()
    }
    table = cells({name: run.summary for name, run in runs.items()})
    return page_html(
        "report.html.j2",
        title=plain(title),
        facts=facts(runs, scenario_yaml),
        columns=COLUMNS,
        rows=[(plain(name), row) for name, row in table.items()],
        worst=_worst_rows(runs),
        sources=provenance(runs),
        several=len(runs) > 1,
        sections=sections,
        scenario_yaml=scenario_yaml,
    )


def _worst_rows(runs: Mapping[str, RunLike], n: int = 3) -> list[tuple[str, list[str]]]:
    """The worst steps of every variant, each value as it is shown."""
    rows = []
    for name, run in runs.items():
        for step in worst_steps(run, n).astype(object).to_dict("records"):
            shown: dict[str, Any] = {str(key): _present(value) for key, value in step.items()}
            rows.append(
                (
                    plain(name),
                    [
                        count(shown["step"]),
                        time_text(shown["step_time_s"]),
                        number(shown["times_mean"], 3),
                        count(shown["layer"]),
                        number(shown["balancedness"], 3),
                        count(shown["rank"]),
                        percent(shown["critical_share"]),
                        count(shown["expert"]),
                        number(shown["expert_load"], 3),
                        percent(shown["drop_rate"]),
                    ],
                )
            )
    return rows


def _present(value: Any) -> float | None:
    """A number, or None for what pandas calls <NA> or NaN."""
    text = str(value)
    return None if re.fullmatch(r"(?i)<NA>|nan|none", text) else float(value)
