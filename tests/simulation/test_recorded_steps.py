"""Steps of recorded tokens: one whose time can be worked by hand, and a real recording."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from moesim import Scenario, simulate
from moesim.errors import InputError
from moesim.recordings import import_recordings
from moesim.simulation.prepare import prepare
from moesim.types import Batch, equal_decodes
from tests.simulation.small import SMALL, small


def balanced_recording(folder: Path, *, tokens: int, layers: int) -> Path:
    """Every expert of 8 gets the same number of tokens from every run of 8 tokens."""
    import json

    lines = [
        {
            "problem_id": 0,
            "token_idx": t,
            "layer": layer,
            "experts": [t % 8, (t + 1) % 8],
            "gating_probs": [0.5, 0.5],
        }
        for t in range(tokens)
        for layer in range(layers)
    ]
    (folder / "r.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    import_recordings([folder / "r.jsonl"], folder / "t.parquet")
    return folder / "t.parquet"


def test_perfectly_balanced_tokens_take_the_analytic_time(tmp_path: Path) -> None:
    """The step is the sum of its rounded parts, to the picosecond; nobody waits; the imbalance penalty is 1.

    Each of 4 GPUs has 8 tokens and 2 experts; token t wants experts t and t + 1,
    so that every expert gets 2 tokens from every GPU, 8 in all.
    """
    trace = balanced_recording(tmp_path, tokens=32, layers=2)
    overrides = {"workload": {"trace": str(trace)}, "cluster.gpus_per_node": 4, "cluster.nodes": 1}
    scenario = Scenario.from_dict(SMALL, overrides=overrides)
    result = simulate(scenario)
    batch: Batch = prepare(scenario).source.batch(0)
    assert np.bincount(batch.source).tolist() == [8] * 4
    from moesim.hardware import exchange_rates, step_durations

    durations = step_durations(
        scenario.model,
        scenario.cluster,
        scenario.precision,
        equal_decodes(np.full(4, 8), 2048),
        slot_tokens=np.full((2, 8), 8),
        slot_rank=np.repeat(np.arange(4, dtype=np.int32), 2),
    )

    def ps(seconds: float) -> int:
        return int(np.ceil(np.round(seconds * 1e12, 3)))

    # experts t, t + 1 on ranks (t // 2, (t + 1) // 2) mod 4: even t one rank, odd t two, so each rank is sent 3 copies
    # by each source, its own included: 4 + 8 = 12 choices of ranks, 3 for each of 4; 3 others send it 9
    copies = 9
    dispatch, combine = exchange_rates(scenario.cluster, scenario.precision, scenario.model.hidden_size)
    exchanges = sum(int(e.latency_ps[0]) + copies * int(e.out_ps[0, 0]) for e in (dispatch, combine))
    moe = ps(durations.attention[0, 0]) + ps(durations.router[0, 0]) + ps(durations.experts[0, 0]) + exchanges
    dense = ps(durations.attention[1, 0]) + ps(durations.dense[1, 0])
    expected = 2 * moe + dense + ps(durations.head[0])
    assert round(result.steps.step_time_s[0] * 1e12) == expected
    assert result.summary["breakdown_s"]["wait"] == 0
    assert result.summary["imbalance_penalty"] == 1
    assert result.summary["max_violation"]["max"] == 0
    assert result.manifest["trace_passes"] == 1
    assert result.manifest["inputs"][0]["name"] == "t.parquet"
    assert str(tmp_path) in result.scenario_yaml
    assert str(tmp_path) not in result.report_html()


def test_a_trace_of_another_shape_is_refused(tmp_path: Path) -> None:
    """Layers and top_k must be the model's; a router cannot be asked of recorded choices."""
    trace = str(balanced_recording(tmp_path, tokens=8, layers=3))
    with pytest.raises(InputError, match="found 3 layers up to 2, wanted 2"):
        simulate(small(workload={"trace": trace}))
    trace = str(balanced_recording(tmp_path, tokens=8, layers=2))
    with pytest.raises(InputError, match="found 2 top_k, wanted 1"):
        simulate(small(workload={"trace": trace}, routing__top_k=1))
    with pytest.raises(InputError, match="its own router"):
        simulate(small(workload={"trace": trace}, routing__strategy="switch"))
    few = {"workload": {"trace": trace}, "model.n_experts": 4}
    with pytest.raises(InputError, match="found expert 7, wanted experts 0 to 3"):
        simulate(Scenario.from_dict(SMALL, overrides=few))


@pytest.mark.skipif("MOESIM_DATA" not in os.environ, reason="MOESIM_DATA names no folder of recordings")
def test_the_recorded_mixtral_is_simulated_end_to_end(tmp_path: Path) -> None:
    """The real tokens of a real router: 247 tokens, 15 choices fewer, loads as recorded."""
    source = Path(os.environ["MOESIM_DATA"]) / "traces" / "routing" / "mixtral_8x7b_gsm8k.jsonl.gz"
    import_recordings([source], tmp_path / "trace.parquet")
    scenario = Scenario.from_dict(
        {
            "model": "mixtral-8x7b",
            "cluster": {"gpu": "h100-sxm"},
            "workload": {"phase": "prefill", "trace": str(tmp_path / "trace.parquet")},
        }
    )
    result = simulate(scenario)
    assert result.steps.tokens.tolist() == [247]
    assert result.steps.requested.tolist() == [2 * (247 * 32 - 15)]
    assert 0.3 < result.summary["max_violation"]["mean"] < 1.0
    assert result.summary["imbalance_penalty"] > 1
