"""Recordings of SGLang: counts, forward passes, tokens and responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.types import CountsTrace, Trace
from tests.recordings.engine_files import (
    BY_LAYER,
    DATA,
    IDS,
    MODEL,
    SLOTS,
    encoded,
    imported,
    json_file,
    json_lines,
    needs_data,
    sglang_record,
    text_file,
)


def saved(path: Path, content: Any) -> Path:
    """A file of torch.save, lists of numbers as tensors."""
    torch = pytest.importorskip("torch")

    def tensors(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: tensors(each, key) for key, each in value.items()}
        if name in ("records", "input_ids", "positions", "extend_seq_lens", "misc_objects"):
            return [tensors(each) for each in value] if name == "records" else value
        return torch.tensor(value, dtype=torch.int32) if isinstance(value, list) else value

    torch.save(tensors(content), path)
    return path


def test_logical_counts_leave_dense_layers_and_empty_steps_out(tmp_path: Path) -> None:
    """Layer 0 is dense; the ring buffer's second step was never written."""
    counts = [[[0, 0], [5, 3]], [[0, 0], [0, 0]], [[0, 0], [1, 2]]]
    trace, report = imported(json_file(tmp_path / "c.json", {"rank": 0, "logical_count": counts}))
    assert isinstance(trace, CountsTrace)
    assert trace.count.tolist() == [[[5, 3]], [[1, 2]]]
    assert trace.layer_ids == (1,)
    assert trace.step.tolist() == [0, 2]
    assert report.layout == "sglang-counts"
    assert len([note for note in report.notes if "step" in note]) == 1
    assert len([note for note in report.notes if "layer" in note]) == 1


def test_counts_of_a_whole_run_are_one_step(tmp_path: Path) -> None:
    """[layers, experts], as floats that are whole."""
    trace, _ = imported(json_file(tmp_path / "c.json", {"logical_count": [[0.0, 0.0], [5.0, 3.0]]}))
    assert isinstance(trace, CountsTrace)
    assert trace.count.tolist() == [[[5, 3]]]


@pytest.mark.ref
def test_a_file_of_torch_says_the_same(tmp_path: Path) -> None:
    """The recorder's own form, with its newer field."""
    content = {"rank": 0, "logical_count": [[[0, 0], [5, 3]]], "average_utilization_rate_over_window": None}
    trace, report = imported(saved(tmp_path / "stat.pt", content))
    assert isinstance(trace, CountsTrace)
    assert (trace.count.tolist(), trace.layer_ids) == ([[[5, 3]]], (1,))
    assert report.layout == "sglang-counts"


def test_a_csv_of_counts_has_zeros_where_it_has_no_row(tmp_path: Path) -> None:
    """Two layers, of which one has one expert's count."""
    trace, _ = imported(text_file(tmp_path / "c.csv", "layer_id,expert_id,count\n3,0,7\n3,2,4\n4,1,9\n"))
    assert isinstance(trace, CountsTrace)
    assert (trace.count.tolist(), trace.layer_ids) == ([[[7, 0, 4], [0, 9, 0]]], (3, 4))


@pytest.mark.ref
def test_passes_of_files_of_torch(tmp_path: Path) -> None:
    """Two ranks; the dense layer 0 is zero."""
    records = [
        sglang_record(9, global_physical_count=[[0] * 6, counts]) for counts in ([1, 2, 3, 4, 10, 20], [1] + [0] * 5)
    ]
    files = [
        saved(tmp_path / f"x_{rank}.pt", {"records": [record], "last_physical_to_logical_map": SLOTS})
        for rank, record in enumerate(records)
    ]
    trace, _ = imported(*files)
    assert isinstance(trace, CountsTrace)
    assert (trace.count.tolist(), trace.layer_ids) == ([[[12, 22, 3, 4]]], (1,))


@pytest.mark.ref
def test_tokens_of_a_file_of_torch(tmp_path: Path) -> None:
    """Slot 4 is expert 0."""
    known = {"input_ids": [9, 8], "positions": [0, 1], "extend_seq_lens": [2], "misc_objects": []}
    record = sglang_record(1, forward_mode=1, topk_ids_of_layer=[[[4, 2, -1, -1]] * 2] * 2, **known)
    trace, report = imported(saved(tmp_path / "x.pt", {"records": [record], "last_physical_to_logical_map": SLOTS}))
    assert isinstance(trace, Trace)
    assert trace.expert.tolist() == [[[0, 2]] * 2] * 2
    assert report.layout == "sglang-passes"


@pytest.mark.parametrize("dtype, code", [("int32", "<i4"), ("uint16", "<u2"), ("uint8", "u1")])
def test_base64_of_a_response_is_cut_by_the_model(tmp_path: Path, dtype: str, code: str) -> None:
    """Rows = 2 + 2 - 1; layer 0 is dense, which the writer fills with zeros."""
    ids = np.concatenate([np.zeros((3, 1, 2), dtype=np.int32), IDS], axis=1)
    meta = {"routed_experts": encoded(ids, code), "prompt_tokens": 2, "completion_tokens": 2}
    if dtype != "int32":
        meta["routed_experts_dtype"] = dtype
    trace, report = imported(json_file(tmp_path / "r.json", {"meta_info": meta}), model=MODEL)
    assert isinstance(trace, Trace)
    assert trace.expert.tolist() == BY_LAYER
    assert trace.layer_ids == (1, 2)
    assert trace.phase.tolist() == [0, 0, 1]
    assert report.layout == "routed-experts-responses"
    assert any("prompt + generated - 1" in note for note in report.notes)


def test_responses_a_line_are_sequences(tmp_path: Path) -> None:
    """Two of them, of a chat and wrapped with a mask."""
    ids = np.concatenate([np.zeros((3, 1, 2), dtype=np.int32), IDS], axis=1)
    wrapped = {"values": encoded(ids), "valid_mask": [True, True, False]}
    records = [{"sglext": {"routed_experts": encoded(ids)}}, {"meta_info": {"routed_experts": wrapped}}]
    trace, _ = imported(json_lines(tmp_path / "r.jsonl", records), model=MODEL)
    assert trace.sequence.tolist() == [0, 0, 0, 1, 1]  # type: ignore[union-attr]


def test_tokens_of_a_cached_prefix_are_zeros(tmp_path: Path) -> None:
    """In every layer: they are left out, and a layer alone that is zero makes no choice; both are said."""
    ids = np.concatenate([np.zeros((3, 1, 2), dtype=np.int32), IDS], axis=1)
    ids[0] = 0
    ids[2, 1] = 0
    trace, report = imported(json_file(tmp_path / "r.json", {"meta_info": {"routed_experts": ids.tolist()}}))
    assert isinstance(trace, Trace)
    assert trace.expert.tolist() == [[[3, 1], [-1, -1]], [[2, 0], [1, 3]]]
    assert trace.position.tolist() == [1, 2]
    assert any("1 of 3 tokens have zeros in every layer" in note for note in report.notes)
    assert any("1 of 4 (token, layer) pairs are zeros" in note for note in report.notes)


def test_moe_layers_alone_are_told_by_the_tokens(tmp_path: Path) -> None:
    """Twelve numbers are two tokens of all three layers, or three of the two MoE layers; the response has three."""
    meta = {"routed_experts": encoded(IDS), "prompt_tokens": 2, "completion_tokens": 2}
    trace, _ = imported(json_file(tmp_path / "r.json", {"meta_info": meta}), model=MODEL)
    assert isinstance(trace, Trace)
    assert (trace.expert.tolist(), trace.layer_ids) == (BY_LAYER, (1, 2))


def test_base64_without_a_model_is_refused_with_what_to_say(tmp_path: Path) -> None:
    """And a length that no such model gives."""
    path = json_file(tmp_path / "r.json", {"meta_info": {"routed_experts": encoded(np.arange(5))}})
    with pytest.raises(TraceError, match=r"r\.json: .*does not say how its 5 numbers divide.*--model"):
        imported(path)
    with pytest.raises(TraceError, match="found 5 numbers, wanted a multiple of 6"):
        imported(path, model=MODEL)


@pytest.mark.parametrize("text", ["@@@", "AAAA", 7, None, {"values": []}])
def test_text_that_is_no_base64_of_ids_is_refused(tmp_path: Path, text: Any) -> None:
    """With the file and the field."""
    path = json_file(tmp_path / "r.json", {"meta_info": {"routed_experts": text}})
    with pytest.raises(TraceError, match=r"r\.json: .*routed_experts"):
        imported(path, model=MODEL)


@needs_data
def test_the_recorded_run_of_deepseek_has_58_layers() -> None:
    """Three dense layers are zero rows; loads are those of the file."""
    path = DATA / "traces" / "routing" / "deepseek_v3_sglang_ep_statistics_decode_in2000out100.json.gz"
    trace, _ = imported(path)
    assert isinstance(trace, CountsTrace)
    assert trace.layer_ids == tuple(range(3, 61))
    assert trace.count.shape == (1, 58, 256)
    assert trace.n_experts == 256
