"""Tables on a terminal and off it."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest

from moesim.report import Run
from moesim.report.sparkline import balancedness, sparkline
from moesim.report.terminal import compare_table, print_table, summary_table
from moesim.report.terminal_tables import points_text_table


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def text_of(table: Any) -> str:
    """A table as it is printed."""
    out = io.StringIO()
    print_table(table, out)
    return out.getvalue()


def test_compare_has_one_line_a_variant_uncut(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Off a terminal the width does not matter."""
    monkeypatch.setenv("COLUMNS", "40")
    long = "a very long variant name that no terminal of eighty columns has room for beside ten numbers"
    text = text_of(compare_table({**{name: run.summary for name, run in runs.items()}, long: runs["random"].summary}))
    lines = text.splitlines()
    assert sum(line.startswith(("as trained ", "capacity 1.25 ", "random ", long)) for line in lines) == 4
    assert max(len(line) for line in lines) > 150
    assert "\x1b" not in text
    assert "…" not in text
    assert all(line == line.rstrip() for line in lines)
    assert "drop rate" in text


def test_best_values_carry_a_star(runs: dict[str, Run]) -> None:
    """The random router drops nothing and is marked for it."""
    line = next(
        line
        for line in text_of(compare_table({name: run.summary for name, run in runs.items()})).splitlines()
        if line.startswith("random")
    )
    assert "0*" in line.split()


def test_markup_and_escapes_in_names_are_only_text(runs: dict[str, Run]) -> None:
    """Rich's markup is shown, and escapes are removed."""
    text = text_of(compare_table({"[bold red]x[/]": runs["random"].summary, "\x1b[31my": {}}))
    assert "[bold red]x[/]" in text
    assert "[31my" in text
    assert "\x1b" not in text
    assert "[ms]" in text


def test_a_summary_without_values_is_a_row_of_dashes() -> None:
    """Nothing is computed of it."""
    row = text_of(compare_table({"empty": {}})).splitlines()[-1]
    assert set(row.split()) == {"empty", "-"}


def test_summary_of_one_run(runs: dict[str, Run]) -> None:
    """Parts that never ran have no line."""
    run = runs["capacity 1.25"]
    text = text_of(summary_table(run.summary, run.manifest))
    for word in ("step time, p99", "imbalance penalty", "drop rate", "tokens/s/GPU", "wait", "seed 1", "1 measured"):
        assert word in text
    assert "migration" not in text  # never ran
    assert "over 6 measured steps" in text


def test_summary_of_nothing_is_no_error() -> None:
    """The table has its rows all the same."""
    assert "step time, mean" in text_of(summary_table({}, {}))


def test_a_terminal_gets_colours_and_its_own_width(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bold text is written there."""
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    print_table(compare_table({name: run.summary for name, run in runs.items()}), out)
    assert "\x1b[1m" in out.getvalue()


def test_balancedness_over_the_steps_is_a_line_of_blocks(runs: dict[str, Run]) -> None:
    """Missing values are gaps, and many steps are averaged."""
    assert sparkline([0, 0.5, 1.0, float("nan"), 2.0, -1.0]) == "▁▅█ █▁"
    assert sparkline([]) == ""
    assert sparkline([1.0] * 30 + [0.0] * 30, width=4) == "██▁▁"  # neighbours are averaged
    lines = {name: balancedness(run) for name, run in runs.items()}
    assert all(len(line) == 6 for line in lines.values())
    table = text_of(compare_table({name: run.summary for name, run in runs.items()}, sparklines=lines))
    assert all(line in table for line in lines.values())
    assert lines["random"] in text_of(summary_table(runs["random"].summary, {}, sparkline=lines["random"]))


def test_what_may_be_chance_is_marked(runs: dict[str, Run]) -> None:
    """A difference whose interval contains zero is marked."""
    metrics = ["step_time_s.mean", "imbalance_penalty"]
    paired = pd.DataFrame(
        {"variant": "random", "metric": metrics, "difference": 0.1, "n": 5, "significant": [False, True]}
    )
    rows = {name: run.summary for name, run in runs.items()}
    table = text_of(compare_table(rows, paired=paired))
    line = next(line for line in table.splitlines() if line.startswith("random"))
    assert line.split()[1].endswith("~")
    assert line.count("~") == 1
    assert "may be chance" in table
    assert "~" not in text_of(compare_table(rows, paired=paired.assign(n=1)))  # one seed says nothing of chance
    assert "~" not in text_of(compare_table(rows, paired=paired.assign(difference=0.0)))  # the same is no chance


def test_percentiles_of_too_few_steps_are_marked() -> None:
    """Below 100 steps a dagger and a line that says so, in the table of variants, of points, and of one run."""
    few, enough = ({"n_steps": n, "step_time_s": {"mean": 0.001, "p99": p99}} for n, p99 in ((99, 0.002), (100, 0.003)))
    short, long, *notes = text_of(compare_table({"short": few, "long": enough})).splitlines()[-4:]
    assert (short.split()[1:3], long.split()[1:3]) == (["1.000", "2.000*\u2020"], ["1.000", "3.000"])
    assert notes[-1] == "\u2020 of 99 steps a run a step time p99 is little else than the slowest; 100 are enough"
    assert "\u2020" not in text_of(compare_table({"long": enough, "longer": enough}))
    points = pd.DataFrame(
        {"axis": [1, 2], "variant": "v", "n_steps": [99, 100], "step_time_s.mean": 0.001, "step_time_s.p99": 0.002}
    )
    _, _, table = text_of(points_text_table(points, ["axis"])).partition("\u2500\n")
    assert table.split() == ["1", "1.000", "2.000\u2020", "2", "1.000", "2.000", *notes[-1].split()]  # wrapped
    assert "of fewer than 100 steps" in text_of(summary_table(few, {}))
    assert "of fewer than 100 steps" not in text_of(summary_table(enough, {}))
