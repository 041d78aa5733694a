"""Recorded routing: import, the file between, and replay."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moesim.errors import OutputError, TraceError
from moesim.recordings import import_recordings, read_trace
from moesim.types import EqualSequences, Trace
from moesim.workload import RecordedTokens

RECORD = {"problem_id": 0, "token_idx": 0, "layer": 0, "experts": [1, 0], "gating_probs": [0.75, 0.25]}


def read_choices(path: Path) -> Trace:
    """The trace of choices in a file."""
    trace = read_trace(path)
    assert isinstance(trace, Trace)
    return trace


def recording(path: Path, *changes: dict[str, Any]) -> Path:
    """A file of one record a change."""
    text = "".join(json.dumps({**RECORD, **change}) + "\n" for change in changes)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_import_keeps_order_and_reports_what_is_missing(tmp_path: Path, suffix: str) -> None:
    """Two problems; the second token of the first lacks layer 1."""
    source = recording(
        tmp_path / f"r.{suffix}",
        {},
        {"layer": 1, "experts": [2, 3]},
        {"token_idx": 1, "experts": [3, 1]},
        {"problem_id": 7},
        {"problem_id": 7, "layer": 1},
    )
    report = import_recordings([source], tmp_path / "t.parquet")
    assert (report.n_tokens, report.n_layers, report.top_k, report.n_sequences) == (3, 2, 2, 2)
    assert report.notes == (
        "1 of 6 (token, layer) pairs were not recorded; they make no choice there (1 of 3 tokens are incomplete)",
    )
    trace = read_choices(tmp_path / "t.parquet")
    assert trace.expert.tolist() == [[[1, 0], [3, 1], [1, 0]], [[2, 3], [-1, -1], [1, 0]]]
    assert trace.weight is not None
    assert trace.weight[1].tolist() == [[0.75, 0.25], [0.0, 0.0], [0.75, 0.25]]
    assert trace.sequence.tolist() == [0, 0, 1]
    assert trace.n_experts == 4
    assert len(trace.sha256) == 64


def test_problems_of_different_files_are_apart(tmp_path: Path) -> None:
    """Both files have a problem 0."""
    files = [recording(tmp_path / name, {}) for name in ("a.jsonl", "b.jsonl")]
    assert import_recordings(files, tmp_path / "t.parquet").n_sequences == 2


def test_the_same_recording_gives_the_same_bytes(tmp_path: Path) -> None:
    """No date, no path."""
    source = recording(tmp_path / "r.jsonl", {}, {"layer": 1})
    for name in ("a.parquet", "b.parquet"):
        import_recordings([source], tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"layer": -1}, "jsonl:1: layer"),
        ({"layer": True}, "layer"),
        ({"layer": 10**6}, "layer"),
        ({"experts": [1, 1]}, "distinct"),
        ({"experts": []}, "experts"),
        ({"experts": [1.5, 2]}, "integers"),
        (
            {"experts": [2**31 - 1, 0]},
            r"jsonl:1: experts: found \[2147483647, 0\], wanted integers from 0 below 100000",
        ),
        ({"gating_probs": [1.0]}, "2 finite numbers"),
        ({"gating_probs": [float("nan"), 1.0]}, "finite"),
        ({"gating_probs": "ab"}, "finite"),
        ({"gating_probs": [10**400, 1]}, "jsonl:1: gating_probs: found .*, wanted 2 finite"),
        ({"gating_probs": [1e300, 1]}, r"found \[1e\+300, 1\], wanted 2 finite numbers from 0 to 3\.4e\+38"),
        ({"gating_probs": [-0.25, 1]}, r"found \[-0\.25, 1\], wanted 2 finite numbers from 0"),
    ],
)
def test_a_wrong_record_is_named_by_file_and_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Nothing is written then."""
    source = recording(tmp_path / "r.jsonl", change)
    with pytest.raises(TraceError, match=message):
        import_recordings([source], tmp_path / "t.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.jsonl"]


@pytest.mark.parametrize("text", ["[1]\n", "{\n", "\x00", '{"a": 1}\n', ""])
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    """Other JSON, no JSON, other fields, nothing."""
    source = tmp_path / "r.jsonl"
    source.write_text(text)
    with pytest.raises(TraceError, match=r"r\.jsonl"):
        import_recordings([source], tmp_path / "t.parquet")


def test_doubled_and_damaged_input_is_refused(tmp_path: Path) -> None:
    """A (token, layer) twice; a gzip file that is none; no file; an unwritable place."""
    with pytest.raises(TraceError, match="twice"):
        import_recordings([recording(tmp_path / "r.jsonl", {}, {})], tmp_path / "t.parquet")
    (tmp_path / "bad.gz").write_text("no gzip")
    packed = bytearray(recording(tmp_path / "flipped.jsonl.gz", {}, {"layer": 1}).read_bytes())
    packed[10:14] = b"\xff\xff\xff\xff"  # where the deflated data begins
    (tmp_path / "flipped.jsonl.gz").write_bytes(packed)
    for name, message in (
        ("bad.gz", "found text that begins with 'no gzip'"),
        ("flipped.jsonl.gz", "cannot be read"),
        ("absent.jsonl", "cannot be read: No such file"),
    ):
        path = tmp_path / name
        with pytest.raises(TraceError, match=message):
            import_recordings([path], tmp_path / "t.parquet")
    with pytest.raises(OutputError, match="cannot be written"):
        import_recordings([recording(tmp_path / "r.jsonl", {})], tmp_path / "absent" / "t.parquet")
    with pytest.raises(OutputError, match="cannot be written"):
        import_recordings([tmp_path / "r.jsonl"], tmp_path / ("t" * 300))
    with pytest.raises(TraceError, match="nothing to import"):
        import_recordings([], tmp_path / "t.parquet")


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    """Text, other parquet, absent."""
    import pandas as pd

    (tmp_path / "a.parquet").write_text("no parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "b.parquet")
    for name in ("a.parquet", "b.parquet", "c.parquet"):
        with pytest.raises(TraceError, match="moesim import"):
            read_trace(tmp_path / name)


@pytest.mark.parametrize("wrong", ["lists of any length", "other widths", "text", "fractions", "no layer", "NaN"])
def test_a_trace_by_another_hand_is_refused(tmp_path: Path, wrong: str) -> None:
    """The right columns and the mark of a trace, and something else in them."""
    source = recording(tmp_path / "r.jsonl", {"token_idx": 0, "experts": [1, 3]})
    import_recordings([source], tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    change = {
        "lists of any length": ("experts", pa.array([[1, 3]], pa.list_(pa.int32()))),
        "other widths": ("weights", pa.array([[1.0]], pa.list_(pa.float32(), 1))),
        "text": ("token", pa.array(["0"])),
        "fractions": ("experts", pa.array([[0.5, 1.7]], pa.list_(pa.float32(), 2))),
        "no layer": ("layer", pa.array([-1], pa.int32())),
        "NaN": ("weights", pa.array([[float("nan"), 0.5]], pa.list_(pa.float32(), 2))),
    }
    name, column = change[wrong]
    table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, tmp_path / "wrong.parquet")
    with pytest.raises(TraceError):
        read_trace(tmp_path / "wrong.parquet")


def test_replay_goes_through_the_trace_and_starts_again(tmp_path: Path) -> None:
    """Three tokens, two ranks with one token each: steps hold tokens 0 1, 2 0, 1 2."""
    source = recording(tmp_path / "r.jsonl", *({"token_idx": i, "experts": [i, 3]} for i in range(3)))
    import_recordings([source], tmp_path / "t.parquet")
    tokens = RecordedTokens(read_choices(tmp_path / "t.parquet"), n_ranks=2, tokens_per_rank=1)
    firsts = [tokens.choices(tokens.batch(step), 0, 2).expert[:, 0].tolist() for step in range(3)]
    assert firsts == [[0, 1], [2, 0], [1, 2]]


def test_a_trace_is_read_once_until_it_changes(tmp_path: Path) -> None:
    """The same arrays stand for the same file; another content gives others."""
    source = recording(tmp_path / "r.jsonl", *({"token_idx": i, "experts": [i, 3]} for i in range(3)))
    import_recordings([source], tmp_path / "t.parquet")
    trace = read_choices(tmp_path / "t.parquet")
    assert read_choices(tmp_path / "t.parquet") is trace
    source = recording(tmp_path / "r.jsonl", *({"token_idx": i, "experts": [i, 3]} for i in range(2)))
    (tmp_path / "t.parquet").unlink()
    import_recordings([source], tmp_path / "t.parquet")
    assert read_choices(tmp_path / "t.parquet").n_tokens == 2


def test_recorded_sequences_are_prompts_unless_the_workload_says_otherwise(tmp_path: Path) -> None:
    """The context of a token is its place in its recorded sequence; equal sequences restart on every rank."""
    rows = [{"problem_id": p, "token_idx": i, "experts": [i % 3, 3]} for p, n in ((0, 2), (1, 4)) for i in range(n)]
    import_recordings([recording(tmp_path / "r.jsonl", *rows)], tmp_path / "t.parquet")
    trace = read_choices(tmp_path / "t.parquet")
    batch = RecordedTokens(trace, n_ranks=2, tokens_per_rank=None).batch(0)
    assert (batch.context.tolist(), bool(batch.decodes.any()), batch.alike) == ([0, 1, 0, 1, 2, 3], False, None)
    alike = EqualSequences(decodes=False, length=2)
    batch = RecordedTokens(trace, n_ranks=2, tokens_per_rank=None, alike=alike).batch(0)
    assert (batch.context.tolist(), batch.sequence.tolist()) == ([0, 1, 0, 0, 1, 0], [0, 0, 1, 1, 1, 1])
    alike = EqualSequences(decodes=True, length=9)
    batch = RecordedTokens(trace, n_ranks=2, tokens_per_rank=None, alike=alike).batch(0)
    assert (batch.context.tolist(), bool(batch.decodes.all())) == ([9] * 6, True)


def test_a_trace_of_the_first_format_is_still_read(tmp_path: Path) -> None:
    """Two tokens in two layers, rows ordered by token; it may be replaced by another."""
    lists = [
        pa.FixedSizeListArray.from_arrays(pa.array(values, dtype), 2)
        for values, dtype in (([1, 0, 2, 3, 3, 1, -1, -1], pa.int32()), ([0.75, 0.25] * 3 + [0, 0], pa.float32()))
    ]
    table = pa.table(
        {
            "token": pa.array([0, 0, 1, 1], pa.int64()),
            "sequence": pa.array([0, 0, 5, 5], pa.int32()),
            "layer": pa.array([0, 1, 0, 1], pa.int32()),
            "experts": lists[0],
            "weights": lists[1],
        }
    ).replace_schema_metadata({"format": "moesim-routing-trace-1"})
    pq.write_table(table, tmp_path / "t.parquet")
    trace = read_choices(tmp_path / "t.parquet")
    assert trace.expert.tolist() == [[[1, 0], [3, 1]], [[2, 3], [-1, -1]]]
    assert (trace.sequence.tolist(), trace.layer_ids, trace.n_experts) == ([0, 5], (0, 1), 4)
    assert import_recordings([recording(tmp_path / "r.jsonl", {})], tmp_path / "t.parquet").n_tokens == 1
