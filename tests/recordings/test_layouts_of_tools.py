"""Recordings of research tools and of training runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.types import CountsTrace, Trace
from tests.recordings.engine_files import (
    BY_LAYER,
    IDS,
    LOADS,
    imported,
    json_file,
    json_lines,
    regolith_bytes,
    simllm_lines,
    text_file,
)


@pytest.mark.parametrize("version", [1, 2])
def test_a_preplay_trace_of_simllm(tmp_path: Path, version: int) -> None:
    """Prefill and decode of one request; only version 1 has weights."""
    trace, report = imported(json_lines(tmp_path / "t.jsonl", simllm_lines(version)))
    assert isinstance(trace, Trace)
    assert trace.expert.tolist() == BY_LAYER
    assert (trace.layer_ids, trace.n_experts, trace.model) == ((1, 2), 4, "org/model")
    assert (trace.phase.tolist(), trace.position.tolist(), trace.sequence.tolist()) == ([0, 0, 1], [0, 1, 2], [0, 0, 0])
    assert (trace.weight is None) == (version == 2)
    assert report.layout == "simllm-preplay"
    assert any("prompt + generated - 1" in note for note in report.notes)


@pytest.mark.parametrize(
    "line, change, message",
    [
        (0, {"provenance": {}}, r"t\.jsonl:1: expert_count"),
        (0, {"schema": "simllm-preplay-trace-v9"}, r"t\.jsonl:1: schema"),
        (2, {"token_index": -1}, r"t\.jsonl:3: token_index"),
        (2, {"phase": "later"}, r"t\.jsonl:3: phase"),
        (3, {"routing": [{"layer_index": 1, "expert_ids": [0, 1]}]}, r"t\.jsonl:4: routing: wanted the 2 layers"),
        (3, {"routing": [{"layer_index": 1, "expert_ids": [0, 4]}, {"layer_index": 2}]}, r"t\.jsonl:4: expert_ids"),
        (3, {"routing": [{"layer_index": 1, "expert_ids": [1, 1]}, {"layer_index": 2}]}, "list of distinct experts"),
    ],
)
def test_wrong_lines_of_a_preplay_trace_are_named(
    tmp_path: Path, line: int, change: dict[str, Any], message: str
) -> None:
    """File, line and field."""
    lines = simllm_lines(2)
    lines[line] |= change
    with pytest.raises(TraceError, match=message):
        imported(json_lines(tmp_path / "t.jsonl", lines))


def test_queries_of_core12345_are_sequences(tmp_path: Path) -> None:
    """A file a query: prefill, then decode steps; null layers are dense."""
    query = [{"0": None, "1": IDS[:2, 0].tolist(), "2": IDS[:2, 1].tolist()}, {"0": None, "1": [[3, 2]], "2": [[1, 3]]}]
    files = [json_file(tmp_path / name, query) for name in ("q1.json", "q2.json")]
    trace, report = imported(*files)
    assert isinstance(trace, Trace)
    assert trace.expert[:, :3].tolist() == BY_LAYER
    assert trace.layer_ids == (1, 2)
    assert trace.sequence.tolist() == [0] * 3 + [1] * 3
    assert trace.phase.tolist() == [0, 0, 1] * 2
    assert report.layout == "core12345"
    assert any("null" in note for note in report.notes)


def test_batches_of_moe_balance(tmp_path: Path) -> None:
    """A line a layer and batch; tokens of a batch are the same in every layer."""
    lines = [
        {"layer": layer, "batch_id": 12, "origin_rows": [0, 0, 1], "topk_experts": IDS[:, layer].tolist()}
        for layer in range(2)
    ]
    trace, report = imported(json_lines(tmp_path / "t.jsonl", lines))
    assert isinstance(trace, Trace)
    assert trace.expert.tolist() == BY_LAYER
    assert trace.step.tolist() == [12] * 3
    assert report.layout == "moe-balance-batches"


def test_a_csv_of_llama_cpp_has_counts_alone(tmp_path: Path) -> None:
    """A row an assignment and no tokens."""
    text = "layer,expert\n" + "".join(
        f"{layer},{expert}\n" for token in IDS for layer in (0, 1) for expert in token[layer]
    )
    trace, report = imported(text_file(tmp_path / "t.csv", text))
    assert isinstance(trace, CountsTrace)
    assert trace.count.tolist() == [LOADS]
    assert report.layout == "llama-cpp-csv"
    assert any("no tokens" in note for note in report.notes)


def test_a_csv_of_selections_has_tokens_in_order(tmp_path: Path) -> None:
    """The n-th row of a layer is its n-th token."""
    rows = [f"{layer + 3},{' '.join(map(str, token[layer]))}\n" for token in IDS.tolist() for layer in (0, 1)]
    trace, report = imported(text_file(tmp_path / "t.csv", "layer_id,expert_ids\n" + "".join(rows)))
    assert isinstance(trace, Trace)
    assert trace.expert.tolist() == BY_LAYER
    assert trace.layer_ids == (3, 4)
    assert report.layout == "expert-selection-csv"


@pytest.mark.parametrize("lines", [False, True])
def test_lists_of_imp_are_decode_tokens(tmp_path: Path, lines: bool) -> None:
    """[layer, experts...]; a token begins where the layers begin again."""
    rows = [[layer, *token[layer]] for token in IDS.tolist() for layer in (0, 1)]
    path = (json_lines if lines else json_file)(tmp_path / "t.json", rows)
    trace, report = imported(path)
    assert isinstance(trace, Trace)
    assert trace.expert.tolist() == BY_LAYER
    assert trace.phase.tolist() == [1, 1, 1]
    assert report.layout == "imp-json"


def test_lines_of_route_sim(tmp_path: Path) -> None:
    """With a phase where it is known."""
    lines = [
        {"t": t, "layer": layer, "experts": ids, "phase": "decode"}
        for t, token in enumerate(IDS.tolist())
        for layer, ids in enumerate(token)
    ]
    trace, report = imported(json_lines(tmp_path / "t.jsonl", lines))
    assert isinstance(trace, Trace)
    assert (trace.expert.tolist(), trace.phase.tolist()) == (BY_LAYER, [1, 1, 1])
    assert report.layout == "route-sim"


def test_a_binary_trace_of_regolith(tmp_path: Path) -> None:
    """Ids are read, values left out, and that is said."""
    (tmp_path / "t.bin").write_bytes(regolith_bytes())
    trace, report = imported(tmp_path / "t.bin")
    assert isinstance(trace, Trace)
    assert (trace.expert.tolist(), trace.n_experts, trace.weight) == (BY_LAYER, 4, None)
    assert report.layout == "regolith"
    assert any("values" in note for note in report.notes)


@pytest.mark.parametrize(
    "content, message",
    [
        (regolith_bytes()[:-1], "bytes after the header"),
        (regolith_bytes() + b"x", "found more bytes"),
        (regolith_bytes()[:10], "header"),
        (regolith_bytes(n_experts=3), "found 3, wanted whole numbers from -1 to 2"),
        (regolith_bytes(np.zeros((0, 2, 2), dtype=np.int32)), "0 tokens"),
        (b"Q4RT" + b"\xff" * 12, "at most"),
    ],
)
def test_a_damaged_binary_trace_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """The header is not believed."""
    (tmp_path / "t.bin").write_bytes(content)
    with pytest.raises(TraceError, match=rf"t\.bin: .*{message}"):
        imported(tmp_path / "t.bin")


def test_columns_of_weights_and_biases(tmp_path: Path) -> None:
    """A column a layer and expert, beside those that W&B adds; an empty cell was not logged."""
    tag = "run - moe-expert/global_batch_tokens_per_expert_layer{}_expert{}"
    names = [tag.format(layer, expert) for layer in (0, 2) for expert in (0, 1)]
    header = ",".join(["Step", *(f'"{name}{end}"' for name in names for end in ("", "__MIN", "__MAX"))])
    rows = [
        "10," + ",".join(f"{n},{n},{n}" for n in (1, 2, 3, 4)),
        "20,5,5,5,,,,7.0,7,7,8,8,8",
    ]
    trace, report = imported(text_file(tmp_path / "wandb.csv", "\n".join([header, *rows]) + "\n"))
    assert isinstance(trace, CountsTrace)
    assert trace.count.tolist() == [[[1, 2], [3, 4]], [[5, 0], [7, 8]]]
    assert (trace.step.tolist(), trace.layer_ids, trace.phase.tolist()) == ([10, 20], (0, 2), [2, 2])
    assert report.layout == "training-csv"
    assert any("1 of 8" in note for note in report.notes)


def test_files_of_tensorboard(tmp_path: Path) -> None:
    """A file a tag, named after it."""
    files = [
        text_file(tmp_path / f"run-tag-moe_layer1_expert{expert}.csv", f"Wall time,Step,Value\n1.5,10,{value}\n")
        for expert, value in ((0, 4), (1, 6))
    ]
    trace, report = imported(*files)
    assert isinstance(trace, CountsTrace)
    assert (trace.count.tolist(), trace.layer_ids) == ([[[4, 6]]], (1,))
    assert report.layout == "training-csv"


@pytest.mark.parametrize(
    "text, message",
    [
        ("Step,x_layer0_expert0\n1,-2\n", r"w\.csv:2: x_layer0_expert0: found '-2'"),
        ("Step,x_layer0_expert0\n1,nan\n", "found 'nan'"),
        ("Step,x_layer0_expert0\n1,2,3\n", "found 3 cells, wanted 2"),
        ("Step,x_layer0_expert0\nx,2\n", "Step: found 'x'"),
        ("Time,x_layer0_expert0\n1,2\n", "column of steps"),
        ("Step,x_layer0_expert999999\n1,2\n", "wanted below"),
    ],
)
def test_wrong_cells_of_a_training_run_are_named(tmp_path: Path, text: str, message: str) -> None:
    """File, line and column."""
    with pytest.raises(TraceError, match=message):
        imported(text_file(tmp_path / "w.csv", text))


def test_counts_of_deepspeed_are_of_first_choices(tmp_path: Path) -> None:
    """A dictionary of exp_counts [steps, layers, experts]."""
    trace, report = imported(json_file(tmp_path / "c.json", {"exp_counts": [[[1, 2], [3, 0]]]}))
    assert isinstance(trace, CountsTrace)
    assert (trace.count.tolist(), trace.first_choice) == ([[[1, 2], [3, 0]]], True)
    assert report.layout == "deepspeed-counts"
    assert any("first choice" in note for note in report.notes)


def test_what_is_synthetic_stays_small(tmp_path: Path) -> None:
    """The fixtures above say the same as their loads."""
    for layer, loads in enumerate(LOADS):
        assert np.bincount(IDS[:, layer].ravel(), minlength=4).tolist() == loads
    assert json.loads(json.dumps(BY_LAYER)) == BY_LAYER


@pytest.mark.ref
@pytest.mark.parametrize(
    "content, message",
    [
        ([[[0, 1, -1]]], "a placement"),
        ({"model": 1}, "a dictionary of model, wanted a tensor of counts"),
        ([[[0.5]]], "found 0.5"),
    ],
)
def test_files_of_torch_without_counts_are_named(tmp_path: Path, content: Any, message: str) -> None:
    """VLLM's old expert map has -1 for experts that are elsewhere."""
    torch = pytest.importorskip("torch")
    torch.save(torch.tensor(content) if isinstance(content, list) else content, tmp_path / "a.pt")
    with pytest.raises(TraceError, match=rf"a\.pt.*{message}"):
        imported(tmp_path / "a.pt")


@pytest.mark.ref
def test_a_tensor_of_counts(tmp_path: Path) -> None:
    """[layers, experts] of two files, which are two steps, of first choices as the user says."""
    torch = pytest.importorskip("torch")
    for name, first in (("a.pt", 1), ("b.pt", 5)):
        torch.save(torch.tensor([[first, 2], [3, 4]]), tmp_path / name)
    trace, report = imported(tmp_path / "a.pt", tmp_path / "b.pt", first_choice=True)
    assert isinstance(trace, CountsTrace)
    assert (trace.count.tolist(), trace.first_choice) == ([[[1, 2], [3, 4]], [[5, 2], [3, 4]]], True)
    assert report.layout == "counts-tensor"
