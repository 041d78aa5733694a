from __future__ import annotations

from typing import Any

from moesim.report.columns import COLUMNS, cells, lookup

PLACE = {column.keys[0]: i for i, column in enumerate(COLUMNS)}


def best(rows: dict[str, dict[str, Any]], key: str) -> list[str]:
    return [variant for variant, row in cells(rows).items() if row[PLACE[key]].best]


def test_lower_is_better_for_times_and_drops() -> None:
    rows = {
        "a": {"step_time_s": {"mean": 2.0}, "drop_rate": 0.0},
        "b": {"step_time_s": {"mean": 1.0}, "drop_rate": 0.5},
    }
    assert best(rows, "step_time_s.mean") == ["b"]
    assert best(rows, "drop_rate") == ["a"]


def test_higher_is_better_for_throughput_and_balancedness() -> None:
    rows: dict[str, dict[str, Any]] = {
        "a": {"tokens_per_s_per_gpu": 10.0, "balancedness": {"mean": 0.9}},
        "b": {"tokens_per_s_per_gpu": 20.0, "balancedness": {"mean": 0.5}},
    }
    assert best(rows, "tokens_per_s_per_gpu") == ["b"]
    assert best(rows, "balancedness.mean") == ["a"]


def test_what_reads_the_same_is_equally_good() -> None:
    rows = {"a": {"drop_rate": 0.1}, "b": {"drop_rate": 0.1 + 1e-12}, "c": {"drop_rate": 0.2}}
    assert best(rows, "drop_rate") == ["a", "b"]


def test_nothing_is_best_where_all_agree_or_one_stands_alone() -> None:
    assert best({"a": {"drop_rate": 0.1}, "b": {"drop_rate": 0.1}}, "drop_rate") == []
    assert best({"a": {"drop_rate": 0.1}}, "drop_rate") == []


def test_absent_values_are_a_dash_and_never_best() -> None:
    rows: dict[str, dict[str, Any]] = {
        "a": {"drop_rate": None},
        "b": {"drop_rate": 0.2},
        "c": {"drop_rate": 0.1},
        "d": {},
    }
    assert [row[PLACE["drop_rate"]].text for row in cells(rows).values()] == ["-", "20.0", "10.0", "-"]
    assert best(rows, "drop_rate") == ["c"]
    assert best({"a": {"drop_rate": None}, "b": {"drop_rate": 0.2}}, "drop_rate") == []


def test_wait_share_is_of_the_step() -> None:
    rows: dict[str, dict[str, Any]] = {"a": {"breakdown_s": {"wait": 0.25}, "step_time_s": {"mean": 1.0}}}
    assert cells(rows)["a"][PLACE["breakdown_s.wait"]].text == "25.0"
    rows = {"a": {"breakdown_s": {"wait": 0.0}, "step_time_s": {"mean": 0.0}}}
    assert cells(rows)["a"][PLACE["breakdown_s.wait"]].text == "-"


def test_the_drop_rate_is_always_a_column() -> None:
    assert "drop_rate" in PLACE
    assert lookup({"a": {"b": 1}}, "a.b") == 1.0
    assert lookup({"a": 1}, "a.b") is None
