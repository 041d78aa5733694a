"""Columns of the tables: what they show, and which value is best."""

from __future__ import annotations

from typing import Any

import pytest

from moesim.report.columns import Cell, cells, columns_of, table_notes, unrecorded
from moesim.report.keys import lookup
from moesim.report.work import differing_work


def best(rows: dict[str, dict[str, Any]], key: str) -> list[str]:
    """The variants whose cell of a column is marked."""
    return [variant for variant, cell in column(rows, key).items() if cell.best]


def column(rows: dict[str, dict[str, Any]], key: str) -> dict[str, Cell]:
    """The cells of one column by variant."""
    (place,) = (i for i, found in enumerate(columns_of(rows.values())) if found.keys[0] == key)
    return {variant: row[place] for variant, row in cells(rows).items()}


def test_lower_is_better_for_times_and_drops() -> None:
    """The smallest value is marked."""
    rows = {
        "a": {"step_time_s": {"mean": 2.0}, "drop_rate": 0.0},
        "b": {"step_time_s": {"mean": 1.0}, "drop_rate": 0.5},
    }
    assert best(rows, "step_time_s.mean") == ["b"]
    assert best(rows, "drop_rate") == ["a"]


def test_higher_is_better_for_throughput_and_balancedness() -> None:
    """The largest value is marked."""
    rows: dict[str, dict[str, Any]] = {
        "a": {"tokens_per_s_per_gpu": 10.0, "balancedness": {"mean": 0.9}},
        "b": {"tokens_per_s_per_gpu": 20.0, "balancedness": {"mean": 0.5}},
    }
    assert best(rows, "tokens_per_s_per_gpu") == ["b"]
    assert best(rows, "balancedness.mean") == ["a"]


def test_what_reads_the_same_is_equally_good() -> None:
    """Two values that print alike are both marked."""
    rows = {"a": {"drop_rate": 0.1}, "b": {"drop_rate": 0.1 + 1e-12}, "c": {"drop_rate": 0.2}}
    assert best(rows, "drop_rate") == ["a", "b"]


def test_nothing_is_best_where_all_agree_or_one_stands_alone() -> None:
    """A mark would tell nothing."""
    assert best({"a": {"drop_rate": 0.1}, "b": {"drop_rate": 0.1}}, "drop_rate") == []
    assert best({"a": {"drop_rate": 0.1}}, "drop_rate") == []


def test_absent_values_are_a_dash_and_never_best() -> None:
    """None and a missing key alike."""
    rows: dict[str, dict[str, Any]] = {
        "a": {"drop_rate": None},
        "b": {"drop_rate": 0.2},
        "c": {"drop_rate": 0.1},
        "d": {},
    }
    assert [cell.text for cell in column(rows, "drop_rate").values()] == ["-", "20.0", "10.0", "-"]
    assert best(rows, "drop_rate") == ["c"]
    assert best({"a": {"drop_rate": None}, "b": {"drop_rate": 0.2}}, "drop_rate") == []


def test_wait_share_is_of_the_step() -> None:
    """A quarter of the step is 25 percent."""
    rows: dict[str, dict[str, Any]] = {"a": {"breakdown_s": {"wait": 0.25}, "step_time_s": {"mean": 1.0}}}
    assert column(rows, "breakdown_s.wait")["a"].text == "25.0"
    rows = {"a": {"breakdown_s": {"wait": 0.0}, "step_time_s": {"mean": 0.0}}}
    assert column(rows, "breakdown_s.wait")["a"].text == "-"


def test_the_drop_rate_is_always_a_column() -> None:
    """Even where no summary has it."""
    assert "drop_rate" in {column.keys[0] for column in columns_of([{}])}
    assert lookup({"a": {"b": 1}}, "a.b") == 1.0
    assert lookup({"a": 1}, "a.b") is None


def test_tokens_without_an_expert_have_a_column_where_there_are_any() -> None:
    """Old results do not know them."""
    rows: dict[str, dict[str, Any]] = {"old": {}, "none": {"unrouted_token_rate": 0.0}}
    assert "unrouted_token_rate" not in {found.keys[0] for found in columns_of(rows.values())}
    rows["some"] = {"unrouted_token_rate": 0.2}
    assert [cell.text for cell in column(rows, "unrouted_token_rate").values()] == ["-", "0", "20.0"]


def run_of(work: dict[str, Any] | None, step: float, tokens: float = 512.0, gpus: int = 4) -> dict[str, Any]:
    """The summary of a run of one step; without `work` as of an earlier version."""
    summary = {
        "step_time_s": {"mean": step, "p99": step},
        "bytes": {"within_node": tokens, "across_nodes": 0.0},
        "tokens_per_s_per_gpu": tokens / step / gpus,
        "imbalance_penalty": step,
        "simulated_s": step,
        "n_steps": 1,
    }
    return summary if work is None else {**summary, "work": {"tokens_per_step": tokens, "gpus": gpus, **work}}


DECODE = {"context_tokens": 1024, "sequence_tokens": None, "layers": 4, "parameters": 10**9, "top_k": 2}


@pytest.mark.parametrize(
    "other, words",
    [
        (run_of(DECODE, 0.5), []),
        (run_of(DECODE, 0.5, tokens=8.0), ["tokens a step"]),
        (run_of({**DECODE, "context_tokens": 2048}, 0.5), ["context"]),
        (run_of({**DECODE, "context_tokens": None, "sequence_tokens": 512}, 0.5), ["phase"]),
        (run_of({**DECODE, "layers": 8, "parameters": 2 * 10**9}, 0.5), ["layers", "model"]),
        (run_of({**DECODE, "top_k": 4}, 0.5), ["model"]),
        (run_of(DECODE, 0.5, gpus=8), ["GPUs"]),
    ],
)
def test_step_times_and_bytes_have_a_best_only_among_equal_work(other: dict[str, Any], words: list[str]) -> None:
    """What is a rate or a share has one in any case."""
    rows = {"base": run_of(DECODE, 1.0), "other": other}
    assert differing_work(rows.values()) == words
    for key in ("step_time_s.mean", "step_time_s.p99"):
        assert best(rows, key) == ([] if words else ["other"])
    assert not (words and best(rows, "bytes.within_node"))
    assert best(rows, "imbalance_penalty") == ["other"]
    assert (best(rows, "tokens_per_s_per_gpu") == []) == (other["tokens_per_s_per_gpu"] == 128.0)


def test_results_of_earlier_versions_compare_by_the_tokens_that_they_tell() -> None:
    """Tokens a step and GPU follow from throughput and time; nothing at all is no difference."""
    assert differing_work([run_of(None, 1.0), run_of(None, 0.3)]) == []
    assert differing_work([run_of(None, 1.0), run_of(None, 0.3, tokens=8.0)]) == ["tokens a step"]
    assert differing_work([{}, {}]) == []


def test_a_recording_that_lacks_layers_is_told() -> None:
    """One that has all is not, nor are drawn tokens."""
    lacking, whole, drawn = ({"moe_layers": 4, "recorded_layers": n} for n in (1, 4, None))
    assert unrecorded(lacking).startswith("1 of 4 MoE layers are recorded: ")
    assert [unrecorded(summary) for summary in (whole, drawn, {})] == ["", "", ""]
    assert table_notes([lacking, lacking]) == [unrecorded(lacking)]
