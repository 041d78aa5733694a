"""The trace by the rules of the Trace Event Format, read back with nothing but json."""

from __future__ import annotations

import dataclasses
import io
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moesim import Result, Scenario, simulate
from moesim.errors import InputError, OutputError
from moesim.report import Run
from moesim.report.perfetto import write_trace
from moesim.types import EXCHANGE_KINDS

Event = dict[str, Any]


def trace_of(run: Any) -> list[Event]:
    """Write, read, and check what the format asks of any file."""
    out = io.StringIO()
    write_trace(run, out)
    document = json.loads(out.getvalue(), parse_constant=pytest.fail)
    assert set(document) == {"displayTimeUnit", "traceEvents"}
    assert document["displayTimeUnit"] == "ns"
    events: list[dict[str, Any]] = document["traceEvents"]
    for event in events:
        assert event["ph"] in {"M", "X", "C"}
        assert isinstance(event["name"], str)
        assert type(event["pid"]) is int
        assert event["pid"] >= 0
        assert isinstance(event["args"], dict)
        if event["ph"] == "M":
            assert (
                set(event["args"])
                == {
                    "process_name": {"name"},
                    "process_sort_index": {"sort_index"},
                    "process_labels": {"labels"},
                    "thread_name": {"name"},
                    "thread_sort_index": {"sort_index"},
                }[event["name"]]
            )
        else:
            assert event["ts"] >= 0
            assert whole(event["ts"] * 1000)
        if event["ph"] == "X":
            assert event["dur"] >= 0
            assert whole(event["dur"] * 1000)
            assert event["tid"] > 0
        if event["ph"] == "C":
            assert all(value >= 0 for value in event["args"].values())
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"} == named
    assert not {e["pid"] for e in events} & {tid for _, tid in named}
    for slices in by_thread(events).values():
        ends = [ns(e["ts"]) + ns(e["dur"]) for e in slices]
        assert all(ns(e["ts"]) >= end for e, end in zip(slices[1:], ends, strict=False))
    for counts in counters(events).values():
        times, values = zip(*counts, strict=True)
        assert list(times) == sorted(set(times))
        assert values[-1] == 0
    return events


def whole(number: float) -> bool:
    """Whether a number is an integer, up to rounding."""
    return abs(number - round(number)) < 1e-3


def ns(microseconds: float) -> int:
    """Whole nanoseconds of microseconds."""
    return round(microseconds * 1000)


def by_thread(events: list[Event]) -> dict[tuple[int, int], list[Event]]:
    """The slices of each thread, in their order."""
    threads = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            threads[event["pid"], event["tid"]].append(event)
    return threads


def counters(events: list[Event]) -> dict[tuple[int, str], list[tuple[float, int]]]:
    """The points of each counter: instant and value."""
    result = defaultdict(list)
    for event in events:
        if event["ph"] == "C":
            (value,) = event["args"].values()
            result[event["pid"], event["name"]].append((event["ts"], value))
    return result


def run_of(rows: list[tuple[Any, ...]], **columns: Any) -> Run:
    """A run that has nothing but a timeline; times in picoseconds."""
    names = ["step", "gpu", "stream", "layer", "kind", "start_s", "end_s", "bytes"]
    timeline = pd.DataFrame(rows, columns=names).assign(**columns)
    timeline[["start_s", "end_s"]] *= 1e-12
    none = pd.DataFrame()
    gpus = pd.DataFrame({"step": 0, "gpu": sorted(set(timeline["gpu"])), "node": 0})
    frames: dict[str, Any] = dict.fromkeys(("steps", "layers", "experts", "links"), none)
    return Run(name="by hand", summary={}, manifest={}, gpus=gpus, timeline=timeline, **frames)


@pytest.fixture(scope="module")
def result() -> Result:
    """Two kept steps of two layers on four GPUs in two nodes; exchanges overlap with computing."""
    scenario = {
        "name": "traced",
        "seed": 4,
        "model": {"preset": "olmoe-1b-7b", "n_layers": 2},
        "cluster": {"gpu": "h100-sxm", "nodes": 2, "gpus_per_node": 2},
        "workload": {"steps": 3, "tokens_per_gpu": 8, "popularity": {"exponent": 0.5}},
        "simulation": {"network": "port", "overlap": "two-batch"},
        "keep": {"timeline_steps": 2},
    }
    return simulate(Scenario.from_dict(scenario))


def test_times_and_bytes_by_hand() -> None:
    """GPU 1 enters dispatch 2 ns late; 4,999 ps are the fifth nanosecond, which is 4 of them whole."""
    events = trace_of(
        run_of(
            [
                (0, 0, 0, 3, "router", 1_000, 4_999, 0),
                (0, 0, 1, 3, "dispatch", 4_999, 20_000, 700),
                (0, 1, 0, 3, "router", 1_000, 7_000, 0),
                (0, 1, 1, 3, "dispatch", 7_000, 9_500, 0),
            ]
        )
    )
    slices = [(e["pid"], e["name"], e["ts"], e["dur"], e["args"]) for e in events if e["ph"] == "X"]
    where = {"step": 0, "layer": 3}
    assert slices == [
        (0, "router", 0.001, 0.003, where),
        (0, "wait", 0.004, 0.003, {**where, "for": "dispatch"}),
        (0, "dispatch", 0.007, 0.013, {**where, "bytes": 700}),
        (1, "router", 0.001, 0.006, where),
        (1, "dispatch", 0.007, 0.002, {**where, "bytes": 0}),
    ]
    assert counters(events) == {(0, "in flight"): [(0.007, 700), (0.02, 0)]}
    names = {(e["pid"], e.get("tid")): e["args"]["name"] for e in events if e["name"].endswith("_name")}
    assert names == {
        (0, None): "GPU",
        (0, 2): "compute",
        (0, 3): "exchange",
        (1, None): "GPU",
        (1, 2): "compute",
        (1, 3): "exchange",
    }


def test_a_run_is_shown_whole(result: Result) -> None:
    """Every kept operation that took time is there once, and a GPU's slices of a stream fill what it did."""
    events = trace_of(result)
    assert {e["pid"] for e in events} == {0, 1, 2, 3}
    assert {e["args"]["labels"] for e in events if e["name"] == "process_labels"} == {"node 0", "node 1"}
    slices = pd.DataFrame([{**e, **e["args"]} for e in events if e["ph"] == "X"])
    assert set(slices["step"]) == {0, 1}
    kept = result.timeline[result.timeline["end_s"] > result.timeline["start_s"]]
    computed = kept[~kept["kind"].isin(EXCHANGE_KINDS)].groupby("kind").size()
    shown = slices[~slices["name"].isin([*EXCHANGE_KINDS, "wait"])].groupby("name").size()
    assert shown.to_dict() == computed.to_dict()
    spent = (kept["end_s"] - kept["start_s"]).sum() * 1e6
    assert slices["dur"].sum() == pytest.approx(spent, abs=1e-3 * len(slices))
    moved = slices[slices["name"].isin(EXCHANGE_KINDS)]
    assert moved["bytes"].sum() == kept["bytes"].sum() > 0
    peak = max(value for counts in counters(events).values() for _, value in counts)
    assert peak == kept["bytes"].max()


def test_tokens_that_wait_for_experts_are_counted(run: Callable[..., Run]) -> None:
    """Groups that wait are added up; a slice each would take dozens of threads."""
    made = run_of(
        [
            (0, 0, 0, 0, "experts", 0, 9_000, 0),
            (0, 0, 2, 0, "queue", 1_000, 5_000, 0),
            (0, 0, 2, 0, "queue", 2_000, 5_000, 0),
            (0, 0, 2, 0, "queue", 5_000, 6_000, 0),
        ],
        tokens=[0, 10, 4, 3],
    )
    events = trace_of(made)
    expected = [(0.001, 10), (0.002, 14), (0.005, 3), (0.006, 0)]
    assert counters(events)[0, "waiting for experts"] == expected
    threads = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert threads == {1: "compute"}
    assert not [e for e in events if e["name"] == "queue"]
    assert not [name for _, name in counters(trace_of(run())) if name == "waiting for experts"]


def test_an_exchange_that_ends_before_the_last_has_entered_is_all_wait() -> None:
    """Where there are no rounds, nothing is drawn beyond its end."""
    rows = [(0, 0, 1, 0, "dispatch", 0, 3_000, 5), (0, 1, 1, 0, "dispatch", 8_000, 9_000, 5)]
    slices = [(e["pid"], e["name"], e["ts"], e["dur"]) for e in trace_of(run_of(rows)) if e["ph"] == "X"]
    assert slices == [(0, "wait", 0.0, 0.003), (1, "dispatch", 0.008, 0.001)]


@pytest.mark.parametrize("seed", range(20))
def test_floored_neighbours_never_overlap(seed: int) -> None:
    """Picoseconds at random, one slice ending where the next begins; `trace_of` checks it."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(0, 3_000, 200)) + int(rng.integers(0, 10**12))
    pairs = zip(times[:-1].tolist(), times[1:].tolist(), strict=True)
    events = trace_of(run_of([(0, 0, 0, 0, "attention", start, end, 0) for start, end in pairs]))
    assert len(by_thread(events)) == 1


def test_the_same_run_gives_the_same_bytes(result: Result, tmp_path: Path) -> None:
    """Also after loading; no date, path or duration of the run is in it."""
    first = result.save_trace(tmp_path / "a.json").read_bytes()
    result.save(tmp_path / "saved", trace=True)
    assert (tmp_path / "saved" / "timeline.json").read_bytes() == first
    assert Result.load(tmp_path / "saved").save_trace(tmp_path / "a.json").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] in (["a.json", "saved"], ["saved", "a.json"])
    assert str(tmp_path).encode() not in first


def test_nothing_is_half_written(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another kind stays, as does what was there when writing fails."""
    other = tmp_path / "thesis.json"
    other.write_text('{"years": "of work"}')
    with pytest.raises(OutputError, match=r"thesis\.json: exists and was not written by moesim"):
        result.save_trace(other)
    assert other.read_text() == '{"years": "of work"}'
    with pytest.raises(OutputError, match="cannot be written"):
        result.save_trace(tmp_path)
    nothing = dataclasses.replace(result, timeline=result.timeline.iloc[:0])
    with pytest.raises(InputError, match=r"keep\.timeline_steps"):
        nothing.save_trace(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"keep\.timeline_steps"):
        nothing.save(tmp_path / "folder", trace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.json"]
