"""Runs of models whose layers differ: every layer takes the time of its own class."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moesim import Result, Scenario, simulate
from moesim.errors import ScenarioError
from moesim.hardware import Durations, step_durations
from moesim.simulation.prepare import prepare
from moesim.types import equal_decodes
from moesim.types.picoseconds import picoseconds

CONTEXT = 9000


def scenario(model: str, **changes: Any) -> Scenario:
    """Eight layers of a model on 8 H200, experts chosen at random, 16 tokens a GPU."""
    shape: dict[str, Any] = {"preset": model, "n_layers": 8, **changes}
    return Scenario.from_dict(
        {
            "model": shape,
            "cluster": {"gpu": "h200-sxm", "nodes": 1, "gpus_per_node": 8},
            "workload": {"steps": 1, "tokens_per_gpu": 16, "context_tokens": CONTEXT},
            "keep": {"timeline_steps": 1},
        }
    )


def seconds_of(result: Result, part: str) -> dict[int, int]:
    """Picoseconds of a part on the first GPU by layer."""
    tasks = result.timeline
    own = tasks[(tasks.kind == part) & (tasks.gpu == 0)]
    took = np.rint((own.end_s - own.start_s) * 1e12).astype(np.int64)
    return dict(zip(own.layer.tolist(), took.tolist(), strict=True))


def durations(made: Scenario) -> Durations:
    """Of a step of that scenario, with any loads of the experts."""
    plan = prepare(made)
    n_layers, n_slots = plan.placement.expert.shape
    return step_durations(
        plan.model,
        plan.cluster,
        plan.precision,
        equal_decodes(np.full(8, 16), CONTEXT),
        slot_tokens=np.ones((n_layers, n_slots), dtype=np.int64),
        slot_rank=plan.placement.rank,
        kernels=plan.kernels,
    )


@pytest.mark.parametrize("engine", ["compiled", "simpy"])
@pytest.mark.parametrize(
    "model, changes",
    [
        ("gpt-oss-20b", {}),
        ("llama-4-maverick", {"dense_layers": [0, 2, 4, 6], "n_experts": 8}),
        ("qwen3-next-80b-a3b", {"n_experts": 64}),
    ],
)
def test_every_layer_takes_the_time_of_its_class(engine: str, model: str, changes: dict[str, Any]) -> None:
    """As `step_durations` has it for the class; layers have just the parts that their class has."""
    made = scenario(model, **changes).with_overrides({"simulation.engine": engine})
    result, known = simulate(made), durations(made)
    assert len(made.model.layers) > 1
    classes = made.model.class_of_layer
    for part in ("attention", "router", "dense", "shared_experts"):
        by_class = picoseconds(getattr(known, part)[:, 0])
        found = seconds_of(result, part)
        assert found == {layer: by_class[classes[layer]] for layer in found}, part
        assert set(found) == {layer for layer in range(8) if by_class[classes[layer]]}
    assert len({*seconds_of(result, "attention").values()}) == 2


def test_a_window_that_never_binds_changes_nothing() -> None:
    """A window as long as the context; one of 128 tokens is faster."""
    plain = simulate(scenario("gpt-oss-20b", layers=[]))
    wide = simulate(scenario("gpt-oss-20b", layers=[{"every": 2, "window": CONTEXT}]))
    assert wide.summary["step_time_s"] == plain.summary["step_time_s"]
    assert simulate(scenario("gpt-oss-20b")).steps.step_time_s[0] < plain.steps.step_time_s[0]


OWN: dict[int, dict[str, Any]] = {
    0: {},
    1: {"top_k": 2},
    2: {"router": "deepseek-v3", "router_parameters": {"n_group": 4, "topk_group": 2}},
    3: {"router": "hash", "top_k": 3},
}
"""By layer what is other than in OLMoE: choices of a token, the router, or both."""


def routed(layers: list[dict[str, Any]], **routing: Any) -> Result:
    """A run of four layers of OLMoE with popular experts."""
    made = {
        "model": {"preset": "olmoe-1b-7b", "n_layers": 4, "layers": layers},
        "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 8},
        "workload": {
            "steps": 2,
            "tokens_per_gpu": 32,
            "popularity": {"kind": "zipf", "exponent": 0.8},
            "sampling": "logits",
        },
        "routing": routing,
    }
    return simulate(Scenario.from_dict(made))


def test_every_layer_routes_as_a_model_whose_layers_are_all_like_it() -> None:
    """Loads, drops and what else is said of a layer; the same tokens have the same logits in it."""
    capacity = {"capacity": {"factor": 1.5, "overflow": "drop-by-position"}}
    mixed = routed([{"first": layer, "every": 4, **own} for layer, own in OWN.items()], **capacity)
    for layer, own in OWN.items():
        alike = routed([own], **capacity)
        found, expected = (each.layers[each.layers.layer == layer] for each in (mixed, alike))
        assert found.requested.tolist() == [8 * 32 * own.get("top_k", 8)] * 2
        assert found.dropped.sum() > 0
        pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True))


def test_the_strategy_of_a_scenario_is_that_of_all_layers() -> None:
    """`routing.strategy` replaces the routers of all layers, and leaves their numbers of choices."""
    named = routed([{"first": 1, "router": "hash"}], strategy="mixtral")
    pd.testing.assert_frame_equal(named.layers, routed([], strategy="mixtral").layers)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"top_k": 65}, "model.layers.0.top_k: found 65, wanted at most the 64 experts"),
        ({"router": "hush"}, "model.layers: found hush, wanted"),
        ({"router": "longcat", "router_parameters": {"n_zero_experts": 8}}, "found 0 and 8, wanted routers that score"),
    ],
)
def test_routers_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    """At the layer that names them, or under the field that all layers share."""
    with pytest.raises(ScenarioError, match=re.escape(message)):
        routed([{"first": 1, **changes}])


@pytest.mark.parametrize("overlap", ["none", "two-batch"])
def test_blocks_of_attention_alone_and_networks_alone_run_in_both_engines(overlap: str) -> None:
    """A hybrid as Nemotron-H is: state spaces, heads and experts, each a block; both engines give the same steps."""
    hybrid = {
        "name": "hybrid",
        "hidden_size": 1024,
        "n_layers": 6,
        "dense_layers": [0, 2, 4],
        "n_experts": 16,
        "top_k": 2,
        "moe_intermediate_size": 512,
        "moe_latent_size": 256,
        "n_shared_experts": 1,
        "shared_intermediate_size": 1024,
        "gated": False,
        "vocab_size": 32000,
        "n_heads": 16,
        "n_kv_heads": 2,
        "head_dim": 64,
        "attention": "absent",
        "linear_key_heads": 2,
        "linear_value_heads": 32,
        "linear_key_dim": 64,
        "linear_value_dim": 64,
        "conv_kernel": 4,
        "layers": [
            {"indices": [0, 4], "attention": "mamba2", "feed_forward": False},
            {"indices": [2], "attention": "gqa", "feed_forward": False},
        ],
    }
    base = {
        "model": hybrid,
        "cluster": {"gpu": "h200-sxm", "nodes": 2, "gpus_per_node": 2},
        "workload": {"steps": 2, "tokens_per_gpu": 32},
        "keep": {"timeline_steps": 1},
    }
    compiled, events = (
        simulate(Scenario.from_dict({**base, "simulation": {"engine": engine, "overlap": overlap}}))
        for engine in ("compiled", "simpy")
    )
    assert compiled.steps.step_time_s.tolist() == events.steps.step_time_s.tolist()
    if overlap == "none":
        took = seconds_of(compiled, "attention")
        assert took[0] > took[1] > 0  # a block of experts has a norm


@pytest.mark.parametrize("model", ["deepseek-v4-flash", "jamba-1.5-mini", "longcat-flash"])
def test_whole_models_of_recent_kinds_run_alike_in_both_engines(model: str) -> None:
    """Compressed attention, states of Mamba and experts that compute nothing, on a node of B300."""
    base = {
        "model": model,
        "cluster": {"gpu": "b300-sxm", "nodes": 1, "gpus_per_node": 8},
        "workload": {"steps": 1, "tokens_per_gpu": 4},
    }
    compiled, events = (
        simulate(Scenario.from_dict({**base, "simulation": {"engine": engine}})) for engine in ("compiled", "simpy")
    )
    assert compiled.steps.step_time_s.tolist() == events.steps.step_time_s.tolist()
    assert 1e-3 < compiled.summary["step_time_s"]["mean"] < 0.1
