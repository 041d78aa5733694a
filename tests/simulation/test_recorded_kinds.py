"""Runs of recorded steps, counts and logits, from a trace in parquet to the summary."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Scenario, simulate
from moesim.errors import InputError
from moesim.recordings import import_recordings, write_trace
from moesim.types import CountsTrace, LogitsTrace, Recording, Trace, token_columns
from tests.simulation.small import small

N_EXPERTS = 8


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Runs the small scenario, two MoE layers of 8 experts and top-2 on 4 GPUs, on a trace."""

    def simulated(trace: Recording, *, workload: dict[str, Any] | None = None, **changes: Any) -> Any:
        write_trace(trace, tmp_path / "t.parquet")
        workload = {"trace": str(tmp_path / "t.parquet"), **(workload or {})}
        return simulate(small(workload=workload, keep={"experts": "steps"}, **changes))

    return simulated


def choices(n_tokens: int, **columns: Any) -> Trace:
    """Token t wants experts t and t + 1, in two layers; without weights."""
    expert = np.stack([(np.arange(n_tokens)[:, None] + [0, 1]) % N_EXPERTS] * 2).astype(np.int32)
    known = token_columns(n_tokens, **columns)
    return Trace(expert=expert, weight=None, layer_ids=(0, 1), n_experts=N_EXPERTS, **known)


def test_counts_give_loads_and_say_that_bytes_are_estimated(run: Any) -> None:
    """Two recorded steps; every expert gets exactly what was counted."""
    count = np.array([[[9, 5, 4, 3, 2, 1, 1, 1], [4] * 8], [[4] * 8, [0, 0, 8, 8, 4, 4, 0, 2]]])
    trace = CountsTrace(
        count=count, step=np.arange(2), phase=np.full(2, -1, np.int8), layer_ids=(0, 1), n_experts=N_EXPERTS
    )
    result = run(trace, workload={"trace_steps": "recorded", "steps": 2})
    frame = result.experts.sort_values(["step", "layer", "expert"])
    assert frame["requested"].to_numpy().reshape(count.shape).tolist() == count.tolist()
    assert result.manifest["provenance"]["bytes"].startswith("estimated: the recording holds counts")
    assert result.summary["unrouted_token_rate"] == 0
    whole = run(trace).experts.sort_values(["layer", "expert"])
    assert whole["requested"].tolist() == count.sum(axis=0).ravel().tolist()
    with pytest.raises(InputError, match="no strategy"):
        run(trace, routing={"strategy": "switch"})
    with pytest.raises(InputError, match="does not rank by weight"):
        run(trace, routing={"capacity": {"factor": 1.0, "overflow": "drop-by-priority"}})


def test_logits_are_routed_by_any_strategy(run: Any) -> None:
    """One of two layers is recorded: expert t is the best of token t, the next one the second."""
    logits = -((np.arange(N_EXPERTS) - np.arange(16)[:, None]) % N_EXPERTS).astype(np.float32)[None]
    trace = LogitsTrace(logits=logits, layer_ids=(1,), n_experts=N_EXPERTS, **token_columns(16))
    result = run(trace)
    assert (result.summary["moe_layers"], result.summary["recorded_layers"]) == (2, 1)
    assert result.experts["requested"].tolist() == [4] * 8
    assert result.summary["max_violation"]["mean"] == 0
    first = run(trace, routing={"strategy": "switch", "top_k": 1})
    assert first.experts["requested"].tolist() == [2] * 8
    wide = LogitsTrace(logits=np.zeros((1, 2, 9), np.float32), layer_ids=(1,), n_experts=9, **token_columns(2))
    with pytest.raises(InputError, match="found logits of 9 experts, wanted 8"):
        run(wide)


def test_steps_as_recorded(run: Any) -> None:
    """Steps of 8, 2 and 1 tokens on 4 GPUs; recorded phases and positions tell prompts from decoding sequences."""
    step = np.repeat([7, 8, 9], [8, 2, 1])
    plain = run(choices(11, step=step), workload={"trace_steps": "recorded", "steps": 4})
    assert plain.steps["tokens"].tolist() == [8, 2, 1, 8]
    assert plain.manifest["trace_passes"] == pytest.approx(4 / 3)
    columns = {"step": step, "phase": np.repeat([0, 1, 1], [8, 2, 1]), "position": np.r_[0:8, 8, 30_000, 9]}
    known = run(choices(11, **columns), workload={"trace_steps": "recorded", "steps": 3})
    attention = known.steps["step_time_s"].tolist()
    assert attention[1] > attention[2]  # a sequence of 30,000 cached tokens
    with pytest.raises(InputError, match="the trace does not say which tokens were of one step"):
        run(choices(11), workload={"trace_steps": "recorded"})
    with pytest.raises(InputError, match="each says how many tokens a step has"):
        run(choices(11, step=step), workload={"trace_steps": "recorded", "tokens_per_gpu": 2})


def test_a_policy_that_ranks_by_weights_needs_them(run: Any) -> None:
    """Ids alone do not say which token has the better claim; by position one of the 4 choices of a rank is refused."""
    with pytest.raises(InputError, match="the trace has no weights"):
        run(choices(8), routing={"capacity": {"factor": 1.0, "overflow": "drop-by-probability"}})
    assert run(choices(8), routing={"capacity": {"factor": 1.0}}).summary["drop_rate"] == 0.25


@pytest.mark.slow
@pytest.mark.skipif("MOESIM_DATA" not in os.environ, reason="MOESIM_DATA names no folder of recordings")
def test_the_served_deepseek_has_its_recorded_imbalance(tmp_path: Path) -> None:
    """The figures of the README; tokens_per_gpu changes how finely the shares are rounded, and nothing else."""
    folder = Path(os.environ["MOESIM_DATA"]) / "traces" / "routing"
    recording = folder / "deepseek_v3_sglang_ep_statistics_decode_in2000out100.json.gz"
    import_recordings([recording], tmp_path / "t.parquet")
    scenario = {
        "model": "deepseek-v3",
        "cluster": {"gpu": "h100-sxm", "nodes": 4, "gpus_per_node": 8},
        "workload": {"phase": "decode", "trace": str(tmp_path / "t.parquet"), "tokens_per_gpu": 64, "steps": 1},
    }
    summary = simulate(Scenario.from_dict(scenario)).summary
    assert round(summary["max_violation"]["mean"], 2) == 5.07
    assert round(summary["balancedness"]["mean"], 2) == 0.43
