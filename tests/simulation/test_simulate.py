"""A scenario from end to end: conservation, determinism, the same tokens for all variants, balanced closed forms."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Scenario, compare, simulate, sweep
from moesim.errors import ConservationError, InputError
from moesim.results import Result
from moesim.simulation.prepare import prepare
from moesim.simulation.program import lay_out_step
from moesim.simulation.routing_step import route_step
from moesim.simulation.state import start
from moesim.types import PARTS
from tests.simulation.small import SMALL, small

COMBINATIONS = [
    {},
    {"routing.strategy": "switch", "routing.top_k": 1},
    {"routing.strategy": "random", "routing.capacity": {"factor": 0.5, "scope": "sequence"}},
    {"routing.strategy": "softmax-top-k", "routing.parameters": {"norm_topk_prob": True}},
    {"routing.strategy": "deepseek-v3", "routing.parameters": {"n_group": 2}},
    {"routing.capacity": {"factor": 1.0}, "placement.strategy": "round-robin"},
    {"routing.capacity": {"factor": 0.7, "overflow": "drop-by-probability", "scope": "global"}},
    {"placement.redundant_experts": 5, "cluster.network.copies": "per-selection"},
    {"placement.redundant_experts": 24, "cluster.network.copies": "per-node"},
    {"cluster.gpus_per_node": 1, "cluster.nodes": 3, "workload.phase": "prefill", "workload.sequence_tokens": 16},
    {"cluster.gpus_per_node": 12, "cluster.nodes": 1, "workload.phase": "train", "simulation.warmup_steps": 2},
    {"cluster.gpus_per_node": 1, "cluster.nodes": 1, "cluster.gpu": "h200-sxm", "workload.tokens_per_gpu": 1},
    {"keep.links": "none", "keep.timeline_steps": 0},
    {"routing.capacity": {"factor": 0.8, "overflow": "drop-at-random"}, "routing.strategy": "gpt-oss"},
    {"routing.capacity": {"factor": 0.8, "overflow": "drop-by-priority", "rounding": "v-moe"}},
]


@pytest.mark.parametrize("overrides", COMBINATIONS, ids=lambda o: ",".join(f"{k}={v}" for k, v in o.items()) or "base")
def test_the_frames_conserve_tokens_bytes_and_time(overrides: dict[str, Any]) -> None:
    """What the frames say adds up, exactly for counts."""
    scenario = Scenario.from_dict(SMALL, overrides=overrides)
    result = simulate(scenario)
    experts, layers, steps, gpus = result.experts, result.layers, result.steps, result.gpus
    assert (
        experts.requested + experts.rerouted_in == experts.processed + experts.dropped + experts.rerouted_away
    ).all()
    tokens = scenario.resolved()["workload"]["tokens_per_gpu"] * scenario.cluster.n_gpus
    assert steps["tokens"].eq(tokens).all()
    assert layers["requested"].eq(tokens * scenario.resolved()["routing"]["top_k"]).all()
    assert len(layers) == len(scenario.model.moe_layers) * scenario.spec.workload.steps
    assert set(layers.layer) == {0, 2}
    for column in ("requested", "processed", "dropped"):
        by_layer = experts.groupby(["step", "layer"])[column].sum().to_numpy()
        np.testing.assert_array_equal(by_layer, layers[column])
        np.testing.assert_array_equal(layers.groupby("step")[column].sum(), steps[column])
    np.testing.assert_array_equal(gpus.groupby("step").processed.sum(), steps.processed)
    assert gpus.sent_bytes.sum() == gpus.received_bytes.sum()
    total = (steps.bytes_within_node + steps.bytes_across_nodes).to_numpy()
    np.testing.assert_array_equal(gpus.groupby("step").sent_bytes.sum(), total)
    parts = [f"{part}_s" for part in PARTS]
    by_gpu = gpus[parts].sum(axis=1).groupby(gpus.step).agg(["min", "max"])
    for bound in ("min", "max"):
        np.testing.assert_allclose(by_gpu[bound], steps.step_time_s, rtol=1e-12)
    np.testing.assert_allclose(gpus.groupby("step").critical_s.sum(), steps.step_time_s, rtol=1e-12)
    assert sum(result.summary["breakdown_s"].values()) == pytest.approx(result.summary["step_time_s"]["mean"])
    assert sum(result.summary["critical_path_s"].values()) == pytest.approx(result.summary["step_time_s"]["mean"])
    if scenario.spec.keep.links == "total":
        assert result.links.bytes.sum() == total.sum()
    assert set(result.timeline.step) == set(range(scenario.spec.keep.timeline_steps))


@pytest.mark.parametrize("overrides", COMBINATIONS[:9:2], ids=str)
def test_one_seed_gives_the_same_bytes_for_any_number_of_threads(overrides: dict[str, Any], tmp_path: Path) -> None:
    """All files but the manifest, which holds wall times."""
    scenario = Scenario.from_dict(SMALL, overrides=overrides)
    for threads in (1, 2, 5):
        simulate(scenario, threads=threads).save(tmp_path / str(threads))
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert "experts.parquet" in names
    for name in names:
        if name != "manifest.json":
            first = (tmp_path / "1" / name).read_bytes()
            assert first == (tmp_path / "2" / name).read_bytes() == (tmp_path / "5" / name).read_bytes(), name


def test_either_interpreter_gives_the_same_bytes(tmp_path: Path) -> None:
    """Only the engine's name differs, in the resolved scenario, the report and the manifest."""
    for engine in ("simpy", "compiled"):
        result = simulate(small(simulation__engine=engine, routing__capacity={"factor": 1.0}))
        assert result.manifest["engine"] == engine
        result.save(tmp_path / engine)
    assert simulate(small()).manifest["engine"] == "compiled"  # auto
    frames = [path.name for path in (tmp_path / "simpy").iterdir() if path.suffix == ".parquet"]
    assert len(frames) >= 7
    for name in [*frames, "summary.json"]:
        assert (tmp_path / "simpy" / name).read_bytes() == (tmp_path / "compiled" / name).read_bytes(), name


def test_another_process_and_hash_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """A run in a fresh interpreter."""
    scenario = small()
    simulate(scenario).save(tmp_path / "here")
    (tmp_path / "s.yaml").write_text(scenario.resolved_yaml())
    code = "import sys; from moesim import *; simulate(Scenario.from_yaml(sys.argv[1])).save(sys.argv[2])"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "MOESIM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(tmp_path / "s.yaml"), str(tmp_path / "there")]
    subprocess.run(command, check=True, env=environment)
    for name in ("steps", "layers", "experts", "gpus", "links", "timeline"):
        there = (tmp_path / "there" / f"{name}.parquet").read_bytes()
        assert (tmp_path / "here" / f"{name}.parquet").read_bytes() == there, name
    assert Result.load(tmp_path / "there").summary == Result.load(tmp_path / "here").summary


def test_another_seed_gives_another_result() -> None:
    """Else the seed would do nothing."""
    assert simulate(small(seed=4)).summary != simulate(small()).summary


def test_warmup_steps_are_run_but_not_measured() -> None:
    """The measured steps are those that follow."""
    plain, warm = simulate(small(workload__steps=3)), simulate(small(workload__steps=2, simulation__warmup_steps=1))
    later = plain.experts[plain.experts.step >= 1].reset_index(drop=True)
    np.testing.assert_array_equal(later.requested, warm.experts.requested)
    assert warm.steps.step.tolist() == [0, 1]


def test_variants_see_the_same_tokens() -> None:
    """Placement and capacity change nothing of what is asked; a smaller top_k reads the same logits."""
    study = compare(
        Scenario.from_dict(
            {
                **SMALL,
                "compare": {
                    "base": {},
                    "placed": {"placement.strategy": "round-robin"},
                    "capped": {"routing.capacity": {"factor": 1.0}},
                    "top-1": {"routing.top_k": 1},
                },
            }
        )
    )
    base = study.results["base"].experts
    for name in ("placed", "capped"):
        np.testing.assert_array_equal(study.results[name].experts.requested, base.requested)
    assert (study.results["top-1"].experts.requested <= base.requested).all()
    assert study.results["capped"].summary["drop_rate"] > 0
    assert list(study.summary.index) == ["base", "placed", "capped", "top-1"]


def test_a_router_that_sees_the_whole_batch_runs_end_to_end() -> None:
    """Expert choice: the load of the experts is even whatever the skew, and so is the time without the copies."""
    result = simulate(small(routing__strategy="expert-choice", routing__top_k=2))
    assert result.summary["max_violation"]["max"] == 0
    assert set(result.experts.requested) == {160 * 2 // 8}
    assert 0 < result.summary["imbalance_penalty"] < 1.05
    dropped = simulate(small(routing__strategy="gshard", routing__parameters={"second_expert_policy": "random"}))
    assert dropped.steps.requested.max() < 160 * 2 * 2  # choices that were left out are not asked for


def test_a_sweep_runs_the_grid_of_its_axes() -> None:
    """The last axis fastest; skew raises the imbalance; labels name the axis as shortly as they can."""
    axes = {"workload.popularity.exponent": [0, 1.5], "placement.redundant_experts": [0, 8]}
    table = sweep(Scenario.from_dict({**SMALL, "sweep": axes})).summary
    assert list(table.index) == [
        "exponent=0, redundant_experts=0",
        "exponent=0, redundant_experts=8",
        "exponent=1.5, redundant_experts=0",
        "exponent=1.5, redundant_experts=8",
    ]
    violation = table["max_violation.mean"].to_list()
    assert violation[0] == violation[1] < violation[2] == violation[3]
    with pytest.raises(InputError, match="sweep: found no axes"):
        sweep(small())
    with pytest.raises(InputError, match=r"sweep\.seed: found \[\]"):
        Scenario.from_dict({**SMALL, "sweep": {"seed": []}})


def test_files_are_compared_under_their_names() -> None:
    """A name that occurs twice gets a number; nothing to compare is an error."""
    study = compare(small(), small(seed=9), small(name="other"))
    assert list(study.results) == ["small", "small (2)", "other"]
    with pytest.raises(InputError, match="named variants"):
        compare(small())
    with pytest.raises(InputError, match="nothing to compare"):
        compare()


def test_without_a_limit_capacity_changes_nothing() -> None:
    """A factor nobody reaches gives the result of none."""
    free, wide = simulate(small()), simulate(small(routing__capacity={"factor": 100.0}))
    assert free.experts.equals(wide.experts)
    assert free.steps.equals(wide.steps)


def test_balancedness_of_what_was_asked_for_knows_no_capacity() -> None:
    """Two consecutive experts a GPU, worked out from the loads of the experts; copies share what theirs is asked."""
    free, tight = simulate(small()), simulate(small(routing__capacity={"factor": 1.0}))
    load = free.experts.assign(gpu=free.experts["expert"] // 2).groupby(["step", "layer", "gpu"])["requested"].sum()
    by_layer = load.groupby(["step", "layer"])
    expected = (by_layer.mean() / by_layer.max()).mean()
    for result in (free, tight):
        assert result.summary["balancedness_requested"]["mean"] == pytest.approx(expected)
    assert free.summary["balancedness"] == pytest.approx(free.summary["balancedness_requested"])
    assert tight.summary["balancedness"]["mean"] > expected
    everywhere = simulate(small(placement__redundant_experts=24))  # a copy of each expert on each of four GPUs
    assert everywhere.summary["balancedness_requested"]["mean"] == pytest.approx(1.0)


def test_slots_admit_no_more_than_the_experts_capacity() -> None:
    """The engine refuses a step that would exceed what the policy promised."""
    plan = prepare(small(routing__capacity={"factor": 1.0}))

    from moesim.engine import run

    routed = route_step(plan, start(plan), plan.source.batch(0))
    assert (routed.capacity >= routed.traffic.slot_tokens).all()
    broken = dataclasses.replace(routed, capacity=routed.capacity * 0)
    program = lay_out_step(plan, broken)
    with pytest.raises(ConservationError, match="admits 0"):
        run(program)


def test_no_matrix_of_tokens_and_experts_is_held() -> None:
    """Logits live in blocks: routing a layer takes less than half of the memory of its logits."""
    plan = prepare(
        Scenario.from_dict(
            {
                "model": {"preset": "deepseek-v3", "n_layers": 4},
                "cluster": {"gpu": "h200-sxm", "nodes": 4},
                "workload": {"steps": 1, "tokens_per_gpu": 512},
                "routing": {"capacity": {"factor": 1.0}},
            }
        )
    )
    n_tokens = plan.source.tokens_per_step
    route_step(plan, start(plan), plan.source.batch(0))
    tracemalloc.start()
    try:
        route_step(plan, start(plan), plan.source.batch(0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_tokens == 16_384
    assert peak < 0.5 * n_tokens * 256 * 4


ONE_NODE = {"cluster": {"gpu": "h100-sxm", "gpus_per_node": 4}, "model__preset": "olmoe-1b-7b", "model__n_layers": 2}
ONE_NODE |= {"model__dense_layers": [], "model__intermediate_size": 0, "workload__steps": 1}


def test_as_many_choices_as_are_routed_take_time() -> None:
    """Whether the model or the scenario says how many."""
    prefill = {**ONE_NODE, "workload__phase": "prefill", "workload__tokens_per_gpu": 4096, "routing__top_k": 1}
    routed, of_model = (simulate(small(**prefill, **model)) for model in ({}, {"model__top_k": 1}))
    assert routed.steps.equals(of_model.steps)


@pytest.mark.parametrize("sequence", [512, 1024, 2048])
def test_halves_of_a_prompt_attend_to_all_of_it(sequence: int) -> None:
    """Two micro-batches of one prompt have its work, those of whole prompts theirs, and launches twice."""
    prefill = {**ONE_NODE, "workload__phase": "prefill", "workload__tokens_per_gpu": 2048}
    prefill |= {"workload__sequence_tokens": sequence, "simulation__overlap_slowdown": 0.0}
    one, two = (simulate(small(**prefill, simulation__overlap=way)) for way in ("none", "two-batch"))
    attention = [float(result.gpus["attention_s"].sum()) for result in (one, two)]
    assert attention[0] <= attention[1] * (1 + 1e-9)
    assert attention[1] < 1.25 * attention[0]


def test_prompts_of_gpus_that_share_heads_stay_apart() -> None:
    """Each GPU has a prompt of 512 tokens, and room for longer ones."""
    shared = {
        **ONE_NODE,
        "workload__phase": "prefill",
        "workload__tokens_per_gpu": 512,
        "parallelism__attention": "tensor",
    }
    short, long = (simulate(small(**shared, workload__sequence_tokens=n)) for n in (512, 4096))
    assert (short.gpus["attention_s"] == long.gpus["attention_s"]).all()
