"""Columns of the comparison table, the same on the terminal and in HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moesim.report.keys import lookup
from moesim.report.units import ABSENT, count, number, percent
from moesim.report.work import differing_work, grows_with_work, unequal_note

FEW = "\u2020"
"""The mark (a dagger) of a percentile of too few steps."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its header, the summary key(s) it shows and which end is good.

    `keys` are dotted; the value is the first, divided by the second where
    there are two, times `scale`. `better` is "low", "high" or "" (no best).
    A percentile of fewer than `min_steps` steps is little else than the largest.
    An `optional` column is shown where some value is not 0.
    """

    header: str
    unit: str
    keys: tuple[str, ...]
    better: str
    scale: float = 1.0
    min_steps: int = 0
    optional: bool = False

    def value(self, summary: Mapping[str, Any]) -> float | None:
        """The raw value (not scaled), or None where the summary lacks it."""
        values = [lookup(summary, key) for key in self.keys]
        if any(value is None for value in values):
            return None
        first, *rest = (float(value) for value in values if value is not None)
        if not rest:
            return first
        return first / rest[0] if rest[0] else None

    @property
    def of_a_step(self) -> bool:
        """Whether the value grows with the work of a step, so that it compares only runs that do the same work."""
        return len(self.keys) == 1 and grows_with_work(self.keys[0])

    def too_few_steps(self, summary: Mapping[str, Any]) -> bool:
        """Whether the value is of too few steps a run to be what the header says."""
        steps = lookup(summary, "n_steps")
        return steps is not None and steps < self.min_steps and self.value(summary) is not None

    def text(self, value: float | None) -> str:
        """The value as it is shown."""
        if self.unit == "%":
            return percent(value)
        return number(None if value is None else value * self.scale)


COLUMNS: Sequence[Column] = (
    Column(header="step time mean", unit="ms", keys=("step_time_s.mean",), better="low", scale=1e3),
    Column(header="step time p99", unit="ms", keys=("step_time_s.p99",), better="low", scale=1e3, min_steps=100),
    Column(header="tokens/s/GPU", unit="", keys=("tokens_per_s_per_gpu",), better="high"),
    Column(header="imbalance penalty", unit="", keys=("imbalance_penalty",), better="low"),
    Column(header="MaxVio mean", unit="", keys=("max_violation.mean",), better="low"),
    Column(header="balancedness", unit="", keys=("balancedness.mean",), better="high"),
    Column(header="drop rate", unit="%", keys=("drop_rate",), better="low"),
    Column(header="tokens dropped", unit="%", keys=("token_drop_rate",), better="low"),
    Column(header="tokens unrouted", unit="%", keys=("unrouted_token_rate",), better="low", optional=True),
    Column(header="bytes across", unit="MB/step", keys=("bytes.across_nodes",), better="low", scale=1e-6),
    Column(header="bytes within", unit="MB/step", keys=("bytes.within_node",), better="low", scale=1e-6),
    Column(header="busiest uplink", unit="%", keys=("uplink_busy",), better="low", optional=True),
    Column(header="wait share", unit="%", keys=("breakdown_s.wait", "step_time_s.mean"), better="low"),
)


def columns_of(summaries: Iterable[Mapping[str, Any]]) -> list[Column]:
    """The columns of a table of these summaries, in order."""
    known = list(summaries)
    return [column for column in COLUMNS if not column.optional or any(column.value(summary) for summary in known)]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value as it is shown, whether it is the best of its column, and whether it is of too few steps."""

    text: str
    best: bool
    too_few_steps: bool = False


def cells(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Cell]]:
    """The table of several summaries: a row a variant, a cell for each of `columns_of` them.

    What reads the same is equally good, so ties are all marked; where all
    variants read the same, or only one has a value, nothing is best. Where
    they do not do the same work, no value `of_a_step` is.
    """
    table: dict[str, list[Cell]] = {variant: [] for variant in rows}
    same_work = not differing_work(rows.values())
    for column in columns_of(rows.values()):
        values = {variant: column.value(summary) for variant, summary in rows.items()}
        texts = {variant: column.text(value) for variant, value in values.items()}
        best = _best(column, values) if same_work or not column.of_a_step else None
        for variant, text in texts.items():
            table[variant].append(Cell(text=text, best=text == best, too_few_steps=column.too_few_steps(rows[variant])))
    return table


def _best(column: Column, values: Mapping[str, float | None]) -> str | None:
    """How the best value of a column reads, or None where there is none."""
    known = [value for value in values.values() if column.text(value) != ABSENT and value is not None]
    if not column.better or len({column.text(value) for value in known}) < 2:
        return None
    return column.text(min(known) if column.better == "low" else max(known))


def table_notes(summaries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The lines below a table of these summaries: what compares, what marks mean, what was not recorded."""
    known = list(summaries)
    notes = (unequal_note(differing_work(known)), few_steps(known), *map(unrecorded, known))
    return list(dict.fromkeys(note for note in notes if note))


def unrecorded(summary: Mapping[str, Any]) -> str:
    """What a recording that lacks layers means for the numbers, "" where it lacks none."""
    layers, recorded = lookup(summary, "moe_layers"), lookup(summary, "recorded_layers")
    if layers is None or recorded is None or recorded >= layers:
        return ""
    return (
        f"{count(recorded)} of {count(layers)} MoE layers are recorded: the experts of the others get no token, so "
        "step times lack their part, and no mean counts these layers"
    )


def few_steps(summaries: Iterable[Mapping[str, Any]]) -> str:
    """The line below a table that says what FEW marks, "" where it marks nothing."""
    marked = [(column, summary) for summary in summaries for column in COLUMNS if column.too_few_steps(summary)]
    if not marked:
        return ""
    steps = count(min(lookup(summary, "n_steps") or 0.0 for _, summary in marked))
    column = marked[0][0]
    return (
        f"{FEW} of {steps} steps a run a {column.header} is little else than the slowest; {column.min_steps} are enough"
    )
