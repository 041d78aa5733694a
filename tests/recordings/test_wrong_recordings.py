"""Wrong recordings: the sentence names file, place, what was found and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.types import Trace
from tests.recordings.engine_files import (
    IDS,
    MODEL,
    encoded,
    eplb_record,
    imported,
    json_file,
    json_lines,
    simllm_lines,
    text_file,
    trtllm_folder,
)

ROWS = IDS.tolist()


@pytest.mark.parametrize(
    "value, message",
    [
        ([{"0": [[1, 2]]}, 7], r"\[1\]: found int, wanted a dictionary of layers"),
        ([{"0": None}], "every layer is null"),
        ([{"10000": [[1, 2]]}], "found layer 10000, wanted less than 10000"),
        ([{"0": [[1, 2]], "1": [[1, 2], [3, 4]]}], "layers differ in tokens or k"),
        ([{"0": [[1, 2]]}, {"0": None}], r"\[1\]\['0'\]: found an array of shape \[\]"),
        ([{"0": [[1, 2]]}, {}], r"\[1\]\['0'\]"),
        ({"choices": [{"routed_experts": ROWS}], "prompt_routed_experts": [[[0, 1]]]}, "wanted the layers and k"),
        ({"choices": [{"routed_experts": {"values": ROWS, "valid_mask": [True]}}]}, "valid_mask: found .*3 tokens"),
        ({"choices": [{"routed_experts": 7}]}, "found int, wanted base64 text or lists"),
        ({"meta_info": {"routed_experts": encoded(IDS), "routed_experts_dtype": "f4"}}, "_dtype: found 'f4'"),
        (
            {"meta_info": {"routed_experts": "AAAA", "routed_experts_dtype": "uint16"}},
            "found 3 bytes, wanted a multiple",
        ),
        (
            {"meta_info": {"routed_experts": ROWS, "prompt_tokens": 9, "completion_tokens": 2}},
            r"found 3 rows of experts, wanted 10 or 11 \(9 \+ 2\)",
        ),
        (
            [{"meta_info": {"routed_experts": ROWS}}, {"meta_info": {"routed_experts": [[[0, 1]]]}}],
            r"found 1 layers, wanted 2 as before",
        ),
        ({"meta_info": {"routed_experts": [[[0, 0], [0, 0]]]}}, "found zeros alone"),
        ({"logical_count": [[[0, 0]]]}, "counts that are all zero"),
        ({"exp_counts": [[1, -1]]}, r"exp_counts\[0\]\[1\]: found -1"),
    ],
)
def test_wrong_documents(tmp_path: Path, value: Any, message: str) -> None:
    """Of core12345, responses and counts."""
    with pytest.raises(TraceError, match=rf"a\.json.*{message}"):
        imported(json_file(tmp_path / "a.json", value))


def test_layers_that_no_model_has(tmp_path: Path) -> None:
    """Neither all of the model's nor its MoE layers."""
    path = json_file(tmp_path / "a.json", {"meta_info": {"routed_experts": [[[0, 1]]]}})
    with pytest.raises(TraceError, match="found 1 layers, wanted the 3 layers of a-model or its 2 MoE layers"):
        imported(path, model=MODEL)


@pytest.mark.parametrize(
    "records, message",
    [
        ([eplb_record(1, [[1, 2]], [[0, 1]]) | {"step": -1}], r"a\.jsonl:1: step: found -1"),
        ([eplb_record(1, [[1, 2]], [[0, 1]]), eplb_record(2, [[1], [2]], [[0], [0]])], r":2: found 2 layers, wanted 1"),
        ([eplb_record(1, [[1, 2]], [[0]])], r":1: found a map of \[1, 1\] slots for counts of \[1, 2\]"),
        ([{"record_type": "session_metadata"}], "no record of type eplb_load_stats"),
        ([eplb_record(1, [[1, 2]], [[0, 1]]), [1]], r":2: found \[1\], wanted a JSON object"),
        (
            [
                {"layer": 0, "batch_id": 1, "topk_experts": [[1, 2]]},
                {"layer": 1, "batch_id": 1, "topk_experts": [[1], [2]]},
            ],
            r":2: topk_experts: found 2 tokens, wanted 1",
        ),
        ([{"layer": 0, "batch_id": 1, "topk_experts": [[1, 1]]}], r":1: topk_experts\[0\]: found .*distinct"),
        ([{"layer": 0, "batch_id": 1, "topk_experts": [[1]], "topk_weights": [["a"]]}], ":1: topk_weights: found"),
        ([{"layer": 0, "batch_id": 1, "topk_experts": [[1]], "topk_weights": [[-1.0]]}], "finite numbers from 0"),
        ([{"layer": 0, "batch_id": 1, "topk_experts": [[1]], "request_id": [1, 2]}], "found 2 elements, wanted 1"),
        ([[0, 1, 2], [1]], r":2: found \[1\], wanted a list \[layer, expert"),
        ([[0, 1, 1]], "distinct experts"),
    ],
)
def test_wrong_lines(tmp_path: Path, records: list[Any], message: str) -> None:
    """Of load dumps, batches and lists."""
    with pytest.raises(TraceError, match=message):
        imported(json_lines(tmp_path / "a.jsonl", records))


def test_batches_may_have_weights_and_requests(tmp_path: Path) -> None:
    """Requests by token, or one for all."""
    lines = [
        {
            "layer": 0,
            "batch_id": 1,
            "topk_experts": [[1, 2], [0, 3]],
            "topk_weights": [[1, 2], [3, 4]],
            "request_id": [7, 8],
        },
        {"layer": 0, "batch_id": 2, "topk_experts": [[1, 3]], "topk_weights": [[5, 6.5]], "request_id": 8},
    ]
    trace, _ = imported(json_lines(tmp_path / "a.jsonl", [{"layer": 0} | line for line in lines]))
    assert isinstance(trace, Trace)
    assert trace.weight is not None
    assert trace.weight.tolist() == [[[1, 2], [3, 4], [5, 6.5]]]
    assert (trace.sequence.tolist(), trace.step.tolist()) == ([0, 1, 1], [1, 1, 2])


def test_preplay_traces_of_two_models_and_cut_requests(tmp_path: Path) -> None:
    """The former are refused; of the latter it is said."""
    lines = simllm_lines(2)
    trace, report = imported(json_lines(tmp_path / "cut.jsonl", lines[:3]))
    assert isinstance(trace, Trace)
    assert any("1 of 1 requests have fewer or more rows" in note for note in report.notes)
    other = [lines[0] | {"provenance": lines[0]["provenance"] | {"model_id": "b"}}, *lines[1:]]
    with pytest.raises(TraceError, match=r"b\.jsonl:1: found another model"):
        imported(json_lines(tmp_path / "a.jsonl", lines), json_lines(tmp_path / "b.jsonl", other))
    lines[0]["provenance"]["moe_layer_indices"] = [2, 1]
    with pytest.raises(TraceError, match="wanted ascending layers"):
        imported(json_lines(tmp_path / "a.jsonl", lines))


def test_counts_of_files_that_differ(tmp_path: Path) -> None:
    """Files of one import have the same layers and experts."""
    for name in ("logical_count", "exp_counts"):
        files = [json_file(tmp_path / f"{at}.json", {name: [[1] * (2 + at)]}) for at in (0, 1)]
        with pytest.raises(TraceError, match=r"1\.json: .*found \[layers, experts\] = \[1, 3\], wanted \[1, 2\]"):
            imported(*files)


def test_statistics_of_tensorrt_llm_that_are_incomplete(tmp_path: Path) -> None:
    """A rank that lacks a tensor is said, as are raw files beside the counts; one folder is an import."""
    folder = trtllm_folder(tmp_path / "a", [{"1_3": [1, 2], "1_4": [1, 1]}, {"1_3": [1, 2]}], 2)
    (folder / "rank0_raw.safetensors").write_bytes(b"")
    _, report = imported(folder)
    assert any("1 (iteration, layer) pairs are missing in some ranks' files" in note for note in report.notes)
    assert any("were not read" in note for note in report.notes)
    with pytest.raises(TraceError, match="a second folder"):
        imported(folder, trtllm_folder(tmp_path / "b", [{"1_3": [1, 2]}], 2))
    json_file(folder / "meta_info.json", {"num_experts": "two"})
    with pytest.raises(TraceError, match=r"meta_info\.json: num_experts: found 'two'"):
        imported(folder)


@pytest.mark.parametrize(
    "text, message",
    [
        ("layer,expert\n0,1\n0\n", r"a\.csv:3: found 1 cells, wanted 2"),
        ("layer,expert\n0,1\n\n0,x\n", r"a\.csv:4: found 'x', wanted a number"),
        ("layer,expert\n0,1\n10000,1\n", r"a\.csv:3: layer: found 10000"),
        ("layer,expert\n0,1\n\n0,-1\n", r"a\.csv:4: expert: found -1"),
        ("layer,expert\n", "no assignments"),
        ("layer_id,expert_ids\n0\n", r"a\.csv:2: found 1 cells, wanted layer_id,expert_ids"),
        ("layer_id,expert_ids\n0,1 1\n", "distinct"),
        ("layer_id,expert_ids\n0,\n", "distinct"),
        ("layer,expert,count\n0,1,2\n0,1,3\n", "a layer and expert twice"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    """With their lines, also behind blank ones."""
    with pytest.raises(TraceError, match=message):
        imported(text_file(tmp_path / "a.csv", text))


def test_a_stated_number_of_experts_holds(tmp_path: Path) -> None:
    """Experts without load are counted, a higher one is refused."""
    path = text_file(tmp_path / "a.csv", "layer,expert\n0,1\n")
    trace, _ = imported(path, n_experts=4)
    assert trace.n_experts == 4
    with pytest.raises(TraceError, match="found expert 1, wanted experts 0 to 0"):
        imported(path, n_experts=1)


def test_an_archive_without_routes_is_refused(tmp_path: Path) -> None:
    """Where the user said that it has some."""
    np.savez(tmp_path / "a.npz", other=np.arange(3))
    with pytest.raises(TraceError, match=r"a\.npz: found other, wanted an array routed_experts"):
        imported(tmp_path / "a.npz", layout="routed-experts-arrays")
