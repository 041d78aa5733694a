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
from moesim.types import PARTS, Batch, equal_decodes
from moesim.workload import import_recordings

SMALL = {
    "name": "small",
    "seed": 3,
    "model": {"preset": "mixtral-8x7b", "n_layers": 3, "dense_layers": [1], "intermediate_size": 4096},
    "cluster": {"gpu": "h100-sxm", "nodes": 2, "gpus_per_node": 2},
    "workload": {
        "steps": 3,
        "tokens_per_gpu": 40,
        "popularity": {"exponent": 0.8},
        "topics": {"count": 4, "strength": 0.5},
    },
}


def small(**overrides: object) -> Scenario:
    """Three layers, one of them dense, on two nodes of two GPUs."""
    return Scenario.from_dict(SMALL, overrides={key.replace("__", "."): value for key, value in overrides.items()})


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
    """But for the names of the engine in the resolved scenario, the report and the manifest."""
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
    """Expert choice: the load of the experts is even whatever the skew, and so is the time but for the copies."""
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
    with pytest.raises(InputError, match="found 3 layers, wanted 2"):
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
