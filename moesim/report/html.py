"""One self-contained page: tables, figures, provenance and the scenario that reproduces it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moesim.errors import InputError
from moesim.report.captions import CAPTIONS
from moesim.report.comparison import averaged, differing, points_of, scenario_fields, with_axes
from moesim.report.figures import FIGURES, POINT_FIGURES, draw
from moesim.report.header_facts import header_facts
from moesim.report.page import CONFIG
from moesim.report.page_tables import Table, paired_page_table, points_page_table
from moesim.report.provenance import provenance
from moesim.report.run import RunLike
from moesim.report.summary import summary_rows
from moesim.report.text import printable
from moesim.report.units import count, number, percent, time_text
from moesim.report.work import differing_work, unequal_note
from moesim.report.worst import worst_steps

if TYPE_CHECKING:
    import pandas as pd

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Trade-offs": ("capacity_drops", "skew_balance", "latency_axes", "pareto", "drop_tradeoff"),
    "Time": ("latency_breakdown", "imbalance_penalty", "step_time"),
    "Load": ("layer_imbalance", "load_over_steps", "load_distribution", "expert_load", "load_animation"),
    "GPUs and links": ("gpu_load", "gpu_time", "link_traffic", "timeline"),
}
_OF_A_VARIANT = ("expert_load", "link_traffic", "timeline")
"""Figures of a variant's own page: those that show one variant, or only the first few, on the shared one."""


@dataclass(frozen=True, kw_only=True)
class _Plot:
    """A figure on the page: its name, the id of its place, title, caption, height in pixels and its data as JSON."""

    name: str
    id: str
    title: str
    caption: str
    height: int
    json: str


def report_html(
    runs: Mapping[str, RunLike],
    *,
    title: str,
    scenario_yaml: str | None,
    points: pd.DataFrame | None = None,
    paired: pd.DataFrame | None = None,
) -> str:
    """The report of one run or several on shared axes, as the text of an HTML5 file.

    It needs no network and holds no date, wall time or path of its own: the
    same runs give the same bytes. `scenario_yaml` is shown as it is.

    Args:
        runs: by variant, in order; the first is the baseline.
        title: of the page.
        scenario_yaml: the resolved scenario of the baseline.
        points: a row a run over all seeds (axes, `variant`, `seed`, summary keys); default: one row each of `runs`.
        paired: differences to the baseline, paired by seed; see `moesim.report.page_tables.paired_page_table`.

    Raises:
        InputError: no run.
    """
    if not runs:
        raise InputError("found no run to draw; at least one is needed")
    known = points_of(runs) if points is None else with_axes(points, runs)
    names = [name for names in SECTIONS.values() for name in names]
    if len(runs) == 1 and points is None:
        names = [name for name in names if name not in POINT_FIGURES]
    drawn, absent = _draw(names, runs, known)
    several = len(runs) > 1
    return _page(
        title=title,
        facts=header_facts(runs, scenario_yaml),
        summary=_summary_table(averaged(runs, known)),
        several=several,
        sections=_in_sections(drawn),
        absent=absent,
        paired=paired_page_table(paired) if paired is not None and len(paired) else None,
        worst=_worst_table(runs),
        variants=_variants(runs) if several else [],
        scenarios=_scenarios(runs) if several else None,
        sources=provenance(runs),
        empty=_empty_frames(runs),
        scenario_yaml=scenario_yaml,
        warnings=_warnings(line for run in runs.values() for line in run.manifest.get("warnings") or ()),
    )


def sweep_html(
    points: pd.DataFrame,
    *,
    title: str,
    scenario_yaml: str | None = None,
    paired: pd.DataFrame | None = None,
    warnings: Sequence[str] = (),
) -> str:
    """The report of a sweep, of which only its points are kept, as the text of an HTML5 file.

    Args:
        points: axes, `variant`, `seed`, summary keys joined by dots; a row a point (summary.parquet of a sweep).
        title: of the page.
        scenario_yaml: the swept scenario; shown as it is.
        paired: differences to the baseline, paired by seed; see `moesim.report.page_tables.paired_page_table`.
        warnings: about fields of the scenario, a line each.

    Raises:
        InputError: no point, or no column `variant`.
    """
    points = with_axes(points, {})
    drawn, absent = _draw(list(POINT_FIGURES), {}, points)
    return _page(
        title=title,
        facts=[("points", count(len(points)))],
        summary=points_page_table(points),
        several=True,
        sections=_in_sections(drawn),
        absent=absent,
        paired=paired_page_table(paired) if paired is not None and len(paired) else None,
        worst=None,
        variants=[],
        scenarios=None,
        sources=[],
        empty=[],
        scenario_yaml=scenario_yaml,
        warnings=_warnings(warnings),
    )


def _warnings(lines: Iterable[str]) -> list[str]:
    """Each once, in their order."""
    return list(dict.fromkeys(printable(line, 1000) for line in lines))


def _page(**parts: Any) -> str:
    import jinja2
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("moesim.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts["title"] = printable(parts["title"])
    return environment.get_template("report.html.j2").render(
        **parts,
        config=_in_script(json.dumps(CONFIG)),
        plotly_js=get_plotlyjs(),
        report_js=environment.loader.get_source(environment, "report.js")[0] if environment.loader else "",
    )


def _draw(
    names: Sequence[str], runs: Mapping[str, RunLike], points: pd.DataFrame, suffix: str = ""
) -> tuple[list[_Plot], list[tuple[str, str]]]:
    """The figures, and (title, reason) of those over axes that have nothing to show."""
    drawn, absent = [], []
    for name in names:
        figure = draw(name, runs, points)
        if name in POINT_FIGURES and figure.layout.meta == "nothing":
            absent.append((FIGURES[name][1], str(figure.layout.annotations[0].text)))
            continue
        drawn.append(
            _Plot(
                name=name,
                id=f"figure-{name.replace('_', '-')}{suffix}",
                title=FIGURES[name][1],
                caption=CAPTIONS[name],
                height=int(figure.layout.height),
                json=_in_script(figure.to_json()),
            )
        )
    return drawn, absent


def _in_sections(drawn: Iterable[_Plot]) -> dict[str, list[_Plot]]:
    plots = {plot.name: plot for plot in drawn}
    found = {heading: [plots[name] for name in names if name in plots] for heading, names in SECTIONS.items()}
    return {heading: figures for heading, figures in found.items() if figures}


def _in_script(text: str) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _summary_table(runs: Mapping[str, RunLike]) -> Table:
    rows = {name: run.summary for name, run in runs.items()}
    return Table.of_columns([[printable(name)] for name in rows], [("variant", False)], rows, links=len(runs) > 1)


def _variants(runs: Mapping[str, RunLike]) -> list[dict[str, Any]]:
    """The page of each variant: its summary, what differs from the baseline, its own figures."""
    baseline = next(iter(runs))
    pages = []
    for i, (name, run) in enumerate(runs.items()):
        pair = {baseline: runs[baseline].scenario, name: run.scenario}
        old, new = (scenario_fields(tree) for tree in (runs[baseline].scenario, run.scenario))
        drawn, _ = _draw(_OF_A_VARIANT, {name: run}, points_of({name: run}), f"-{i}")
        pages.append(
            {
                "name": printable(name),
                "rows": summary_rows(run.summary),
                "differs": [(field, _value(old.get(field)), _value(new.get(field))) for field in differing(pair)],
                "plots": drawn,
            }
        )
    return pages


def _empty_frames(runs: Mapping[str, RunLike]) -> list[tuple[str, str]]:
    """(name, why) of the frames that have no rows in any run."""
    first, *others = (run.manifest.get("empty_frames") or {} for run in runs.values())
    return [(printable(name), printable(why)) for name, why in first.items() if all(name in other for other in others)]


def _scenarios(runs: Mapping[str, RunLike]) -> str:
    """The fields that differ between any two scenarios, the text of their values, and why the two do not compare.

    As JSON: `work` has for each pair (left, right) the note of a table of these two, "" where they do the same work.
    """
    fields = differing({name: run.scenario for name, run in runs.items()})
    trees = [scenario_fields(run.scenario) for run in runs.values()]
    values = [[_value(tree.get(field)) for field in fields] for tree in trees]
    summaries = [run.summary for run in runs.values()]
    work = [[unequal_note(differing_work((left, right))) for right in summaries] for left in summaries]
    return _in_script(json.dumps({"fields": [printable(field) for field in fields], "values": values, "work": work}))


def _value(value: Any) -> str:
    return "none" if value is None else printable(value)


def _worst_table(runs: Mapping[str, RunLike], n: int = 3) -> list[tuple[str, list[tuple[str, float | None]]]]:
    """The worst steps of every variant, each value as it is shown and as a number."""
    shown: dict[str, Callable[[float | None], str]] = {
        "step": count,
        "step_time_s": time_text,
        "times_mean": lambda value: number(value, 3),
        "layer": count,
        "balancedness": lambda value: number(value, 3),
        "rank": count,
        "critical_share": percent,
        "expert": count,
        "expert_load": lambda value: number(value, 3),
        "drop_rate": percent,
    }
    rows = []
    for name, run in runs.items():
        for step in worst_steps(run, n).astype(object).to_dict("records"):
            values = {str(key): _present(value) for key, value in step.items()}
            rows.append((printable(name), [(text(values[key]), values[key]) for key, text in shown.items()]))
    return rows


def _present(value: Any) -> float | None:
    """A number, or None for what pandas calls <NA> or NaN."""
    text = str(value)
    return None if re.fullmatch(r"(?i)<NA>|nan|none", text) else float(value)
