"""Capacity policies and balancers in a whole run: what they do to loads, drops and bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Result, Scenario, simulate
from moesim.errors import ScenarioError
from moesim.routing import STRATEGIES
from moesim.simulation import check

BASE = """
model: olmoe-1b-7b
cluster: {gpu: h100-sxm, nodes: 4, gpus_per_node: 2}
workload: {steps: 2, tokens_per_gpu: 64, popularity: {exponent: 0.6}}
"""


def run(folder: Path, **overrides: Any) -> Result:
    """Simulate the small scenario; dots of a field are written as __."""
    path = folder / "small.yaml"
    path.write_text(BASE)
    return simulate(Scenario.from_yaml(path, overrides={name.replace("__", "."): v for name, v in overrides.items()}))


def capacity(overflow: str, **more: Any) -> dict[str, Any]:
    """A capacity that the popular experts exceed."""
    return {"factor": 1.0, "overflow": overflow, "scope": "global", **more}


@pytest.mark.parametrize(
    "overflow, cause",
    [
        ("reroute-to-next", "to_next_choice"),
        ("reroute-to-best", "to_best_with_room"),
        ("expanded-drop", "to_local_expert"),
    ],
)
def test_rerouting_serves_what_dropping_loses(tmp_path: Path, overflow: str, cause: str) -> None:
    """Fewer drops, each rerouted assignment with its cause, requested loads as before."""
    drop = run(tmp_path, routing__capacity=capacity("drop-by-position"))
    got = run(tmp_path, routing__capacity=capacity(overflow))
    assert drop.summary["drop_rate"] > 0.1
    assert got.summary["drop_rate"] < drop.summary["drop_rate"]
    assert got.summary["reroute_rate"] == pytest.approx(got.summary["by_cause"][cause])
    assert got.summary["by_cause"]["over_capacity"] == pytest.approx(got.summary["drop_rate"])
    if overflow == "reroute-to-best":  # places for all, but not for an expert twice
        assert got.summary["drop_rate"] < 0.005
        assert got.experts["processed"].max() == 64
    np.testing.assert_array_equal(got.experts["requested"], drop.experts["requested"])


def test_a_drop_can_be_left_to_the_shared_expert(tmp_path: Path) -> None:
    """Only for models that have one; the cause says so."""
    path = tmp_path / "shared.yaml"
    path.write_text(BASE.replace("olmoe-1b-7b", "deepseek-v3").replace("nodes: 4, gpus_per_node: 2", "nodes: 4"))
    policy = capacity("drop-by-position", factor=0.5, fallback="shared-expert")
    got = simulate(Scenario.from_yaml(path, overrides={"routing.capacity": policy, "workload.steps": 1}))
    assert got.summary["by_cause"]["to_shared_expert"] == pytest.approx(got.summary["drop_rate"])
    assert got.summary["drop_rate"] > 0.4


def test_padding_costs_bytes_and_time_but_serves_nobody(tmp_path: Path) -> None:
    """Every expert computes its capacity of every rank: the loads stay, the traffic becomes even."""
    policy = {"factor": 2.0, "scope": "source-rank"}
    plain = run(tmp_path, routing__capacity=policy)
    padded = run(tmp_path, routing__capacity={**policy, "pad": True})
    for column in ("requested", "processed", "dropped"):
        np.testing.assert_array_equal(plain.experts[column], padded.experts[column])
    assert padded.summary["step_time_s"]["mean"] > plain.summary["step_time_s"]["mean"]
    assert padded.links["bytes"].sum() > plain.links["bytes"].sum()
    assert padded.summary["imbalance_penalty"] == pytest.approx(1, abs=0.01)
    assert padded.summary["balancedness"] == plain.summary["balancedness"]


def test_evaluation_has_a_factor_of_its_own(tmp_path: Path) -> None:
    """Used unless the phase is train."""
    policy = {"factor": 1.0, "evaluation_factor": 2.0}
    plain = {"routing__capacity": {"factor": 2.0}}
    both = {"routing__capacity": policy}
    assert run(tmp_path, **both).summary["drop_rate"] == run(tmp_path, **plain).summary["drop_rate"]
    train = {"workload__phase": "train", "workload__sequence_tokens": 32}
    assert run(tmp_path, **both, **train).summary["drop_rate"] > run(tmp_path, **plain, **train).summary["drop_rate"]


@pytest.mark.parametrize("strategy", ["softmax-top-k", "top-p"])
def test_node_limited_routing_crosses_fewer_nodes(tmp_path: Path, strategy: str) -> None:
    """For a gate with groups of its own and for a router without; one node of four holds a quarter of the experts."""
    routing = {"routing__strategy": strategy, "routing__parameters": {}}
    free = run(tmp_path, **routing)
    limited = run(tmp_path, **routing, routing__substitution={"policy": "node-limited", "nodes": 2})
    assert limited.summary["bytes"]["across_nodes"] < 0.75 * free.summary["bytes"]["across_nodes"]
    assert limited.summary["drop_rate"] == 0


def test_trading_near_equal_experts_evens_the_load(tmp_path: Path) -> None:
    """The lower the threshold the more, over blocks of tokens too."""
    path = {"workload__tokens_per_gpu": 256}
    violation = [
        run(tmp_path, routing__substitution={"policy": "least-loaded", "threshold": t}, **path).summary["max_violation"]
        for t in (1.0, 0.7, 0.4)
    ]
    assert run(tmp_path, **path).summary["max_violation"] == violation[0]
    assert violation[0]["mean"] > violation[1]["mean"] > violation[2]["mean"]


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"routing.substitution": {"policy": "node-limited", "nodes": 5}}, "nodes: found 5, wanted 1 to the 4 nodes"),
        (
            {"routing.substitution": {"policy": "node-limited", "nodes": 1}, "routing.top_k": 17},
            r"nodes: found 1, wanted nodes that hold top_k \(17\)",
        ),
        (
            {
                "routing.substitution": {"policy": "node-limited", "nodes": 2},
                "routing.parameters": {"n_group": 8, "topk_group": 4},
            },
            "substitution.policy: found node-limited, wanted another: the router has 8 groups",
        ),
        (
            {"routing.substitution": {"policy": "node-limited", "nodes": 2}, "placement.redundant_experts": 8},
            "found node-limited, wanted a placement of consecutive experts",
        ),
        (
            {"routing.substitution": {"policy": "node-limited", "nodes": 2}, "routing.strategy": "random"},
            "found node-limited, wanted another: random does not choose by logits alone",
        ),
        (
            {"routing.substitution": {"policy": "node-limited", "nodes": 9}},
            "^override routing.substitution: routing.substitution",
        ),
        (
            {"routing.substitution": {"policy": "least-loaded"}, "workload.sampling": "direct"},
            "sampling: .*substitution",
        ),
        ({"routing.capacity": capacity("reroute-to-best"), "workload.sampling": "direct"}, "sampling: .*reroute"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, overrides: dict[str, Any], message: str) -> None:
    """With the field."""
    path = tmp_path / "small.yaml"
    path.write_text(BASE)
    with pytest.raises(ScenarioError, match=message):
        check(Scenario.from_yaml(path, overrides=overrides))


def test_zero_computation_experts_cost_no_work_and_no_bytes(tmp_path: Path) -> None:
    """Half as many again among the logits take about a third of the choices; the others' logits stay as they are."""
    plain = run(tmp_path, routing__strategy="longcat", routing__parameters={})
    got = run(tmp_path, routing__strategy="longcat", routing__parameters={"n_zero_experts": 32})
    assert plain.summary["zero_computation_rate"] is None
    share = got.summary["zero_computation_rate"]
    assert 0.2 < share < 0.45
    requested = got.experts["requested"].sum()
    assert requested == pytest.approx((1 - share) * plain.experts["requested"].sum(), rel=1e-6)
    assert got.summary["bytes"]["across_nodes"] < 0.9 * plain.summary["bytes"]["across_nodes"]
    assert got.summary["step_time_s"]["mean"] < plain.summary["step_time_s"]["mean"]
    capped = run(
        tmp_path,
        routing__strategy="longcat",
        routing__parameters={"n_zero_experts": 32},
        routing__capacity=capacity("reroute-to-best", factor=0.5),
    )
    assert capped.summary["reroute_rate"] > 0


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_every_strategy_runs_from_a_scenario(tmp_path: Path, strategy: str) -> None:
    """With the parameters' defaults and a top_k that it takes."""
    top_k = {"switch": 1, "base": 1, "gshard": 2, "moe-plus-plus": 2}.get(strategy, 8)
    got = run(tmp_path, routing__strategy=strategy, routing__top_k=top_k, routing__parameters={}, workload__steps=1)
    assert got.summary["step_time_s"]["mean"] > 0
    path = tmp_path / "resolved.yaml"
    path.write_text(got.scenario_yaml)
    check(Scenario.from_yaml(path))


TRAINED = [("base", {"training": False}), ("sinkhorn", {"training": False}), ("noisy-top-k", {"noise_std": 0.0})]


@pytest.mark.parametrize("strategy, at_inference", TRAINED)
def test_what_routers_do_in_training_only_they_do_where_the_phase_is_train(
    strategy: str, at_inference: dict[str, Any]
) -> None:
    """In decode and prefill they are plain top-1, whose MaxVio in decode is 0.856; what is written holds anywhere."""
    scenario = {
        "model": {"preset": "mixtral-8x7b"},
        "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 8},
        "workload": {"steps": 2, "tokens_per_gpu": 64, "popularity": {"exponent": 0.5}},
        "routing": {"strategy": strategy, "top_k": 1},
    }

    def violation(phase: str, **parameters: Any) -> float:
        written: dict[str, Any] = {"routing.parameters": parameters, "workload.phase": phase}
        written |= {} if phase == "decode" else {"model.n_layers": 2}
        return float(simulate(Scenario.from_dict(scenario, overrides=written)).summary["max_violation"]["mean"])

    in_training = {key: type(value)(1 - value) for key, value in at_inference.items()}
    plain, trained = violation("decode", **at_inference), violation("decode", **in_training)
    assert plain == pytest.approx(0.856, abs=5e-4)
    assert trained == 0 if strategy == "base" else trained < plain
    assert violation("decode") == plain
    assert violation("prefill") == violation("prefill", **at_inference)
    assert violation("train") == violation("train", **in_training) != violation("train", **at_inference)
