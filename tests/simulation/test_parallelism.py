"""How the model is cut over the GPUs: expert-parallel groups, shared experts' matrices, shared heads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from moesim import InputError, Result, Scenario, simulate
from moesim.engine import ENGINES, group_program, run_compiled
from moesim.hardware import memory_bytes, step_durations
from moesim.hardware.attention import attention_seconds
from moesim.hardware.backends import backend_of, default_backend, expert_kernel
from moesim.hardware.dense import sum_seconds
from moesim.hardware.expert import ExpertShape
from moesim.hardware.expert_kernel import expert_seconds
from moesim.placement import assign_slots, place, traffic_of_layer
from moesim.types import Parallelism, Precision, equal_decodes
from tests.builders import cluster, model
from tests.engine.programs import random_program

SMALL = {
    "workload.steps": 2,
    "workload.tokens_per_gpu": 12,
    "cluster.nodes": 2,
    "cluster.gpus_per_node": 4,
    "model.n_layers": 5,
    "model.dense_layers": [0],
    "placement.redundant_experts": 32,
    "keep.timeline_steps": 2,
}
BF16 = Precision(weights="bf16", activations="bf16", dispatch="bf16", combine="bf16", kv_cache="bf16")


def small(**changes: object) -> Result:
    """DeepSeek-V3 decode on 8 GPUs; dots of the fields are double underscores."""
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return simulate(Scenario.from_yaml("deepseek-v3-decode", overrides={**SMALL, **dotted}))


@pytest.mark.parametrize("overlap", ["none", "two-batch"])
@pytest.mark.parametrize("network", ["closed-form", "port"])
@pytest.mark.parametrize("copies", ["per-selection", "per-node"])
def test_a_group_of_a_node_runs_as_that_node_alone(copies: str, network: str, overlap: str) -> None:
    """Group 0 has the first tokens and experts of its own, so nothing differs, to the picosecond."""
    same = {"simulation__network": network, "simulation__overlap": overlap, "cluster__network__copies": copies}
    two = small(parallelism__expert=4, **same)
    alone = small(cluster__nodes=1, **same)
    mine = two.timeline[two.timeline["gpu"] < 4].sort_values(["step", "gpu", "layer", "start_s"])
    other = alone.timeline.sort_values(["step", "gpu", "layer", "start_s"])
    in_step = [frame["start_s"] - frame.groupby("step")["start_s"].transform("min") for frame in (mine, other)]
    np.testing.assert_allclose(in_step[0].to_numpy(), in_step[1].to_numpy(), atol=1e-13)
    assert mine["kind"].tolist() == other["kind"].tolist()
    assert mine["bytes"].tolist() == other["bytes"].tolist()
    assert two.summary["bytes"]["across_nodes"] == 0
    links = two.links
    assert (links["source"] // 4 == links["destination"] // 4).all()


@pytest.mark.parametrize("network", ["closed-form", "port"])
def test_both_interpreters_agree_with_groups_that_share_experts_and_heads(network: str) -> None:
    """Faults find their GPU in whichever group it is."""
    faults = [
        {"kind": "slow-gpu", "gpu": 6, "factor": 3.0},
        {"kind": "compute-jitter", "distribution": "lognormal", "cv": 0.2},
    ]
    if network == "port":
        faults.append({"kind": "slow-link", "gpu": 5, "level": "within_node", "factor": 4.0})
    cut = {
        "parallelism__expert": 2,
        "parallelism__expert_tp": 2,
        "parallelism__attention": "tensor",
        "parallelism__attention_tp": 2,
        "simulation__network": network,
        "faults": faults,
    }
    simpy, compiled = (small(simulation__engine=engine, **cut) for engine in ("simpy", "compiled"))
    for frame in ("steps", "gpus", "timeline", "links", "layers"):
        assert getattr(simpy, frame).equals(getattr(compiled, frame))
    busy = compiled.gpus.groupby("gpu")["experts_s"].sum()
    assert busy[6] > 2 * busy[7]
    waits = compiled.gpus.groupby("gpu")["wait_s"].sum()
    assert waits[6] == waits.min()


def test_groups_of_a_program_do_not_see_each_other() -> None:
    """A program of two groups ends as its halves do, whatever the other does."""
    program = random_program(3, per_node=False)
    for seed in range(40):
        program = random_program(seed, per_node=False)
        if program.n_gpus % 2 or (program.n_gpus // 2) % program.gpus_per_node:
            continue
        half = program.n_gpus // 2
        copies = program.copies.copy()
        copies[:, :half, half:] = copies[:, half:, :half] = 0
        slots = np.zeros((program.slot_tokens.shape[0], 2), dtype=np.int64)
        rank = np.array([0, half], dtype=np.int32)
        both = dataclasses.replace(
            program, copies=copies, n_groups=2, slot_tokens=slots, slot_capacity=slots - 1, slot_rank=rank
        )
        timeline = ENGINES["compiled"](both)
        for group in range(2):
            own = run_compiled(group_program(both, group))
            np.testing.assert_array_equal(timeline.end_ps[:, group * half : (group + 1) * half], own.end_ps)
        slower = dataclasses.replace(both, duration_ps=both.duration_ps + (np.arange(2 * half) >= half))
        again = ENGINES["simpy"](slower)
        np.testing.assert_array_equal(timeline.end_ps[:, :half], again.end_ps[:, :half])


def test_tokens_stay_in_their_group_and_every_gpu_of_a_slot_gets_a_copy() -> None:
    """Two groups of two ranks of two GPUs: expert 3 of group 1 is on GPUs 6 and 7."""
    placement = place("contiguous", n_experts=4, n_layers=1, n_ranks=2, n_groups=2, expert_tp=2)
    assert placement.rank.tolist() == [0, 0, 2, 2, 4, 4, 6, 6]
    assert placement.n_ranks == 8
    served = np.array([[0, 1], [3, 3], [2, -1]], dtype=np.int32)
    source = np.array([1, 4, 7], dtype=np.int32)
    slot = assign_slots(served, source, placement, 0)
    assert slot.tolist() == [[0, 1], [7, 7], [6, -1]]
    tokens, copies, _ = traffic_of_layer(slot, source, placement, copy_rule="per-rank", gpus_per_node=8)
    assert tokens.tolist() == [1, 1, 0, 0, 0, 0, 1, 2]
    assert {(s, d): n for (s, d), n in np.ndenumerate(copies) if n} == {
        (1, 0): 1, (1, 1): 1, (4, 6): 1, (4, 7): 1, (7, 6): 1, (7, 7): 1,
    }  # fmt: skip


def test_shared_matrices_and_heads_take_the_time_of_their_parts() -> None:
    """Two ranks of two GPUs: experts of half the width; two GPUs attend to all tokens of both with half the heads."""
    shape, gpus = model(), cluster(gpus_per_node=4)
    slot_tokens, slot_rank = np.array([[5, 6, 7, 8], [1, 0, 9, 2]]), np.array([0, 0, 2, 2], dtype=np.int32)
    parallel = Parallelism(expert=2, expert_tp=2, attention_tp=2)
    work = equal_decodes(np.array([3, 4, 10, 0]), 100, heads_shared=2)
    found = step_durations(
        shape,
        gpus,
        BF16,
        work,
        slot_tokens=slot_tokens,
        slot_rank=slot_rank,
        parallelism=parallel,
    )
    kernel = expert_kernel(backend_of(default_backend(BF16)), gpus.gpu, BF16, prompts=False, throttled=False)
    half = ExpertShape(hidden_size=256, inner_size=256, n_experts=4, top_k=2, n_ranks=2)
    by_rank = expert_seconds(kernel, half, slot_tokens, slot_rank // 2, 2)
    np.testing.assert_array_equal(found.experts, by_rank[:, [0, 0, 1, 1]])
    layers = backend_of(default_backend(BF16)).layers(throttled=False)
    both = np.array([7, 10])
    heads = attention_seconds(shape, gpus.gpu, BF16, equal_decodes(both, 100), tensor_parallel=2, kernels=layers)
    summed = sum_seconds(shape, gpus.gpu, both, 2, layers)
    assert (summed > 0).all()
    np.testing.assert_array_equal(found.attention, [(heads + summed)[[0, 0, 1, 1]]])


def test_what_a_gpu_holds_of_what_is_shared() -> None:
    """Half the attention and half of every expert; the cache of twice the sequences, with half its heads."""
    alone, shared = equal_decodes(np.array([10]), 100), equal_decodes(np.array([10, 10]), 100, heads_shared=2)
    whole = memory_bytes(model(), cluster(), BF16, alone, slots_per_gpu=2)
    parallelism = Parallelism(expert=1, expert_tp=2, attention_tp=2)
    cut = memory_bytes(model(), cluster(), BF16, shared, slots_per_gpu=2, parallelism=parallelism)
    assert cut["experts"] == whole["experts"] / 2
    assert cut["kv_cache"] == whole["kv_cache"]
    attention = 2 * 2 * (256 * (4 + 2 * 2) * 64 + 256 * 4 * 64)  # bytes, two layers
    assert whole["weights"] - cut["weights"] == attention / 2


def test_every_gpu_for_itself_sends_nothing() -> None:
    """Groups of one GPU: data parallelism of the whole model."""
    result = small(parallelism__expert=1, placement__redundant_experts=0, model__n_layers=2)
    assert result.summary["bytes"] == {"within_node": 0, "across_nodes": 0}
    assert result.summary["breakdown_s"]["dispatch"] == 0
    assert result.steps["processed"].tolist() == [12 * 8 * 8] * 2


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"parallelism.expert": 3}, "parallelism.expert"),
        ({"cluster.nodes": 3, "parallelism.expert": 6}, "groups of whole nodes"),
        ({"parallelism.expert_tp": 3}, "one of 1, 2, 4, which divide the 4 GPUs of a node"),
        ({"parallelism.attention_tp": 2}, "unless parallelism.attention is tensor"),
        ({"parallelism": {"attention": "tensor", "attention_tp": 8}}, "one of 1, 2, 4"),
        ({"parallelism.expert": 4, "simulation.experts": "queued"}, "one expert-parallel group"),
        ({"parallelism.expert": 4, "routing.capacity": {"factor": 1.0, "scope": "global"}}, "source-rank or sequence"),
        ({"parallelism.expert_tp": 2, "routing.capacity": {"factor": 1.0, "pad": True}}, "share each expert"),
        ({"parallelism.expert": 4, "routing.substitution": {"policy": "node-limited", "nodes": 2}}, "nodes of a group"),
        ({"parallelism.expert": 4, "faults": [{"kind": "gpu-failure", "gpu": 0}]}, "one expert-parallel group"),
        ({"parallelism.expert": 4, "placement.expert_gpus": 2}, "unless all GPUs are one group"),
    ],
)
def test_what_cannot_be_cut_is_refused(changes: dict[str, object], words: str) -> None:
    """One line that says what would fit."""
    overrides = {name: value for name, value in SMALL.items() if name != "placement.redundant_experts"}
    with pytest.raises(InputError, match=words):
        simulate(
            Scenario.from_yaml(
                "deepseek-v3-decode", overrides={**overrides, "placement.redundant_experts": 0, **changes}
            )
        )


def test_a_resolved_scenario_runs_again() -> None:
    """With the sizes of its groups filled in."""
    scenario = Scenario.from_yaml("deepseek-v3-decode", overrides={**SMALL, "parallelism.attention": "tensor"})
    assert scenario.resolved()["parallelism"] == {
        "expert": 8, "expert_tp": 1, "attention": "tensor", "attention_tp": 4,
    }  # fmt: skip
    again = Scenario.from_dict(scenario.resolved())
    assert again.resolved() == scenario.resolved()
