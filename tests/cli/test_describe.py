"""`moesim describe`: of a trace and of a recording."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Call


@pytest.fixture
def recording(folder: Path) -> Path:
    """64 tokens of two problems in two layers, top-2 of 4."""
    path = folder / "recording.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for problem in (0, 1):
            for token in range(32):
                for layer in (0, 1):
                    record = {"problem_id": problem, "token_idx": token, "layer": layer}
                    experts = [token % 4, (token + 1) % 4] if layer else [0, 1 + token % 3]
                    line = {**record, "experts": experts, "gating_probs": [0.75, 0.25]}
                    file.write(json.dumps(line) + "\n")
    return path


def test_a_recording_and_its_trace_are_described_alike(moesim: Call, recording: Path) -> None:
    """But for the name; the recording leaves nothing behind."""
    before = sorted(recording.parent.iterdir())
    of_recording = moesim("describe", recording, "--ep", "2")
    assert (of_recording.code, of_recording.err) == (0, "")
    assert of_recording.out.startswith("recording recording.jsonl;")
    assert sorted(recording.parent.iterdir()) == before
    moesim("import", recording, "-o", "trace.parquet")
    of_trace = moesim("describe", "trace.parquet", "--ep", "2")
    assert of_trace.out.split()[2:] == of_recording.out.split()[2:]
    assert max(map(len, of_trace.out.splitlines())) <= 80


def test_counts_say_nothing_of_the_ranks_of_a_token(moesim: Call, folder: Path) -> None:
    """They have no column of it, so that no line explains one."""
    np.save(folder / "counts.npy", np.array([[[3, 1, 2, 2]], [[1, 1, 4, 2]]]))
    out = moesim("describe", "counts.npy", "--ep", "2").out
    assert "balancedness: mean / max of the loads of 2 ranks." in out
    assert "ranks:" not in out


def test_the_numbers_by_json(moesim: Call, recording: Path) -> None:
    """Expert 0 of the first layer has half of the load: MaxVio 1, and one of two choices is always repeated."""
    found = json.loads(moesim("describe", recording, "--json").out)
    assert found["layers"][0]["load"][0] == 64
    assert found["layers"][0]["max_violation"]["value"] == pytest.approx(1.0)
    assert found["layers"][0]["overlap"]["value"] == pytest.approx(0.5)
    assert found["layers"][1]["max_violation"]["value"] == pytest.approx(0.0)


def test_the_report(moesim: Call, recording: Path, folder: Path) -> None:
    """A page that replaces its like, and nothing else."""
    outcome = moesim("describe", recording, "-o", "report.html")
    assert outcome.out.endswith("report: report.html\n")
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    (folder / "notes.html").write_text("mine")
    outcome = moesim("describe", recording, "-o", "notes.html")
    assert outcome.code == 2
    assert "was not written by moesim" in outcome.err
    assert "wanted a file that ends in .html" in moesim("describe", recording, "-o", "report.pdf").err
    assert not (folder / "report.pdf").exists()
    assert "only a recording has a report" in moesim("describe", "mixtral-8x7b", "-o", "model.html").err


def test_what_is_no_recording(moesim: Call, recording: Path) -> None:
    """One line and exit code 2; so for more ranks than experts."""
    outcome = moesim("describe", "absent.parquet")
    assert (outcome.code, outcome.out) == (2, "")
    assert len(outcome.err.splitlines()) == 1
    assert "ep: found 8, wanted 1 to the 4 experts" in moesim("describe", recording, "--ep", "8").err
