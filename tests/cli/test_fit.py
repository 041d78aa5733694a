"""`moesim fit`, and a run from what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from moesim.recordings import write_trace
from moesim.types import LogitsTrace, Trace, token_columns
from tests.cli.conftest import Call


@pytest.fixture
def trace(folder: Path) -> Path:
    """Two sequences of 64 tokens in two layers, top-2 of 8; every second token takes experts 0 and 1."""
    rng = np.random.default_rng(0)
    expert = rng.random((2, 128, 8)).argsort(axis=2)[..., :2].astype(np.int32)
    expert[:, ::2] = [0, 1]
    columns = token_columns(128, sequence=np.arange(128) // 64)
    write_trace(
        Trace(expert=expert, weight=None, **columns, layer_ids=(0, 1), n_experts=8), folder / "recorded.parquet"
    )
    return folder / "recorded.parquet"


def test_a_fit_is_written_and_run(moesim: Call, trace: Path, folder: Path) -> None:
    """The hottest experts are hot in the run too."""
    outcome = moesim("fit", trace, "-o", "fit.yaml", "--source", "a test")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("wrote fit.yaml: 2 layers of 8 experts\n  shares    MaxVio ")
    assert "source: a test\n" in (folder / "fit.yaml").read_text(encoding="utf-8")
    (folder / "mine.yaml").write_text(
        "scenario_version: 1\nmodel: {preset: mixtral-8x7b, n_layers: 2}\ncluster: {gpu: h100-sxm, gpus_per_node: 8}\n"
        "workload: {steps: 1, tokens_per_gpu: 256, popularity: {from: fit.yaml}}\n",
        encoding="utf-8",
    )
    summary = json.loads(moesim("run", "mine.yaml", "--json").out)
    assert 1.0 < summary["max_violation"]["mean"] < 2.0
    manifest = json.loads((folder / "results" / "mine" / "manifest.json").read_text(encoding="utf-8"))
    assert "fitted to a recording: fit.yaml" in json.dumps(manifest)


def test_a_fit_replaces_a_fit_and_nothing_else(moesim: Call, trace: Path, folder: Path) -> None:
    """Nothing is read before that is known."""
    assert [moesim("fit", trace, "-o", "fit.yaml", "--quiet").code for _ in range(2)] == [0, 0]
    (folder / "mine.yaml").write_text("mine: 1\n", encoding="utf-8")
    outcome = moesim("fit", "absent.parquet", "-o", "mine.yaml")
    assert outcome.code == 2
    assert outcome.err == "error: mine.yaml: exists and was not written by moesim fit, so it is not replaced\n"
    assert (folder / "mine.yaml").read_text(encoding="utf-8") == "mine: 1\n"


def test_what_cannot_be_fitted_leaves_no_file(moesim: Call, folder: Path) -> None:
    """Logits, whose router is not known; a file that is not there."""
    logits = np.zeros((1, 32, 4), dtype=np.float32)
    write_trace(LogitsTrace(logits=logits, **token_columns(32), layer_ids=(0,), n_experts=4), folder / "logits.parquet")
    for name in ("logits.parquet", "absent.parquet"):
        outcome = moesim("fit", name, "-o", "fit.yaml")
        assert (outcome.code, outcome.out) == (2, "")
        assert len(outcome.err.splitlines()) == 1
    assert not (folder / "fit.yaml").exists()
