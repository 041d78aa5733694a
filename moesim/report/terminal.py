"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from moesim.report.columns import COLUMNS, cells, lookup
from moesim.report.provenance import counts
from moesim.report.text import plain
from moesim.report.units import bytes_text, count, number, percent, time_text
from moesim.types import PARTS

if TYPE_CHECKING:
    from rich.table import Table

_UNCUT = 1_000_000
"""Columns of an imagined terminal that no table fills."""


def summary_table(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> Table:
    """The summary of one run: a row a figure, times with their unit, parts with their share of the step."""
    from rich.text import Text

    table = _table()
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("note")
    for name, value, note in _summary_rows(summary):
        table.add_row(Text(name), Text(value), Text(note))
    words = [f"{name} {plain(manifest[name])}" for name in ("seed", "engine") if manifest.get(name) is not None]
    labelled = counts(manifest)
    table.caption = Text("; ".join([*words, *([f"inputs: {labelled}"] if labelled else [])]))
    table.caption_justify = "left"
    return table


def compare_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Summaries by variant: a row a variant, the best value of each column bold and marked with *."""
    from rich.text import Text

    table = _table()
    table.add_column("variant")
    for column in COLUMNS:
        header = f"{column.header}\n[{column.unit}]" if column.unit else column.header
        table.add_column(Text(header), justify="right")  # Text: rich would read [ms] as a style
    for variant, row in cells(rows).items():
        shown = [Text(f"{cell.text}*", style="bold") if cell.best else Text(f"{cell.text} ") for cell in row]
        table.add_row(Text(plain(variant)), *shown)
    if len(rows) > 1:
        table.caption = Text("* best of its column; the first variant is the baseline")
        table.caption_justify = "left"
    return table


def print_table(table: Table, file: IO[str]) -> None:
    """Print a table; into a file or a pipe at its full width, without colour, uncut and unwrapped."""
    from rich.console import Console

    if file.isatty():
        Console(file=file).print(table)
        return
    console = Console(file=file, width=_UNCUT, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(table)
    file.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def _queue_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Of expert queues, where there are any."""
    if lookup(summary, "queue.wait_mean_s") is None:
        return []
    return [
        ("wait in expert queues, mean", time_text(lookup(summary, "queue.wait_mean_s")), "of a token"),
        ("wait in expert queues, max", time_text(lookup(summary, "queue.wait_max_s")), ""),
        ("longest expert queue", f"{count(lookup(summary, 'queue.tokens_max'))} tokens", ""),
    ]


def _summary_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, note) of each row."""

    def of(key: str) -> float | None:
        return lookup(summary, key)

    step = of("step_time_s.mean")
    rows = [
        ("step time, mean", time_text(step), f"over {count(of('n_steps'))} measured steps"),
        ("step time, p50", time_text(of("step_time_s.p50")), ""),
        ("step time, p95", time_text(of("step_time_s.p95")), ""),
        ("step time, p99", time_text(of("step_time_s.p99")), ""),
        ("step time, max", time_text(of("step_time_s.max")), ""),
        ("tokens/s/GPU", number(of("tokens_per_s_per_gpu")), ""),
        ("imbalance penalty", number(of("imbalance_penalty")), "mean step time / the same load spread evenly"),
        ("MaxVio, mean", number(of("max_violation.mean")), "max / mean - 1 of the requested expert load"),
        ("MaxVio, max", number(of("max_violation.max")), ""),
        ("balancedness, mean", number(of("balancedness.mean")), "mean / max of the processed load over GPUs"),
        ("balancedness, min", number(of("balancedness.min")), ""),
        ("drop rate", f"{percent(of('drop_rate'))} %", "of the requested assignments"),
        ("tokens dropped", f"{percent(of('token_drop_rate'))} %", "tokens that lost every choice"),
        ("reroute rate", f"{percent(of('reroute_rate'))} %", ""),
        *_queue_rows(summary),
        ("bytes within nodes", bytes_text(of("bytes.within_node")), "per step"),
        ("bytes across nodes", bytes_text(of("bytes.across_nodes")), "per step"),
    ]
    for part in PARTS:
        time = of(f"breakdown_s.{part}")
        if time:  # a part that never runs says nothing
            share = f"{percent(time / step)} % of the step" if step else ""
            rows.append((part.replace("_", " "), time_text(time), share))
    return rows
