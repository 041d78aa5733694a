"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from moesim.report.columns import FEW, cells, columns_of, table_notes
from moesim.report.provenance import counts
from moesim.report.summary import summary_rows
from moesim.report.text import printable
from moesim.report.work import differing_work

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

_UNCUT = 1_000_000
"""Columns of an imagined terminal that no table fills."""


def summary_table(summary: Mapping[str, Any], manifest: Mapping[str, Any], *, sparkline: str = "") -> Table:
    """The summary of one run: a row a figure, times with their unit, parts with their share of the step.

    `sparkline` shows balancedness over the steps (`moesim.report.sparkline.balancedness`).
    """
    from rich.text import Text

    table = plain_table()
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("note")
    for name, value, note in summary_rows(summary):
        table.add_row(Text(name), Text(value), Text(note))
        if name == "balancedness, mean" and sparkline:
            table.add_row(Text("balancedness, by step"), Text(sparkline), Text("first to last step; full height = 1"))
    words = [f"{name} {printable(manifest[name])}" for name in ("seed", "engine") if manifest.get(name) is not None]
    labelled = counts(manifest)
    table.caption = Text("; ".join([*words, *([f"inputs: {labelled}"] if labelled else [])]))
    table.caption_justify = "left"
    return table


def compare_table(
    rows: Mapping[str, Mapping[str, Any]],
    *,
    sparklines: Mapping[str, str] | None = None,
    paired: pd.DataFrame | None = None,
) -> Table:
    """Summaries by variant: a row a variant, the best value of each column bold and marked with *.

    Percentiles of too few steps are marked too, and a line below says so. Step times and bytes of variants that do
    not do the same work have no best; a line says that too.

    Args:
        rows: nested summaries by variant; the first is the baseline.
        sparklines: balancedness over the steps of each variant, a last column.
        paired: differences to the baseline; what its `significant` denies, by `variant` and `metric`, is marked with ~.
    """
    from rich.text import Text

    table = plain_table()
    table.add_column("variant")
    columns = columns_of(rows.values())
    for column in columns:
        header = f"{column.header}\n[{column.unit}]" if column.unit else column.header
        table.add_column(Text(header), justify="right")  # Text: rich would read [ms] as a style
    if sparklines:
        table.add_column("balancedness\nby step")
    unsure, same_work = _not_significant(paired), not differing_work(rows.values())
    for variant, row in cells(rows).items():
        shown = []
        for column, cell in zip(columns, row, strict=True):
            compared = len(column.keys) == 1 and (same_work or not column.of_a_step)
            mark = "~" if compared and (variant, column.keys[0]) in unsure else ""
            marks = ("*" if cell.best else "") + mark + (FEW if cell.too_few_steps else "")
            shown.append(Text(f"{cell.text}{marks or ' '}", style="bold" if cell.best else ""))
        line = [Text(sparklines.get(variant, ""))] if sparklines else []
        table.add_row(Text(printable(variant)), *shown, *line)
    words = "* best of its column; the first variant is the baseline" if len(rows) > 1 else ""
    words += "; ~ its difference to the baseline may be chance" if words and unsure else ""
    table.caption = Text("\n".join(line for line in (words, *table_notes(rows.values())) if line))
    table.caption_justify = "left"
    return table


def _not_significant(paired: pd.DataFrame | None) -> set[tuple[str, str]]:
    """(variant, metric) of the differences that several seeds do not show."""
    if paired is None or paired.empty:
        return set()
    unsure = paired[(paired["n"] > 1) & ~paired["significant"].astype(bool) & (paired["difference"] != 0)]
    return set(zip(unsure["variant"].astype(str), unsure["metric"].astype(str), strict=True))


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


def text_table(headers: Sequence[str], rows: Iterable[Sequence[str]], n_left: int, caption: str = "") -> Table:
    """A table of texts, of which the first `n_left` columns are words and the others numbers."""
    from rich.text import Text

    table = plain_table()
    for i, header in enumerate(headers):
        table.add_column(Text(header), justify="left" if i < n_left else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if caption:
        table.caption = Text(caption)
        table.caption_justify = "left"
    return table


def plain_table() -> Table:
    """A table without columns, in the one style of all tables."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
