"""Figures and page of a validation."""

from __future__ import annotations

import pandas as pd
import pytest

from moesim.report.figures.validation import predicted_against_measured, slowdown_against_ep
from moesim.report.validation import predicted_caption, skipped_lines, slowdown_rows, validation_rows

SCORES = pd.DataFrame(
    {
        "table": ["a", "a", "b"],
        "rows": ["fitted", "held out", "fitted"],
        "measured_s": [1e-3, 2e-3, 1e-6],
        "predicted_s": [1.1e-3, 1.8e-3, 1e-6],
    }
)
SLOW = pd.DataFrame(
    {
        "table": "t",
        "framework": "<b>x</b>",
        "curve": "256|power_law_1.01",
        "ep": [8, 8, 64],
        "measured": [1.0, 1.2, 3.0],
        "predicted": [1.0, 1.0, 2.0],
    }
)


def test_a_panel_a_table_with_the_diagonal_and_both_splits() -> None:
    """Fitted rows and held-out ones have a colour each, in one legend."""
    figure = predicted_against_measured(SCORES)
    assert [trace.name for trace in figure.data if trace.mode == "markers"] == ["fitted", "held out", "fitted"]
    assert figure.data[1].x.tolist() == pytest.approx([1.0])  # milliseconds
    assert sum(bool(trace.showlegend) for trace in figure.data) == 2
    assert "ms" in figure.layout.xaxis.title.text or "ms" in figure.layout.yaxis.title.text


def test_of_many_rows_some_are_drawn() -> None:
    """At most 400 of a table and split."""
    many = pd.concat([SCORES.head(1)] * 5000, ignore_index=True)
    drawn = sum(len(trace.x) for trace in predicted_against_measured(many).data if trace.mode == "markers")
    assert 200 < drawn <= 400


def test_the_caption_says_how_many_rows_are_drawn() -> None:
    """It says nothing where all of them are."""
    many = pd.concat([SCORES.head(1)] * 5000 + [SCORES.tail(2)], ignore_index=True)
    caption = predicted_caption(predicted_against_measured(many), len(many))
    assert "387 of 5,002 rows are drawn, at most 400 of each table and split" in caption
    assert "drawn" not in predicted_caption(predicted_against_measured(SCORES), len(SCORES))


def test_slowdown_is_a_mean_over_tokens_by_ep_size_and_escaped() -> None:
    """Names of tables are text in the titles."""
    figure = slowdown_against_ep(SLOW)
    measured = next(trace for trace in figure.data if trace.name == "measured")
    assert measured.x.tolist() == [8, 64]
    assert measured.y.tolist() == pytest.approx([1.1, 3.0])
    assert "&lt;b&gt;x" in figure.layout.annotations[0].text


def test_nothing_to_draw_says_so() -> None:
    """Both figures have a note instead."""
    assert "No row" in predicted_against_measured(SCORES.head(0)).layout.annotations[0].text
    assert "No table" in slowdown_against_ep(SLOW.head(0)).layout.annotations[0].text


def test_rows_of_the_table_are_per_cent_and_dashes() -> None:
    """What is not known is a dash."""
    errors = pd.DataFrame(
        {
            **{name: ["x"] for name in ("table", "framework", "kernel", "dtype", "regime", "rows")},
            "n": 1200,
            "median": 0.0512,
            "p90": 0.2,
            "bias": -0.01,
            "slowdown_median": float("nan"),
            "slowdown_p90": float("nan"),
        }
    )
    assert validation_rows(errors)[0][6:] == ["1,200", "5.12", "20.0", "-1.00", "-", "-"]
    slow = pd.DataFrame(
        {"case": ["a"], "kernels": "core", "rows": "all", "n": 3, "median": 0.03, "p90": 0.1, "spearman": float("nan")}
    )
    assert slowdown_rows(slow) == [["a", "core", "all", "3", "3.00", "10.0", "-"]]


def test_few_skipped_files_are_a_line_each_many_are_names_in_one() -> None:
    """Names that occur in several folders are counted."""
    assert skipped_lines(["a/x.csv", "b/x.csv"]) == [f"skipped, of no known layout: {name}/x.csv" for name in "ab"]
    (line,) = skipped_lines([f"{folder}/{name}" for folder in "abc" for name in ("z.csv", "y\n.csv", "x.csv")])
    assert line == "skipped, 9 files of no known layout: x.csv (3), y .csv (3), z.csv (3)"
    assert skipped_lines([]) == []
