"""Which files an import reads: folders, their order, several layouts, and the smallest inputs that users sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.recordings.layouts import LAYOUTS, files_of
from moesim.types import CountsTrace, LogitsTrace, Trace
from tests.recordings.engine_files import DATA, IDS, MODEL, imported, json_file, needs_data, text_file

QUERY = [{"0": IDS[:2, 0].tolist()}, {"0": [[3, 2]]}]


def test_a_folder_stands_for_the_recordings_in_it(tmp_path: Path) -> None:
    """In the order of the numbers in their names; what is no recording is passed over and counted."""
    (tmp_path / "math").mkdir()
    for number in (10, 9, 2):
        json_file(tmp_path / "math" / f"q{number}.json", QUERY)
    text_file(tmp_path / "README.md", "What this is.\n")
    text_file(tmp_path / ".hidden", "x")
    layout, files, passed_over = files_of([tmp_path])
    assert layout.name == "core12345"
    assert [path.name for path in files] == ["q2.json", "q9.json", "q10.json"]
    assert passed_over == 1
    trace, report = imported(tmp_path)
    assert isinstance(trace, Trace)
    assert (trace.n_tokens, report.n_sequences) == (9, 3)
    assert any("passed over" in note for note in report.notes)


def test_files_of_several_layouts_are_imported_apart(tmp_path: Path) -> None:
    """The error names both files."""
    counts = json_file(tmp_path / "b.json", {"logical_count": [[1, 2]]})
    with pytest.raises(TraceError, match=r"b\.json: found sglang-counts, wanted core12345, as .*a\.json is"):
        imported(json_file(tmp_path / "a.json", QUERY), counts)
    with pytest.raises(TraceError, match="import each apart"):
        imported(tmp_path)


def test_a_folder_without_recordings_is_named(tmp_path: Path) -> None:
    """With what is in it."""
    text_file(tmp_path / "notes.txt", "x")
    with pytest.raises(TraceError, match=r"a folder with notes\.txt, wanted a recording; `moesim list layouts`"):
        imported(tmp_path)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """What recognises a recording reads its beginning, which a pipe gives once."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match="pipe: found a pipe or device"):
        imported(tmp_path / "pipe")
    with pytest.raises(TraceError, match="cannot be read: File name too long"):
        imported(tmp_path / ("a" * 5000))


def test_a_folder_of_everything_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a folder of three files, where two may be."""
    for number in range(3):
        json_file(tmp_path / f"{number}.json", QUERY)
    monkeypatch.setattr("moesim.recordings.layouts.MAX_FILES", 2)
    with pytest.raises(TraceError, match="found above 2 files"):
        imported(tmp_path)


def test_a_folder_with_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Here a link to a name that is too long; files of other users are such too."""
    json_file(tmp_path / "0.json", QUERY)
    (tmp_path / "link").symlink_to("a" * 300)
    with pytest.raises(
        TraceError, match=r"link: found what cannot be read \(File name too long\), wanted recordings in"
    ):
        imported(tmp_path)


def test_every_layout_says_what_it_is() -> None:
    """One line, without a full stop, under a name that can be typed."""
    for name, layout in LAYOUTS.items():
        assert name == layout.name == name.lower().replace(" ", "-")
        assert 10 < len(layout.summary) < 130, name
        assert "\n" not in layout.summary
        assert not layout.summary.endswith(".")


def inputs(name: str, **options: Any) -> Any:
    """What the smallest input of a kind holds."""
    return imported(DATA / "cases" / "inputs" / name, **options)[0]


@pytest.mark.ref
@needs_data
def test_the_smallest_file_of_torch() -> None:
    """SGLang's counts [steps, layers, experts]."""
    pytest.importorskip("torch")
    trace = inputs("sglang_stat.pt")
    assert isinstance(trace, CountsTrace)
    assert trace.count.shape == (2, 3, 8)
    assert trace.count[0, 0].tolist() == [8, 1, 6, 8, 2, 2, 6, 5]


@needs_data
def test_the_smallest_counts_of_users() -> None:
    """Two forms of SGLang and a plain array, with their layers and loads."""
    whole_run = inputs("sglang_logical_count.json")
    assert (whole_run.layer_ids, whole_run.count.tolist()) == ((1,), [[[5, 3, 1, 0, 9, 2, 2, 2]]])
    table = inputs("sglang_expert_distribution.csv")
    assert (table.layer_ids, table.count.sum(axis=(0, 2)).tolist()) == ((3, 4), [77_617, 100])
    hotness = inputs("hotness.npy")
    assert np.array_equal(hotness.count, np.load(DATA / "cases" / "inputs" / "hotness.npy"))


@needs_data
def test_the_smallest_choices_of_users() -> None:
    """llama.cpp, moe-balance, vLLM: ids, phases, warm-up left out."""
    selected = inputs("llamacpp_expert_selection.csv")
    assert (selected.layer_ids, selected.expert.tolist()) == (
        (3,),
        [[[52, 40, 85, 110, 79, 113, 60, 130], [32, 115, 108, 7, 141, 124, 11, 3]]],
    )
    batch = inputs("moe_balance_trace.jsonl")
    assert (batch.expert.tolist(), batch.step.tolist()) == ([[[3, 7], [7, 3], [2, 5], [2, 6]]], [12] * 4)
    sequence = inputs("vllm_routed_experts.npz")
    assert sequence.expert[:, 0].tolist() == [[4, 7], [1, 3], [1, 0]]
    assert sequence.phase.tolist() == [0, 0, 0, 1, 1]
    routes = inputs("vllm_routes.jsonl")
    assert routes.expert[0, :, 0].tolist() == [16, 37, 27, 56]


@needs_data
def test_the_smallest_logits_of_users() -> None:
    """[tokens, experts] of layer 0."""
    trace = inputs("router_logits_layer0.npy")
    assert isinstance(trace, LogitsTrace)
    assert np.array_equal(trace.logits[0], np.load(DATA / "cases" / "inputs" / "router_logits_layer0.npy"))


@needs_data
def test_the_smallest_response_needs_its_model() -> None:
    """Four numbers are one token of two layers and two choices, or many other things."""
    with pytest.raises(TraceError, match="--model"):
        inputs("sglang_routed_experts_response.json")
    trace = inputs("sglang_routed_experts_response.json", model=MODEL)
    assert (trace.layer_ids, trace.expert.tolist()) == ((1, 2), [[[0, 1]], [[2, 3]]])


@needs_data
@pytest.mark.parametrize("name", ["trtllm_moe_load_balancer.yaml", "vllm_ascend_expert_map.json"])
def test_the_smallest_placements_are_named(name: str) -> None:
    """They are not recordings."""
    with pytest.raises(TraceError, match=rf"{name}: found a placement"):
        inputs(name)


@needs_data
@pytest.mark.parametrize("name", ["config_qwen3_fp8.json", "config_kimi_k2_is_deepseek_v3.json"])
def test_the_configuration_of_a_model_is_named(name: str) -> None:
    """With the command that takes it."""
    with pytest.raises(TraceError, match=rf"{name}: found the configuration of a model.*moesim describe"):
        inputs(name)
