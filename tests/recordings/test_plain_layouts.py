"""Layouts that belong to no engine, and the route logs of vLLM: what is recognised, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moesim.errors import TraceError
from moesim.recordings import ImportOptions, import_recordings, read_recordings, report_of
from moesim.recordings.json_lines import LAYER, Field, KeyCodes, expert_list, read_rows
from moesim.recordings.sample import Sample
from moesim.types import CountsTrace, LogitsTrace, Trace


def lines(path: Path, *records: dict[str, Any]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def route(token: int, layer: int, *ids: int, **more: Any) -> dict[str, Any]:
    """A line of a route log."""
    return {"type": "route", "req_id": "r1", "token_idx": token, "layer": layer, "topk_ids": list(ids), **more}


def test_ids_without_weights_are_a_trace(tmp_path: Path) -> None:
    """As trackers of several engines write them."""
    record = {"problem_id": "a", "token_idx": 0, "layer": 0, "experts": [3, 1]}
    found = read_recordings([lines(tmp_path / "r.jsonl", record, {**record, "problem_id": "b", "layer": 2})])
    assert isinstance(found, Trace)
    assert (found.weight, found.layer_ids, found.sequence.tolist()) == (None, (0, 2), [0, 1])
    assert "no weights were recorded" in found.notes
    with pytest.raises(TraceError, match=r"m\.jsonl:2: gating_probs: missing, though other lines have it"):
        read_recordings([lines(tmp_path / "m.jsonl", {**record, "gating_probs": [0.5, 0.5]}, record)])


def test_each_restart_of_token_idx_is_a_pass(tmp_path: Path) -> None:
    """Two passes of two tokens and of one; a second file has another layer of the same passes."""
    first = lines(tmp_path / "0.jsonl", {"type": "meta"}, route(0, 0, 1, 2), route(1, 0, 3, 4), route(0, 0, 5, 6))
    second = lines(tmp_path / "1.jsonl", *(route(t, 1, e, 0) for t, e in ((0, 1), (1, 2), (0, 3))))
    found = read_recordings([first, second])
    assert isinstance(found, Trace)
    assert (found.step.tolist(), found.layer_ids) == ([0, 0, 1], (0, 1))
    assert found.expert.tolist() == [[[1, 2], [3, 4], [5, 6]], [[1, 0], [2, 0], [3, 0]]]
    assert "req_id is the same in all rows: which tokens are of one sequence is not known" in found.notes
    assert report_of(found).n_steps == 2
    other = lines(tmp_path / "2.jsonl", *(route(t, 1, e, 0) for t, e in ((0, 1), (0, 2), (1, 3))))
    with pytest.raises(TraceError, match=r"2\.jsonl: found layer 1 of other passes than layer 0 in 0\.jsonl"):
        read_recordings([first, other])
    again = read_recordings([first, lines(tmp_path / "3.jsonl", route(0, 0, 1, 2))])
    assert isinstance(again, Trace)
    assert again.step.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("shape", [(3, 2, 8), (2, 8)])
def test_arrays_of_counts(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """[iteration, layer, expert] or [layer, expert]; steps and layers of zeros are left out."""
    counts = np.arange(np.prod(shape)).reshape(shape) % 7
    np.save(tmp_path / "c.npy", counts)
    found = read_recordings([tmp_path / "c.npy"])
    assert isinstance(found, CountsTrace)
    assert found.count.tolist() == counts.reshape(-1, 2, 8).tolist()
    counts[..., 0, :] = 0
    np.save(tmp_path / "c.npy", counts)
    found = read_recordings([tmp_path / "c.npy"])
    assert found.layer_ids == (1,)
    assert any("have no assignments, as dense layers are recorded: left out" in note for note in found.notes)
    np.save(tmp_path / "c.npy", -counts)
    with pytest.raises(TraceError, match=r"c\.npy: found -\d at .*, wanted whole counts from 0"):
        read_recordings([tmp_path / "c.npy"])


def test_arrays_of_ids(tmp_path: Path) -> None:
    """Many rows of distinct small numbers are ids; the user may say so where there are few."""
    ids = np.argsort(np.random.default_rng(0).random((100, 3, 16)), axis=2)[..., :4].astype(np.uint8)
    ids[:, 1] = 0  # a dense layer
    np.save(tmp_path / "ids.npy", ids)
    found = read_recordings([tmp_path / "ids.npy"])
    assert isinstance(found, Trace)
    assert (found.layer_ids, found.n_tokens, found.top_k) == ((0, 2), 100, 4)
    np.testing.assert_array_equal(found.expert, ids[:, [0, 2]].transpose(1, 0, 2))
    np.save(tmp_path / "ids.npy", ids[:5])
    assert isinstance(read_recordings([tmp_path / "ids.npy"]), CountsTrace)
    told = read_recordings([tmp_path / "ids.npy"], ImportOptions(layout="npy-ids"))
    assert isinstance(told, Trace)
    with pytest.raises(TraceError, match=r"ids\.npy: token \d: found \[.*\], wanted experts from 0 to 3"):
        read_recordings([tmp_path / "ids.npy"], ImportOptions(layout="npy-ids", n_experts=4))


def test_arrays_of_logits(tmp_path: Path) -> None:
    """A file a layer, numbered by its name; probabilities become logits."""
    logits = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    np.save(tmp_path / "logits_layer3.npy", logits)
    np.save(tmp_path / "logits_layer12.npy", np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    found = read_recordings(sorted(tmp_path.iterdir()))
    assert isinstance(found, LogitsTrace)
    assert (found.layer_ids, found.n_experts, found.n_tokens) == ((3, 12), 8, 5)
    np.testing.assert_array_equal(found.logits[0], logits)
    shift = found.logits[1] - logits
    np.testing.assert_allclose(shift, shift[:, :1].repeat(8, axis=1), atol=1e-5)
    import_recordings(sorted(tmp_path.iterdir()), tmp_path / "t.parquet")
    np.testing.assert_array_equal(read_recordings([tmp_path / "t.parquet"]).logits, found.logits)  # type: ignore[union-attr]
    np.save(tmp_path / "logits_layer3.npy", np.where(logits > 1, np.nan, logits))
    with pytest.raises(TraceError, match=r"logits_layer3\.npy: found float32 \[5, 8\] with values that are not finite"):
        read_recordings([tmp_path / "logits_layer3.npy"])


@pytest.mark.parametrize("names", [("layer_id", "expert_id", "count"), ("expert", "layer", "tokens")])
def test_tables_of_counts(tmp_path: Path, names: tuple[str, ...]) -> None:
    """CSV and parquet, rows in any order; what has no row counts 0."""
    values = {"layer": [4, 3, 3], "expert": [1, 0, 2], "count": [7, 5, 6]}
    columns = [values[next(key for key in values if key in name or name == "tokens")] for name in names[:2]]
    columns.append(values["count"])
    rows = "\n".join(",".join(map(str, row)) for row in zip(*columns, strict=True))
    (tmp_path / "c.csv").write_text(f"{','.join(names)}\n{rows}\n", encoding="utf-8")
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), tmp_path / "c.parquet")
    for name in ("c.csv", "c.parquet"):
        found = read_recordings([tmp_path / name])
        assert isinstance(found, CountsTrace)
        assert (found.layer_ids, found.count.tolist()) == ((3, 4), [[[5, 0, 6], [0, 7, 0]]])
        assert "3 of 6 (layer, expert) pairs have no row and count 0" in found.notes
        with pytest.raises(TraceError, match=r":\d: expert: found 2, wanted experts 0 to 1"):
            read_recordings([tmp_path / name], ImportOptions(n_experts=2))


@pytest.mark.parametrize(
    "text, message",
    [
        ("layer,expert,count\n0,0\n", r":2: found 2 cells, wanted 3"),
        ("layer,expert,count\n0,x,1\n", r":2: found 'x', wanted a number"),
        ("layer,expert,count\n0,-1,1\n", r":2: expert: found -1, wanted an integer from 0 below 100000"),
        ("layer,expert,count\n0,1,0.5\n", r"found 0\.5 at \[0\], wanted whole counts"),
        ("layer,expert,count\n0,1,5\n0,1,5\n", r"found a layer and expert twice"),
        ("layer,expert,count\n", "found a header alone"),
        ("step,layer,expert,count\n0,0,0,0\n", "counts that are all zero"),
    ],
)
def test_a_wrong_table_is_named_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    """One sentence for each."""
    (tmp_path / "c.csv").write_text(text, encoding="utf-8")
    with pytest.raises(TraceError, match=r"c\.csv" + ".*" + message):
        read_recordings([tmp_path / "c.csv"])


@pytest.mark.parametrize("odd", ['{"a": 1, "layer": 0, "ids": [1, 2]}{"a": 1, "layer": 0, "ids": [3, 4]}', "\n\n"])
def test_lines_are_read_alike_fast_and_slowly(tmp_path: Path, odd: str) -> None:
    """Two records on a line are refused, blank lines count as lines; keys may be integers among texts."""
    fields = (Field(name="a", kind="key"), LAYER, expert_list("ids"))
    text = '{"a": 1, "layer": 0, "ids": [1, 2]}\r\n' + odd + '\n{"a": "1", "layer": 5, "ids": [7]}\n'
    (tmp_path / "r.jsonl").write_text(text, encoding="utf-8", newline="")
    rows = read_rows(tmp_path / "r.jsonl", fields, keys={"a": KeyCodes()})
    if odd.strip():
        with pytest.raises(TraceError, match=r"r\.jsonl:2: found .*, wanted a JSON object"):
            list(rows)
        return
    (found,) = rows
    assert (found["a"].tolist(), found["layer"].tolist(), found["ids"].tolist()) == ([0, 1], [0, 5], [[1, 2], [7, -1]])
    assert [found.where(row).rpartition(":")[2] for row in (0, 1)] == ["1", "5"]


def test_the_kind_of_a_file_is_not_its_name(tmp_path: Path) -> None:
    """An array that is called CSV is an array, a pickle that is called .npy is refused."""
    np.save(tmp_path / "a.npy", np.ones((2, 4), np.int64))
    (tmp_path / "a.npy").rename(tmp_path / "a.csv")
    assert Sample(tmp_path / "a.csv").kind == "npy"
    assert isinstance(read_recordings([tmp_path / "a.csv"]), CountsTrace)
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object), allow_pickle=True)
    for layout in ("", "npy-counts"):
        with pytest.raises(TraceError, match=r"b\.npy: "):
            read_recordings([tmp_path / "b.npy"], ImportOptions(layout=layout))
    with pytest.raises(TraceError, match=r"layout: found 'npy-count', wanted .* \(did you mean npy-counts\?\)"):
        read_recordings([tmp_path / "a.csv"], ImportOptions(layout="npy-count"))
