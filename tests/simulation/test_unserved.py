"""Tokens that no expert takes, and layers that a recording lacks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Result, Scenario, route, simulate
from moesim.recordings import import_recordings

RECORDING = Path(os.environ.get("MOESIM_DATA", "")) / "cases" / "inputs" / "mixtral_layer1_only.jsonl"


def expert_choice(**changes: Any) -> Scenario:
    """The reported scenario: the experts of OLMoE choose as many tokens as there are, one each."""
    return Scenario.from_dict(
        {
            "name": "ec",
            "seed": 1,
            "model": {"preset": "olmoe-1b-7b", "n_layers": 2, "top_k": 1},
            "routing": {"strategy": "expert-choice"},
            "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 2},
            "workload": {"phase": "train", "steps": 1, "tokens_per_gpu": 1024, "sequence_tokens": 1024},
        },
        overrides=changes,
    )


def test_tokens_that_no_expert_takes_are_dropped_tokens() -> None:
    """Expert choice leaves a fifth of them; nothing was asked of an expert in vain, so no assignment is dropped."""
    logits = np.random.default_rng(1).gumbel(size=(4096, 64)).astype(np.float32)
    chosen = route(logits, strategy="expert-choice", top_k=1)
    assert chosen.unrouted_tokens() == ((chosen.expert >= 0).sum(axis=1) == 0).sum() == 839
    assert (int(chosen.dropped.sum()), chosen.lost_tokens()) == (0, 0)
    summary = simulate(expert_choice()).summary
    assert summary["drop_rate"] == 0
    assert summary["token_drop_rate"] == summary["unrouted_token_rate"] == pytest.approx(0.2, abs=0.02)


def test_both_reasons_add_up() -> None:
    """ReLU with at most one expert: half of the tokens have no positive logit, a capacity drops some of the others."""
    relu = {"routing.strategy": "relu", "workload.popularity": {"kind": "uniform"}}
    without = simulate(expert_choice(**relu)).summary
    assert without["token_drop_rate"] == without["unrouted_token_rate"]
    tight = simulate(expert_choice(**relu, **{"routing.capacity": {"factor": 0.5}})).summary
    assert tight["unrouted_token_rate"] == without["unrouted_token_rate"]
    unrouted, dropped = tight["unrouted_token_rate"], tight["drop_rate"]
    assert tight["token_drop_rate"] == pytest.approx(unrouted + (1 - unrouted) * dropped, abs=1e-3)
    assert tight["drop_rate"] > 0.3


def test_routers_that_choose_for_every_token_leave_none() -> None:
    """A rate of 0, not an absent one; what capacity drops is no such token."""
    tight = simulate(expert_choice(**{"routing.strategy": "switch", "routing.capacity": {"factor": 1.0}})).summary
    assert tight["unrouted_token_rate"] == 0 < tight["token_drop_rate"] == tight["drop_rate"]


def test_a_token_of_an_expert_that_computes_nothing_is_served() -> None:
    """LongCat: such a token passes on unchanged, also where capacity refuses its other choices."""
    longcat = {"routing.strategy": "longcat", "routing.top_k": 2, "routing.parameters": {"n_zero_experts": 64}}
    summary = simulate(expert_choice(**longcat, **{"routing.capacity": {"factor": 0.01}})).summary
    assert summary["unrouted_token_rate"] == 0
    # of two choices among 64 + 64 experts a quarter of the tokens have no zero expert
    assert 0.2 < summary["token_drop_rate"] < 0.26
    assert summary["drop_rate"] > 0.9


def recorded(folder: Path, recording: Path, **changes: Any) -> Result:
    """The scenario of the case: two layers of Mixtral on eight GPUs, prefill."""
    import_recordings([recording], folder / "l1.parquet")
    return simulate(
        Scenario.from_dict(
            {
                "name": "unrecorded-layer",
                "model": {"preset": "mixtral-8x7b", "n_layers": 2},
                "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 8},
                "workload": {"phase": "prefill", "trace": str(folder / "l1.parquet")},
            },
            overrides=changes,
        )
    )


def check_layer_1_only(result: Result) -> None:
    """64 tokens ask two of eight experts: MaxVio 3; the other layer has no row and is in no mean."""
    summary = result.summary
    assert (summary["moe_layers"], summary["recorded_layers"]) == (2, 1)
    assert summary["max_violation"] == {"mean": 3.0, "max": 3.0}
    assert summary["max_violation_processed"] == {"mean": 3.0, "max": 3.0}
    assert summary["balancedness"] == summary["balancedness_requested"] == {"mean": 0.25, "min": 0.25}
    assert (summary["dead_experts"], summary["load_cv"]) == (6, pytest.approx(3**0.5))
    assert summary["load_entropy"] == pytest.approx(1 / 3)
    assert (summary["token_drop_rate"], summary["unrouted_token_rate"]) == (0, 0)
    assert set(result.layers["layer"]) == set(result.experts["layer"]) == {1}
    assert result.manifest["provenance"]["tokens"] == "measured: recorded routing of 1 of 2 MoE layers"
    assert "1 of 2 MoE layers are recorded" in result.report_html()


@pytest.mark.skipif(not RECORDING.is_file(), reason="MOESIM_DATA has no cases/inputs")
def test_the_recording_of_one_layer(tmp_path: Path) -> None:
    """The file of the case."""
    check_layer_1_only(recorded(tmp_path, RECORDING))


def test_layers_that_a_recording_lacks_are_in_no_mean(tmp_path: Path) -> None:
    """The same, written here; what capacity drops is of the tokens that are recorded."""
    row = {"problem_id": 0, "layer": 1, "experts": [0, 1], "gating_probs": [0.6, 0.4]}
    lines = [json.dumps({**row, "token_idx": token}) for token in range(64)]
    (tmp_path / "l1.jsonl").write_text("\n".join(lines))
    check_layer_1_only(recorded(tmp_path, tmp_path / "l1.jsonl"))
    capacity = {"routing.capacity": {"factor": 1.0, "scope": "global"}}
    summary = recorded(tmp_path, tmp_path / "l1.jsonl", **capacity).summary
    assert summary["token_drop_rate"] == summary["drop_rate"] == 0.75  # 16 of 64 have a place at each


def test_tokens_that_a_layer_lacks_are_not_unrouted(tmp_path: Path) -> None:
    """Half of the tokens are recorded in the first layer: nothing is known of the others there."""
    row = {"problem_id": 0, "experts": [2, 5], "gating_probs": [0.6, 0.4]}
    wanted = [(token, layer) for token in range(16) for layer in (0, 1) if layer or token % 2]
    lines = [json.dumps({**row, "token_idx": token, "layer": layer}) for token, layer in wanted]
    (tmp_path / "half.jsonl").write_text("\n".join(lines))
    summary = recorded(tmp_path, tmp_path / "half.jsonl").summary
    assert (summary["recorded_layers"], summary["unrouted_token_rate"], summary["token_drop_rate"]) == (2, 0, 0)
    capacity = {"routing.capacity": {"factor": 1.0, "scope": "global", "minimum": 4}}
    assert recorded(tmp_path, tmp_path / "half.jsonl", **capacity).summary["token_drop_rate"] == (0.5 + 0.75) / 2
