"""Fields without effect: where a rule says so nothing changes with the field, where it does not something does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moesim import Scenario, simulate
from moesim.recordings import import_recordings
from moesim.results.result import FRAMES
from moesim.scenario.merge import override
from moesim.scenario.no_effect import RULES

BASE: dict[str, Any] = {
    "seed": 3,
    "model": {"preset": "mixtral-8x7b", "n_layers": 2},
    "cluster": {"gpu": "h100-sxm", "nodes": 2, "gpus_per_node": 2},
    "workload": {"steps": 2, "tokens_per_gpu": 24, "popularity": {"exponent": 0.5}},
}
PREFILL, TRAIN = {"workload.phase": "prefill"}, {"workload.phase": "train"}

SOFTMAX = {"routing.strategy": "softmax-top-k"}
BY_WEIGHT = {"routing.capacity": {"factor": 0.6, "overflow": "drop-by-probability", "scope": "global"}}
TWO_BATCH = {"simulation.overlap": "two-batch"}
ALONE = {"cluster.nodes": 1, "cluster.gpus_per_node": 1}
QUEUED = {"simulation.experts": "queued"}
FACTOR = {"cluster.network.port_bandwidth_factor": [0.9, 1.0]}
RECORDED = {"workload.trace": "trace.parquet", "workload.popularity": None}
LOGNORMAL = {"workload.popularity.kind": "lognormal", "workload.popularity.sigma": 0.3}
HOT = {"workload.popularity.kind": "hot", "workload.popularity.share": 0.6, "workload.popularity.experts": 2}
SHARES = {"workload.popularity.kind": "shares"}
POWER, DIRICHLET = {"workload.popularity.kind": "power-law"}, {"workload.popularity.kind": "dirichlet"}
MAXVIO = {"max_violation": 1.0}
BURSTS = {"share": 0.5, "experts": 3, "every_steps": 1}
TOPICS = {"workload.topics": {"count": 4, "strength": 3.0}}
MIXTURE = [{"step": 0, "weights": [1]}]
DEAF = {"routing.strategy": "round-robin"}
SHARED = {"model.n_shared_experts": 1, "model.shared_intermediate_size": 4096}
MLA = {
    "model.attention": "mla",
    "model.kv_lora_rank": 512,
    "model.qk_nope_head_dim": 128,
    "model.qk_rope_head_dim": 64,
    "model.v_head_dim": 128,
}
NEXT = {"routing.capacity": {"factor": 1.0, "overflow": "reroute-to-next"}}
PRIORITY = {"routing.capacity": {"factor": 0.6, "overflow": "drop-by-priority", "scope": "global"}}
LEAST = {"routing.substitution": {"policy": "least-loaded"}}
LIMITED = {"routing.substitution": {"policy": "node-limited", "nodes": 1}}


def _balancing(mechanism: str, **more: Any) -> dict[str, Any]:
    own = {"mechanism": mechanism, "learning_rate": 0.1, **more}
    return {"routing.strategy": "deepseek-v3", "routing.training": own, "workload.steps": 4}


CASES: list[tuple[str, Any, Any, dict[str, Any] | None, dict[str, Any] | None]] = [
    # field, what is written, another value, a scenario where it is idle, one where it counts
    ("seed", 3, 4, RECORDED, RECORDED | {"routing.capacity": {"factor": 0.5, "overflow": "drop-at-random"}}),
    ("seed", 3, 4, None, RECORDED | {"faults": [{"kind": "compute-jitter", "cv": 0.2}]}),
    ("model.intermediate_size", 5000, 9000, {}, {"model.dense_layers": [0]}),
    ("model.n_shared_experts", 2, 3, {"model.preset": "deepseek-v3", "model.dense_layers": []}, None),
    ("model.n_kv_heads", 16, 8, MLA, {}),
    ("model.head_dim", 64, 128, MLA, {}),
    ("model.kv_lora_rank", 512, 1024, {}, MLA),
    ("model.qk_nope_head_dim", 64, 128, {}, MLA),
    ("model.qk_rope_head_dim", 32, 64, {}, MLA),
    ("model.router", "switch", "random", {"routing.strategy": "softmax-top-k"}, None),
    ("model.router", "softmax-top-k", "random", RECORDED, None),
    ("model.router", "softmax-top-k", "random", None, {}),
    ("model.weights_dtype", "fp8", "fp4", {"precision.weights": "bf16"}, None),
    ("model.weights_dtype", "fp8", "bf16", None, {}),
    ("model.dispatch_dtype", "fp8", "fp4", {"precision.dispatch": "bf16"}, None),
    ("model.dispatch_dtype", "fp8", "bf16", None, {}),
    ("precision.dispatch", "fp8", "bf16", ALONE, {}),
    ("precision.combine", "fp8", "bf16", {"parallelism.expert": 1}, {}),
    ("parallelism.attention_tp", 1, None, {}, {"parallelism.attention": "tensor"}),
    ("precision.combine", "fp8", "bf16", {"parallelism.expert": 1}, {"parallelism": {"expert": 1, "expert_tp": 2}}),
    ("placement.strategy", "round-robin", "contiguous", ALONE, {}),
    ("placement.strategy", "round-robin", "contiguous", ALONE | QUEUED, None),
    ("cluster.network.copies", "per-selection", "per-rank", QUEUED, {}),
    ("cluster.network.comm_sms", 20, 40, {"simulation.overlap": "shared-expert"} | SHARED, TWO_BATCH),
    ("cluster.network.port_bandwidth_factor", [0.5, 0.5], [0.9, 0.9], {}, {"simulation.network": "port"}),
    ("workload.context_tokens", 100, 8000, PREFILL, {}),
    ("workload.sequence_tokens", 8, 16, {}, PREFILL),
    ("workload.popularity.kind", "zipf", "uniform", RECORDED | {"workload.popularity": {"exponent": 1.0}}, {}),
    ("workload.popularity.exponent", 0.5, 1.5, {"workload.popularity.kind": "uniform"}, {}),
    ("workload.popularity.exponent", 0.5, 1.5, DEAF, DEAF | PRIORITY),
    ("workload.popularity.router", {"top_k": 1}, {"top_k": 2}, {}, LOGNORMAL),
    ("workload.popularity.sigma", 0.2, 0.4, {"workload.popularity.kind": "zipf"}, LOGNORMAL),
    ("workload.popularity.sigma", 0.2, 0.4, LOGNORMAL | DEAF, None),
    ("workload.popularity.groups", 2, 4, {}, LOGNORMAL | {"workload.popularity.group_exponent": 0.5}),
    ("workload.popularity.group_exponent", 0.2, 0.5, LOGNORMAL, LOGNORMAL | {"workload.popularity.groups": 2}),
    ("workload.popularity.group_sigma", 0.1, 0.3, LOGNORMAL, LOGNORMAL | {"workload.popularity.groups": 2}),
    ("workload.popularity.share", 0.5, 0.6, {"workload.popularity.kind": "uniform"}, HOT),
    ("workload.popularity.experts", 2, 3, {}, HOT),
    ("workload.popularity.counts", "one.json", "other.json", RECORDED, None),
    ("workload.popularity.from", "one.yaml", "other.yaml", RECORDED, None),
    ("workload.popularity.by_depth", True, False, {"workload.popularity.kind": "uniform"}, None),
    ("workload.popularity.exponent", 0.5, 1.5, {"routing.strategy": "random"}, DEAF | LEAST),
    ("workload.topics.count", 4, 5, {}, {"workload.topics.strength": 1.0}),
    ("workload.topics.count", 4, 5, {"routing.strategy": "hash", "workload.topics.strength": 1.0}, None),
    ("workload.topics.strength", 1.0, 2.0, {}, {"workload.topics.count": 4}),
    ("workload.topics.strength", 1.0, 2.0, RECORDED | {"workload.topics.count": 4}, None),
    ("workload.popularity.shares", [*range(8)], [*range(2, 10)], {"workload.popularity.kind": "zipf"}, SHARES),
    ("workload.popularity.alpha", 1.0, 1.2, {"workload.popularity.kind": "zipf"}, POWER),
    ("workload.popularity.concentration", 1.0, 9.0, {"workload.popularity.kind": "zipf"}, DIRICHLET),
    ("workload.popularity.target", MAXVIO, {"max_violation": 1.5}, {"workload.pattern": "balanced"}, {}),
    ("workload.popularity.exponent", 0.5, 1.5, {"workload.popularity.target": MAXVIO}, None),
    ("workload.locality", 0.5, 0.9, DEAF, {}),
    ("workload.drift", {"half_life_steps": 1}, {"half_life_steps": 2}, {"workload.popularity.kind": "uniform"}, {}),
    ("workload.bursts", BURSTS, BURSTS | {"experts": 2}, DEAF, {}),
    ("workload.generated_tokens", 1, 2, {}, TOPICS),
    ("workload.generated_tokens", 1, 2, PREFILL | TOPICS, {"workload.locality": 0.9}),
    ("workload.topics.mixture", MIXTURE, None, {"workload.topics": {"count": 1, "strength": 1.0}}, None),
    ("workload.topics.mixture", [{"step": 0, "weights": [1, 0, 0, 0]}], None, None, TOPICS),
    ("workload.locality", [0.5, 0.2], 0.9, RECORDED, None),
    ("workload.pattern.share", 0.4, 0.6, {"workload.pattern": "balanced"}, {"workload.pattern": "hot-rank"}),
    ("workload.pattern.experts", 2, 4, {"workload.pattern": "idle-rank"}, {"workload.pattern": "hot-experts"}),
    ("workload.pattern.rank", 1, 2, {"workload.pattern": "rotating-hot-spot"}, {"workload.pattern": "idle-rank"}),
    ("workload.pattern.every_steps", 1, 7, {"workload.pattern": "hot-rank"}, {"workload.pattern": "rotating-hot-spot"}),
    ("workload.pattern.duration_steps", 2, 10, {"workload.pattern": "hot-rank"}, {"workload.pattern": "burst"}),
    ("workload.pattern.factor", 1.2, 1.8, {"workload.pattern": "hot-rank"}, {"workload.pattern": "ragged-sources"}),
    ("routing.strategy", "softmax-top-k", "random", {"workload.pattern": "hot-rank"}, {}),
    ("routing.parameters", {"norm_topk_prob": True}, {}, {"workload.pattern": "hot-rank"} | SOFTMAX, None),
    ("workload.locality", 0.5, 0.9, {"workload.pattern": "hot-rank"}, None),
    ("workload.sampling", "logits", "auto", RECORDED, {"routing.strategy": "softmax-top-k"}),
    ("workload.trace_steps", "recorded", "whole", {}, None),
    ("routing.parameters", {"norm_topk_prob": True}, {"n_group": 2}, RECORDED, {"routing.strategy": "softmax-top-k"}),
    ("routing.parameters.norm_topk_prob", True, False, SOFTMAX | {"routing.capacity.factor": 0.6}, SOFTMAX | BY_WEIGHT),
    ("routing.parameters.norm_epsilon", 0.1, 0.5, SOFTMAX, None),
    ("routing.parameters.routed_scaling_factor", 2.0, 3.0, SOFTMAX, None),
    ("routing.parameters.group_score", "top-2-sum", "max", SOFTMAX, SOFTMAX | {"routing.parameters": {"n_group": 4}}),
    ("routing.parameters.masked_score", "0", "-inf", SOFTMAX, None),
    ("routing.parameters.n_ranks", 2, 1, DEAF, DEAF | {"routing.parameters.shuffled": False}),
    (
        "routing.capacity.evaluation_factor",
        1.0,
        0.5,
        TRAIN | {"routing.capacity.factor": 0.8},
        {"routing.capacity.factor": 0.8},
    ),
    ("routing.capacity.tries", 2, 1, {"routing.capacity.factor": 0.6}, NEXT),
    ("routing.substitution.threshold", 0.5, 0.9, LIMITED, LEAST),
    ("routing.substitution.nodes", 2, 1, LEAST, LIMITED),
    ("routing.training.from_step", 1, 2, _balancing("none"), _balancing("aux-loss")),
    ("routing.training.from_step", 4, 9, _balancing("aux-loss"), None),
    ("routing.training.step_size", 0.1, 1.0, _balancing("aux-loss"), _balancing("loss-free")),
    ("routing.training.rule", "sign", "proportional", _balancing("none"), _balancing("loss-free")),
    ("routing.training.coefficient", 0.1, 1.0, _balancing("loss-free"), _balancing("aux-loss")),
    ("routing.training.feedback_gain", 2.0, 9.0, _balancing("loss-free", learning_rate=0.0), _balancing("none")),
    ("routing.training.coefficient", 0.1, 1.0, _balancing("aux-loss", learning_rate=0.0), None),
    ("routing.training.learning_rate", 0.2, 0.9, _balancing("loss-free", feedback_gain=0.0), _balancing("none")),
    ("simulation.network", "port", "closed-form", QUEUED, {}),
    ("simulation.network", "port", "closed-form", ALONE, QUEUED | FACTOR),
    ("simulation.overlap", "shared-expert", None, {}, SHARED),
    ("simulation.overlap_slowdown", 0.1, 0.5, {}, TWO_BATCH),
    ("simulation.queue_overflow", "drop", None, QUEUED, None),
    ("simulation.queue_overflow", "drop", "next", None, QUEUED | {"simulation.queue_tokens": 2}),
    (
        "faults.0.level",
        "across_nodes",
        "within_node",
        None,
        {"simulation.network": "port", "faults": [{"kind": "slow-link", "factor": 9.0}]},
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty recorded tokens of two layers."""
    folder = tmp_path_factory.mktemp("trace")
    lines = [
        {"problem_id": 0, "token_idx": t, "layer": layer, "experts": [t * 3 % 8, (t * 3 + 1 + t % 5) % 8],
         "gating_probs": [0.6, 0.4]}
        for t in range(50) for layer in range(2)
    ]  # fmt: skip
    source = folder / "r.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    import_recordings([source], folder / "trace.parquet")
    return folder / "trace.parquet"


def _scenario(field: str, value: Any, setting: dict[str, Any], trace: Path) -> Scenario:
    changes = {name: str(trace) if name == "workload.trace" else own for name, own in setting.items()}
    data = override(BASE, changes, "test")
    if field.startswith("faults."):
        data["faults"][0][field.rpartition(".")[2]] = value
    else:
        data = override(data, {field: value}, "test")
    return Scenario.from_dict(data)


def _numbers(scenario: Scenario) -> str:
    result = simulate(scenario, threads=1)
    frames = {name: getattr(result, name).to_json(double_precision=15) for name in FRAMES}
    return json.dumps([result.summary, frames])


@pytest.mark.slow
@pytest.mark.parametrize("field, value, other, idle, counts", CASES)
def test_what_has_no_effect_has_none_and_what_has_one_shows(
    field: str, value: Any, other: Any, idle: Any, counts: Any, trace: Path
) -> None:
    """The numbers agree exactly where the notice stands."""
    if idle is not None:
        first, second = (_scenario(field, own, idle, trace) for own in (value, other))
        assert field in [notice.field for notice in first.warnings]
        assert _numbers(first) == _numbers(second)
    if counts is not None:
        first, second = (_scenario(field, own, counts, trace) for own in (value, other))
        assert field not in [notice.field for notice in first.warnings]
        assert _numbers(first) != _numbers(second)


def test_a_slow_link_that_no_message_takes() -> None:
    """One node has no links across nodes."""
    fault = {"kind": "slow-link", "level": "across_nodes", "factor": 9.0}
    data = override(BASE, {"simulation.network": "port", "cluster.nodes": 1, "faults": [fault]}, "test")
    scenario = Scenario.from_dict(data)
    (notice,) = scenario.warnings
    why = "no message goes across_nodes with nodes 1 and gpus_per_node 2"
    assert str(notice) == f"faults.0.level: found 'across_nodes', which has no effect: {why}"
    assert _numbers(scenario) == _numbers(scenario.with_overrides({"faults": []}))


def test_every_rule_is_shown_at_work() -> None:
    """The cases above hold one of each rule."""
    assert {field for field, *_ in CASES} == {*RULES, "faults.0.level"}
