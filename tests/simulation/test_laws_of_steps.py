"""Laws of whole steps over random scenarios: a token more, the GPU's peaks, and one question asked in two ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim import Result, Scenario, simulate
from moesim.scenario.presets import presets

MODEL = {
    "hidden_size": 1024,
    "n_layers": 2,
    "n_experts": 16,
    "top_k": 2,
    "moe_intermediate_size": 512,
    "vocab_size": 1000,
    "n_heads": 8,
    "n_kv_heads": 8,
    "head_dim": 64,
}
GPUS = sorted(presets("gpus"))

models = st.fixed_dictionaries(
    {
        "hidden_size": st.sampled_from([1024, 4096]),
        "n_experts": st.sampled_from([8, 32]),
        "top_k": st.sampled_from([1, 2, 4]),
        "moe_intermediate_size": st.sampled_from([512, 2048]),
    }
)
workloads = st.fixed_dictionaries(
    {
        "phase": st.sampled_from(["decode", "prefill", "train"]),
        "tokens_per_gpu": st.integers(1, 600),
        "popularity": st.sampled_from([{"exponent": 0.0}, {"exponent": 0.5}, {"kind": "lognormal", "sigma": 0.5}]),
    }
)
clusters = st.fixed_dictionaries(
    {"gpu": st.sampled_from(GPUS), "nodes": st.sampled_from([1, 2]), "gpus_per_node": st.sampled_from([2, 4])}
)


def run(
    model: dict[str, Any], cluster: dict[str, Any], workload: dict[str, Any], seed: int = 1, **overrides: Any
) -> Result:
    """One step, with fields that a double underscore parts."""
    document = {
        "scenario_version": 1,
        "seed": seed,
        "model": {**MODEL, **model},
        "cluster": cluster,
        "workload": {"steps": 1, **workload},
        "keep": {"timeline_steps": 0},
    }
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    return simulate(Scenario.from_dict(document, overrides=dotted), threads=1)


@settings(max_examples=4)
@given(model=models, cluster=clusters, workload=workloads)
def test_a_token_more_makes_no_step_faster(model: Any, cluster: Any, workload: Any) -> None:
    """Of the even control, whose loads do not depend on chance: neither the step nor its experts, by over 1 %."""
    more = {**workload, "tokens_per_gpu": workload["tokens_per_gpu"] + 1}
    one, other = (run(model, cluster, own, routing__strategy="round-robin").summary for own in (workload, more))
    assert other["step_time_s"]["mean"] >= 0.99 * one["step_time_s"]["mean"]
    assert other["breakdown_s"]["experts"] >= 0.99 * one["breakdown_s"]["experts"]


@settings(max_examples=4)
@given(model=models, cluster=clusters, workload=workloads)
def test_no_gpu_computes_above_its_peak_or_reads_above_its_bandwidth(model: Any, cluster: Any, workload: Any) -> None:
    """The experts of every GPU take at least what their products take at the published peak."""
    result = run(model, cluster, workload)
    shape, gpu = {**MODEL, **model}, presets("gpus")[cluster["gpu"]]
    weights = 3 * shape["hidden_size"] * shape["moe_intermediate_size"]
    flops = result.gpus["processed"].to_numpy() * 2 * weights
    peak = gpu["peak_tflops"]["bf16"] * 1e12
    assert (result.gpus["experts_s"].to_numpy() >= (flops / peak) * (1 - 1e-9)).all()
    active = (result.experts["processed"] > 0).sum() / len(result.gpus)
    read = active * weights * 2 / (gpu["memory_bandwidth_gb_per_s"] * 1e9)
    assert result.gpus["experts_s"].mean() >= read * (1 - 1e-9)


TWO_WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no skew": ({"workload__popularity": {"kind": "uniform"}}, {"workload__popularity": {"exponent": 0.0}}),
    "no topics": (
        {"workload__topics": {"count": 0, "strength": 0.5}},
        {"workload__topics": {"count": 8, "strength": 0}},
    ),
    "no limit": ({"routing__capacity": "none"}, {"routing__capacity": {"factor": 1000.0}}),
    "no copies": ({"placement": "none"}, {"placement": {"strategy": "contiguous", "redundant_experts": 0}}),
    "either interpreter": ({"simulation__engine": "simpy"}, {"simulation__engine": "compiled"}),
    "no fault": ({"faults": []}, {"faults": [{"kind": "slow-gpu", "gpu": 0, "factor": 1.0}]}),
    "all experts on one rank": ({"parallelism__expert": 1}, {"parallelism__expert": 1, "simulation__network": "port"}),
}


@pytest.mark.parametrize("question", sorted(TWO_WAYS))
@settings(max_examples=2)
@given(tokens=st.integers(1, 300), phase=st.sampled_from(["decode", "prefill"]))
def test_one_question_asked_in_two_ways_has_one_answer(question: str, tokens: int, phase: str) -> None:
    """To the last digit."""
    cluster, workload = {"gpu": "h100-sxm", "gpus_per_node": 4}, {"tokens_per_gpu": tokens, "phase": phase}
    one, other = (run({}, cluster, workload, **way) for way in TWO_WAYS[question])
    for part in ("step_time_s", "breakdown_s", "imbalance_penalty", "max_violation", "balancedness", "drop_rate"):
        assert one.summary[part] == other.summary[part], part
    np.testing.assert_array_equal(one.experts["processed"], other.experts["processed"])


@settings(max_examples=3)
@given(model=models, cluster=clusters, workload=workloads)
def test_a_resolved_scenario_gives_the_same_answer(model: Any, cluster: Any, workload: Any) -> None:
    """What a result was saved with is a scenario that makes it again."""
    result = run(model, cluster, workload)
    assert simulate(Scenario.from_dict(result.scenario), threads=1).summary == result.summary
