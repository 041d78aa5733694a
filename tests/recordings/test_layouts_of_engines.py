"""Recordings of vLLM, TensorRT-LLM and MindIE, and files of theirs that hold no routing."""

from __future__ import annotations

import gzip
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
    eplb_record,
    imported,
    json_file,
    json_lines,
    needs_data,
    text_file,
    trtllm_folder,
)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
@pytest.mark.parametrize("n_output", [1, 2])
def test_routed_experts_of_a_sequence(tmp_path: Path, dtype: str, n_output: int) -> None:
    """Of vLLM and of moe-balance: with the last token or without it, which is said."""
    np.savez(
        tmp_path / "r.npz",
        routed_experts=IDS.astype(dtype),
        prompt_token_ids=np.arange(2),
        output_token_ids=np.arange(n_output),
        request_id=np.array(0),
    )
    trace, report = imported(tmp_path / "r.npz")
    assert isinstance(trace, Trace)
    assert trace.expert.tolist() == BY_LAYER
    assert (trace.phase.tolist(), trace.position.tolist()) == ([0, 0, 1], [0, 1, 2])
    assert report.layout == "routed-experts-arrays"
    assert any("prompt + generated - 1" in note for note in report.notes) == (n_output == 2)


def test_dense_layers_of_an_early_version_are_zeros(tmp_path: Path) -> None:
    """They are left out and said; layers keep their numbers."""
    ids = np.concatenate([np.zeros((3, 1, 2), dtype=np.int32), IDS], axis=1)
    np.savez(tmp_path / "r.npz", routed_experts=ids)
    trace, report = imported(tmp_path / "r.npz")
    assert trace.layer_ids == (1, 2)
    assert any("dense" in note for note in report.notes)


def test_responses_with_lists(tmp_path: Path) -> None:
    """The prompt's rows and those of each of two choices, which are two sequences."""
    response = {
        "prompt_routed_experts": IDS[:2].tolist(),
        "choices": [{"routed_experts": IDS[2:].tolist()}, {"routed_experts": IDS[:1].tolist()}],
    }
    trace, _ = imported(json_file(tmp_path / "r.json", response))
    assert isinstance(trace, Trace)
    assert trace.expert[:, :3].tolist() == BY_LAYER
    assert trace.sequence.tolist() == [0, 0, 0, 1, 1, 1]
    assert trace.phase.tolist() == [0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_a_load_dump_is_of_logical_experts(tmp_path: Path, suffix: str) -> None:
    """Slot 2 is a copy of expert 0; a record without a map has the last one."""
    slots = [[0, 1, 0]]
    lines = [
        {"record_type": "eplb_load_meta", "model": "org/model", "num_redundant_experts": 1},
        eplb_record(3, [[1, 2, 4]], slots),
        {"record_type": "bench_run_start"},
        {key: value for key, value in eplb_record(4, [[7, 0, 0]], slots).items() if key != "p2l_map"},
        eplb_record(5, [[5, 0, 0]], [[1, 0, 1]]),
    ]
    path = json_lines(tmp_path / "d.jsonl", lines)
    if suffix.endswith("gz"):
        (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "d.jsonl.gz"
    trace, report = imported(path)
    assert isinstance(trace, CountsTrace)
    assert trace.count.tolist() == [[[5, 2]], [[7, 0]], [[0, 5]]]
    assert (trace.step.tolist(), trace.model) == ([3, 4, 5], "org/model")
    assert report.layout == "vllm-eplb-dump"
    assert any("bench_run_start" in note for note in report.notes)


def test_statistics_of_tensorrt_llm_are_summed_over_ranks(tmp_path: Path) -> None:
    """Layers keep the model's numbers; iteration 101 has no layer 4."""
    folder = trtllm_folder(
        tmp_path / "s",
        [
            {"100_3": [1, 2, 3], "100_4": [1, 0, 0], "101_3": [4, 4, 4]},
            {"100_3": [10, 0, 0], "100_4": [0, 0, 1], "101_3": [0, 1, 0]},
        ],
        3,
    )
    trace, report = imported(folder)
    assert isinstance(trace, CountsTrace)
    assert trace.count.tolist() == [[[11, 2, 3], [1, 0, 1]], [[4, 5, 4], [0, 0, 0]]]
    assert (trace.step.tolist(), trace.layer_ids, trace.n_experts) == ([100, 101], (3, 4), 3)
    assert report.layout == "tensorrt-llm-statistics"
    assert any("2 ranks" in note for note in report.notes)
    assert any("1 of 4" in note for note in report.notes)


def test_the_published_statistics_of_a_layer(tmp_path: Path) -> None:
    """TensorRT-LLM prints for layer 3 a mean of 1,024, a standard deviation of 187.955, an imbalance of 0.498.

    (max - mean) / mean = 0.498 is a highest count of 1,534; the rest are chosen for the printed deviation.
    """
    count = np.full(256, 1024)
    count[0] = 1534
    rest = np.arange(1, 256)
    count[rest] -= 2 + 0 * rest
    wanted = 187.955**2 * 256
    spread = np.sqrt((wanted - 510**2 - 255 * 4) / 254)
    count[1:128] += round(spread)
    count[128:255] -= round(spread)
    halves = count // 2
    folder = trtllm_folder(tmp_path / "s", [{"7_3": halves.tolist()}, {"7_3": (count - halves).tolist()}], 256)
    trace, _ = imported(folder)
    assert isinstance(trace, CountsTrace)
    layer = trace.count[0, 0]
    assert trace.layer_ids == (3,)
    assert layer.mean() == 1024
    assert layer.std() == pytest.approx(187.955, abs=0.3)
    assert layer.max() / layer.mean() - 1 == pytest.approx(0.498, abs=0.0005)


def test_raw_statistics_of_tensorrt_llm_are_choices(tmp_path: Path) -> None:
    """Two ranks in one iteration, where there are no counts."""
    from safetensors.numpy import save_file

    folder = trtllm_folder(tmp_path / "s", [], 4)
    for rank, tokens in enumerate((IDS[:2], IDS[2:])):
        save_file({f"7_{3 + at}": tokens[:, at].copy() for at in (0, 1)}, folder / f"rank{rank}_raw.safetensors")
    trace, report = imported(folder)
    assert isinstance(trace, Trace)
    assert (trace.expert.tolist(), trace.layer_ids, trace.step.tolist()) == (BY_LAYER, (3, 4), [7, 7, 7])
    assert any("not that of a release" in note for note in report.notes)


@pytest.mark.parametrize(
    "ranks, message",
    [
        ([{"100_3": [1, 2]}], r"rank0\.safetensors: 100_3: found 2 counts, wanted 3"),
        ([{"layer3": [1, 2, 3]}], "key 'layer3'"),
        ([{"100_3": [1, -2, 3]}], r"100_3\[1\]: found -2"),
        ([{}], "no tensor"),
    ],
)
def test_wrong_statistics_name_their_file(tmp_path: Path, ranks: list[dict[str, list[int]]], message: str) -> None:
    """And the key."""
    with pytest.raises(TraceError, match=message):
        imported(trtllm_folder(tmp_path / "s", ranks, 3))


def test_mindie_writes_a_file_for_each_npu(tmp_path: Path) -> None:
    """Its columns are the NPU's experts, its rows the MoE layers, again and again; the model says how many."""
    files = [
        text_file(tmp_path / f"npu_{npu}.csv", text)
        for npu, text in ((10, "5,6\n7,8\n0,0\n0,1\n"), (9, "1,2\n3,4\n1,0\n0,0\n"))
    ]
    trace, report = imported(*files, model=MODEL, layout="mindie-csv")
    assert isinstance(trace, CountsTrace)
    assert trace.count.tolist() == [[[1, 2, 5, 6], [3, 4, 7, 8]], [[1, 0, 0, 0], [0, 0, 0, 1]]]
    assert report.layout == "mindie-csv"


@pytest.mark.parametrize(
    "texts, message",
    [
        (["1,2\n3,4\n", "1,2\n"], r"b\.csv: found 1 rows, wanted a multiple of 2"),
        (["1,2\n3\n"], r"a\.csv:2: found 1 cells, wanted 2"),
        (["1,2\n3,-4\n"], r"a\.csv:2: found '-4'"),
    ],
)
def test_wrong_files_of_mindie_are_named(tmp_path: Path, texts: list[str], message: str) -> None:
    """And without a model nobody knows how many layers there are."""
    files = [text_file(tmp_path / name, text) for name, text in zip(("a.csv", "b.csv"), texts, strict=False)]
    with pytest.raises(TraceError, match=message):
        imported(*files, model=MODEL, layout="mindie-csv")
    with pytest.raises(TraceError, match="--model NAME"):
        imported(*files, layout="mindie-csv")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.yaml", "initial_global_assignments:\n  3: [0, 1]\nnum_slots: 2\n", "a placement.*TensorRT-LLM"),
        ("a.json", '{"moe_layer_count": 1, "layer_list": []}', "a placement.*vllm-ascend"),
        ("a.json", '{"physical_to_logical_map": [[0, 1]]}', "a placement.*SGLang"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16,4,5\n", "requests of the Azure.*no routing"),
        ("a.csv", "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,x,1,2,3,y\n", "BurstGPT"),
        (
            "a.log",
            "INFO x\nEPLB step: 5 for model m: avg_tokens=2.00, max_tokens=4, balancedness=0.5000, steps until\n",
            r"1 lines? of balancedness \(mean 0\.500\).*unreliable",
        ),
        ("a.log", "[Expert Balancedness] forward_pass_id=1 current_pass_balancedness=0.250 l\n", "SGLang.*mean 0.250"),
        ("a.csv", "Step,run - moe/load_imbalance_layer_3\n1,0.5\n", "scalars of MoE layers"),
    ],
)
def test_files_without_routing_are_named_for_what_they_are(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    """One sentence says what the file is and what to do."""
    with pytest.raises(TraceError, match=message):
        imported(text_file(tmp_path / name, content))


@needs_data
def test_the_request_trace_of_azure_is_recognised() -> None:
    """The published file, compressed."""
    with pytest.raises(TraceError, match="requests of the Azure LLM inference trace"):
        imported(DATA / "traces" / "azure_llm_2023_conv.csv.gz")


@pytest.mark.parametrize("value", [[[0, 1]], [[[0, 1], [0.5, 1]]], [[[-2, 1]]], [[[0, 10**9]]], "text", [[["a", 1]]]])
def test_ids_that_are_none_are_refused(tmp_path: Path, value: Any) -> None:
    """Of the wrong depth, fractions, negative, beyond any model, text."""
    with pytest.raises(TraceError, match=r"r\.json: "):
        imported(json_file(tmp_path / "r.json", {"choices": [{"routed_experts": value}]}))
