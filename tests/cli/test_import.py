"""`moesim import`, and the replay of what it wrote."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call

LAYERS, TOKENS = 32, 16


def record(token: int, layer: int) -> dict[str, object]:
    """The choices of one token in one layer, as a line of a recording."""
    first = (token + layer) % 8
    experts, weights = [first, (first + 3) % 8], [0.75, 0.25]
    return {"problem_id": 1, "token_idx": token, "layer": layer, "experts": experts, "gating_probs": weights}


@pytest.fixture
def recording(folder: Path) -> Path:
    """A compressed recording of 16 tokens in all layers of Mixtral."""
    path = folder / "recording.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for token in range(TOKENS):
            file.writelines(json.dumps(record(token, layer)) + "\n" for layer in range(LAYERS))
    return path


def test_a_recording_becomes_a_trace_that_is_replayed(moesim: Call, small: Path, recording: Path, folder: Path) -> None:
    """The loads of the run are those of the recorded choices."""
    outcome = moesim("import", recording, "-o", "trace.parquet")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "wrote trace.parquet: choices, 16 tokens of 1 sequence, 32 layers, top-2 of 8 experts (jsonl)\n"
    )
    summary = json.loads(moesim("run", small, "--json", "--set", "workload.trace=trace.parquet").out)
    assert summary["max_violation"]["mean"] == 0  # the recording above deals experts evenly
    assert summary["drop_rate"] == 0


def test_what_was_not_recorded_is_said(moesim: Call, folder: Path) -> None:
    """One of four pairs of token and layer is missing; a note says so, unless it is asked to be quiet."""
    (folder / "holes.jsonl").write_text(
        "\n".join(json.dumps(record(token, layer)) for token, layer in ((0, 0), (0, 1), (1, 0))), encoding="utf-8"
    )
    outcome = moesim("import", "holes.jsonl")
    assert outcome.code == 0
    assert outcome.out.splitlines()[1].startswith("note: 1 of 4 (token, layer) pairs")
    assert moesim("import", "holes.jsonl", "--quiet").out == ""


def test_ids_of_slots_need_their_map(moesim: Call, recording: Path, folder: Path) -> None:
    """Lines of choices have no map from slots to experts, so that slots are refused and experts are taken."""
    outcome = moesim("import", recording, "--ids", "physical")
    assert outcome.code == 2
    assert "ids: found physical, wanted logical, as recordings of jsonl have no map" in outcome.err
    assert not (folder / "trace.parquet").exists()
    assert moesim("import", recording, "--ids", "logical").code == 0


def test_another_model_than_the_recorded_one_is_told(moesim: Call, recording: Path) -> None:
    """DeepSeek-V3 makes eight choices; nothing is said of the right model."""
    out = moesim("import", recording, "--model", "deepseek-v3").out
    assert "note: the recording has 2 choices of a token, deepseek-v3 makes 8" in out
    assert "note" not in moesim("import", recording, "--model", "mixtral-8x7b").out


def test_a_wrong_line_is_named_and_nothing_is_written(moesim: Call, folder: Path) -> None:
    """The error has the file and the number of the line."""
    (folder / "wrong.jsonl").write_text('{"problem_id": 1}\n', encoding="utf-8")
    outcome = moesim("import", "wrong.jsonl")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: wrong.jsonl:1: ")
    assert [path.name for path in folder.iterdir()] == ["wrong.jsonl"]


def test_a_truncated_archive_is_one_line(moesim: Call, recording: Path) -> None:
    """The last 20 bytes of the archive are cut off."""
    recording.write_bytes(recording.read_bytes()[:-20])
    outcome = moesim("import", recording)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("output", ["recording.jsonl.gz", "link.gz", "small.yaml", "table.parquet", "."])
def test_only_a_trace_is_replaced_by_another(
    moesim: Call, small: Path, recording: Path, folder: Path, output: str
) -> None:
    """No input, link, scenario, foreign table or folder is overwritten."""
    import pandas as pd

    pd.DataFrame({"a": [1]}).to_parquet(folder / "table.parquet")
    (folder / "link.gz").symlink_to(recording)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    outcome = moesim("import", recording, "-o", output)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {output}: exists and is no trace of moesim, so it is not replaced")
    assert outcome.err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [moesim("import", recording, "-o", "t.parquet").code for _ in range(2)] == [0, 0]


def test_a_trace_that_does_not_fit_says_what_does_not(moesim: Call, small: Path, recording: Path) -> None:
    """Whoever states the other number is named: the scenario's router or its model."""
    moesim("import", recording, "-o", "t.parquet")
    trace = ("--set", "workload.trace=t.parquet")
    by_hand = moesim("show", small, *trace, "--set", "routing.top_k=1").err
    assert "found 2 top_k, wanted 1, as routing.top_k says" in by_hand
    by_model = moesim("show", small, *trace, "--set", "model.top_k=1").err
    assert "found 2 top_k, wanted 1, as model mixtral-8x7b (changed) has" in by_model
