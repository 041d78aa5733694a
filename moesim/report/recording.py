"""What a recording holds, for the terminal and as a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from moesim.recordings.description import Description
from moesim.recordings.statistics import Estimate, LayerStatistics, hot_experts
from moesim.report.terminal import text_table
from moesim.report.text import printable
from moesim.report.units import ABSENT, count

if TYPE_CHECKING:
    from rich.table import Table

MAX_ROWS = 12
"""Layers of a table of the terminal; of more, evenly picked ones."""

LOAD = {
    "max_violation": "MaxVio",
    "cv": "CV",
    "entropy": "entropy",
    "top_share": "top share",
    "overlap": "overlap",
    "dead_experts": "dead",
}
"""Statistics of all tokens together, and their headers."""
STEPS_AND_RANKS = {
    "step_max_violation": "MaxVio/step",
    "step_cv": "CV/step",
    "step_entropy": "entropy/step",
    "destination_ranks": "ranks",
    "rank_balancedness": "balancedness",
}
"""Statistics by step and by rank."""


def facts(found: Description) -> list[tuple[str, str]]:
    """What is known of the recording as (name, text)."""
    names = {
        "recording": printable(PurePath(found.path).name or "-"),
        "kind": found.kind + (", synthetic" if found.synthetic else ""),
        "layout": printable(found.layout),
        "model": printable(found.model),
        "tokens": count(found.n_tokens) if found.n_tokens else "",
        "sequences": count(found.n_sequences) if found.n_sequences else "",
        "steps": count(found.n_steps) if found.n_steps else "",
        "layers": count(len({row.layer for row in found.rows})),
        "experts": count(found.n_experts),
        "top-k": count(found.top_k) if found.top_k else "",
        "EP ranks": count(found.n_ranks) if found.n_ranks else "",
    }
    return [(name, text) for name, text in names.items() if text]


def phases(found: Description) -> dict[str, list[LayerStatistics]]:
    """The rows by phase."""
    by_phase: dict[str, list[LayerStatistics]] = {}
    for row in found.rows:
        by_phase.setdefault(row.phase, []).append(row)
    return by_phase


def known(rows: Sequence[LayerStatistics], names: Iterable[str]) -> list[str]:
    """The names of the statistics that any row has a value of."""
    return [name for name in names if any(np.isfinite(row.values[name].value) for row in rows if name in row.values)]


def estimate_text(estimate: Estimate, decimals: int = 2) -> str:
    """A value with its standard error: 0.41±0.09; a whole number without."""
    if not np.isfinite(estimate.value):
        return ABSENT
    value = _rounded(estimate.value, decimals)
    if not np.isfinite(estimate.error) or decimals == 0:
        return value
    return f"{value}±{estimate.error:.{decimals}f}"


def _rounded(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}"


def _decimals(name: str) -> int:
    return 3 if name in ("entropy", "step_entropy") else 0 if name == "dead_experts" else 2


def statistic_tables(found: Description) -> list[tuple[str, Table]]:
    """Tables for the terminal, each with the line above it: of each phase the load, then its steps and ranks."""
    tables = []
    for phase, rows in phases(found).items():
        tokens = f"{count(max(row.n_tokens for row in rows))} tokens" if rows[0].n_tokens else "counts"
        for title, group in (("all tokens together", LOAD), ("by step and rank", STEPS_AND_RANKS)):
            names = known(rows, group)
            if names:
                headers, lines = statistic_rows(rows, names, {**LOAD, **STEPS_AND_RANKS})
                where = f"phase {phase}, " if phase != "unknown" else ""
                tables.append((f"{where}{tokens}, {title}", text_table(headers, lines, n_left=1)))
    return tables


def statistic_rows(
    rows: Sequence[LayerStatistics], names: Sequence[str], headers: dict[str, str], *, most: int = MAX_ROWS
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of texts: of the layers, at most `most`, then their mean and what chance alone would show."""
    picked = sorted({round(i) for i in np.linspace(0, len(rows) - 1, min(most, len(rows)))})
    lines = [
        [str(rows[i].layer), *(estimate_text(rows[i].values[name], _decimals(name)) for name in names)] for i in picked
    ]
    values = {name: np.array([row.values[name].value for row in rows]) for name in names}
    if len(rows) > 1:
        means = (_rounded(float(np.nanmean(values[name])), _decimals(name)) for name in names)
        lines.append([f"mean of {len(rows)}", *means])
        for word, extreme in (("lowest", np.nanmin), ("highest", np.nanmax)):
            lines.append([word, *(_rounded(float(extreme(values[name])), _decimals(name)) for name in names)])
    evens = {name: np.array([row.values[name].even for row in rows]) for name in names}
    if any(np.isfinite(even).any() for even in evens.values()):
        texts = (
            _rounded(float(np.nanmean(even)), _decimals(name)) if np.isfinite(even).any() else ABSENT
            for name, even in evens.items()
        )
        lines.append(["even router", *texts])
    return ["layer", *(headers[name] for name in names)], lines


def closing_lines(found: Description) -> list[str]:
    """What must be said below the tables, a sentence a line."""
    hot = hot_experts(found.n_experts)
    errors = any(np.isfinite(row.values["cv"].error) for row in found.rows)
    hottest = f"{hot} hottest" if hot > 1 else "hottest"
    overlap = "" if found.kind == "counts" else "; overlap: choices that the token before made too"
    lines = [
        (f"± is the standard error, from {found.groups}. " if errors else "A single step has no sampling error. ")
        + "An even router shows what it shows by chance, with as many tokens.",
        f"top share: of the {hottest} of {found.n_experts} experts{overlap}.",
    ]
    if found.n_ranks:
        of_token = (
            "" if found.kind == "counts" else f"ranks: of {found.n_ranks}, how many hold the experts of a token; "
        )
        lines.append(f"{of_token}balancedness: mean / max of the loads of {found.n_ranks} ranks.")
    if found.coactivation is not None:
        row, _ = found.coactivation
        first, second = row.pair or (0, 0)
        lines.append(
            f"strongest pair: experts {first} and {second} of layer {row.layer}, chosen together "
            f"{estimate_text(row.pair_lift, 1)} times as often as their loads say."
        )
    return lines


def recording_html(found: Description) -> str:
    """The report of a recording as the text of an HTML5 file that needs no network."""
    from moesim.report.figures.recording import recording_figures
    from moesim.report.page import figure_html, page_html

    figures = [
        {
            "name": name.replace("_", "-"),
            "title": title,
            "html": figure_html(figure, name),
            "caption": caption,
        }
        for name, title, figure, caption in recording_figures(found)
    ]
    headers = {**LOAD, **STEPS_AND_RANKS}
    tables = []
    for phase, rows in phases(found).items():
        head, lines = statistic_rows(rows, known(rows, headers), headers, most=len(rows))
        tables.append({"phase": phase, "headers": head, "rows": lines})
    return page_html(
        "recording.html.j2",
        title=printable(PurePath(found.path).name or "recording"),
        facts=facts(found),
        figures=figures,
        tables=tables,
        notes=[printable(note, 400) for note in found.notes],
        closing=closing_lines(found),
    )
