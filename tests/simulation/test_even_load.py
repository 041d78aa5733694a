"""A load that is exactly even has the imbalance penalty 1, whatever network, placement and overlap it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim import Scenario, simulate
from moesim.simulation.queue_step import even_groups
from tests.builders import program

TINY = {
    "hidden_size": 512,
    "n_layers": 2,
    "n_experts": 8,
    "top_k": 8,  # every token goes to every expert, so that all loads and all messages are equal
    "moe_intermediate_size": 256,
    "vocab_size": 1000,
    "n_heads": 8,
    "n_kv_heads": 8,
    "head_dim": 64,
}
PLACEMENTS: list[dict[str, Any]] = [
    {},
    {"placement.strategy": "round-robin"},
    {"placement.expert_gpus": 2},
    {"placement.expert_gpus": 4},
    {"placement.redundant_experts": 8},
    {"parallelism.expert": 4},
    {"parallelism.expert": 2, "parallelism.expert_tp": 2},
]
QUEUED = {"simulation.experts": "queued"}


def even(**overrides: Any) -> dict[str, Any]:
    """The summary of a step on two nodes of four GPUs."""
    scenario = {
        "model": TINY,
        "cluster": {"gpu": "h100-sxm", "nodes": 2, "gpus_per_node": 4},
        "workload": {"steps": 1, "tokens_per_gpu": 16, "popularity": {"exponent": 1.0}},
        "keep": {"timeline_steps": 0},
    }
    return simulate(Scenario.from_dict(scenario, overrides=overrides), threads=1).summary


@settings(max_examples=30)
@given(
    st.sampled_from(["per-selection", "per-rank", "per-node", "all", "queued"]),
    st.sampled_from(PLACEMENTS),
    st.sampled_from(["closed-form", "port"]),
    st.sampled_from([None, "shared-expert", "two-batch"]),
    st.sampled_from(["decode", "prefill"]),
    st.sampled_from([(1, 8), (2, 4), (4, 2)]),
    st.sampled_from([4, 16, 100]),
    st.sampled_from(["mixtral", "random", "round-robin"]),
)
def test_an_even_load_has_a_penalty_of_exactly_1(
    copies: str,
    placement: dict[str, Any],
    network: str,
    overlap: str | None,
    phase: str,
    nodes: tuple[int, int],
    tokens: int,
    strategy: str,
) -> None:
    """To the last bit: the evenly loaded twin of an even step is the step."""
    grouped = "parallelism.expert" in placement
    where = {"cluster.nodes": nodes[0], "cluster.gpus_per_node": nodes[1]}
    how = QUEUED if copies == "queued" and not grouped else {"simulation.network": network}
    summary = even(
        **where,
        **placement,
        **how,
        **{
            "cluster.network.copies": "per-rank" if copies == "queued" else copies,
            "simulation.overlap": overlap,
            "workload.phase": phase,
            "workload.tokens_per_gpu": tokens,
            "routing.strategy": strategy,
        },
    )
    assert summary["max_violation"]["max"] == 0
    assert summary["balancedness"]["min"] == 1
    assert summary["imbalance_penalty"] == 1


@pytest.mark.parametrize("network", ["closed-form", "port"])
def test_copies_for_everybody_go_to_gpus_without_experts_in_the_even_step_too(network: str) -> None:
    """All-gather on 8 GPUs of which two hold all experts."""
    scenario = {
        "model": {**TINY, "hidden_size": 4096, "moe_intermediate_size": 1024, "head_dim": 128},
        "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 8, "network": "nccl-all-gather"},
        "workload": {"phase": "prefill", "steps": 1, "tokens_per_gpu": 4096},
        "placement": {"expert_gpus": 2},
        "simulation": {"network": network},
    }
    assert simulate(Scenario.from_dict(scenario)).summary["imbalance_penalty"] == 1


@pytest.mark.parametrize("copies", ["per-rank", "per-node", "per-selection"])
def test_the_even_control_moves_what_random_routing_moves(copies: str) -> None:
    """On both levels, within 1 %: what balance alone is worth is not mixed with traffic that no router has."""
    control = {
        "model.n_experts": 64,
        "model.top_k": 6,
        "cluster.nodes": 4,
        "cluster.network.copies": copies,
        "workload.tokens_per_gpu": 512,
        "workload.phase": "prefill",
    }
    dealt = even(**control, **{"routing.strategy": "round-robin", "routing.parameters": {"n_ranks": 16}})
    drawn = even(**control, **{"routing.strategy": "random"})
    assert dealt["max_violation"]["max"] == 0
    assert drawn["max_violation"]["max"] > 0
    assert dealt["bytes"] == pytest.approx(drawn["bytes"], rel=0.01)


def test_the_even_queues_of_a_skewed_step_are_even() -> None:
    """All tokens of three GPUs stay at home or go to GPU 0: 5 + 4 + 2 + 6 assignments, dealt to five slots."""
    copies = np.array([[[5, 0, 0], [4, 0, 0], [2, 0, 6]]])
    skewed = program(copies, experts_ps=np.zeros((1, 3)), attention_ps=[0, 0, 0], slot_tokens=np.zeros((1, 5)))
    (groups,) = even_groups(skewed)
    tokens = np.diff(groups.first)
    assert np.bincount(groups.source, tokens).tolist() == copies[0].sum(axis=1).tolist()
    per_slot = np.bincount(groups.slot, tokens)
    per_gpu = np.bincount(skewed.slot_rank, per_slot)
    assert np.ptp(per_gpu) <= 1
    assert all(np.ptp(per_slot[skewed.slot_rank == gpu]) <= 1 for gpu in range(3))
    messages = np.zeros((3, 3))
    np.add.at(messages, (groups.source, skewed.slot_rank[groups.slot]), tokens)
    assert (np.ptp(messages, axis=1) <= 1).all()
