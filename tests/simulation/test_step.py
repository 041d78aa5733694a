"""A step is a function of plan, state, batch and conditions: what it may be asked for, and what it leaves alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from moesim import Scenario, compare, simulate
from moesim.hardware.attention import attention_seconds
from moesim.placement import place
from moesim.results import Collector
from moesim.simulation.conditions import conditions_of
from moesim.simulation.plan import RunPlan
from moesim.simulation.prepare import prepare
from moesim.simulation.routing_step import micro_batches_of
from moesim.simulation.state import RunState, start
from moesim.simulation.step import StepOutcome, run_step
from moesim.simulation.work import work_of
from moesim.types import Part
from moesim.types.picoseconds import picoseconds

BASE: dict[str, Any] = {
    "model": {"preset": "olmoe-1b-7b", "n_layers": 3},
    "cluster": {"gpu": "h100-sxm", "nodes": 2, "gpus_per_node": 4, "network": "deepep-low-latency"},
    "workload": {"steps": 3, "tokens_per_gpu": 32, "popularity": {"kind": "zipf", "exponent": 0.5}},
}
TRAINING = {"routing.training": {"mechanism": "loss-free", "learning_rate": 0.1}, "routing.strategy": "deepseek-v3"}
FAULTS = {
    "simulation.network": "port",
    "faults": [
        {"kind": "gpu-failure", "gpu": 2, "start_s": 2e-4, "detection_s": 1e-5, "recovery_s": 1e-3},
        {"kind": "slow-gpu", "factor": 3.0, "mean_time_between_s": 1e-3, "duration_s": 2e-4},
    ],
}
CASES = [{}, TRAINING, FAULTS, {"simulation.experts": "queued"}, {"simulation.overlap": "two-batch"}]


def plan_of(**changes: Any) -> RunPlan:
    """The plan of the small scenario with these overrides."""
    return prepare(Scenario.from_dict(BASE, overrides=changes))


def steps_of(plan: RunPlan) -> Iterator[tuple[RunState, StepOutcome]]:
    """Every step of a run, with the state before it."""
    state = start(plan)
    for batch in plan.batches():
        outcome = run_step(plan, state, batch, conditions_of(plan, state))
        yield state, outcome
        state = outcome.state


@pytest.mark.parametrize("changes", CASES, ids=["plain", "training", "faults", "queued", "two-batch"])
def test_a_step_is_a_function_of_its_arguments(changes: dict[str, Any]) -> None:
    """The last step, run again from the state before it, gives the same; the state before it is as it was."""
    plan = plan_of(**changes)
    *_, (state, outcome) = steps_of(plan)
    before = dataclasses.replace(state)
    again = run_step(plan, state, plan.source.batch(plan.n_steps - 1), conditions_of(plan, state))
    assert state == before
    assert again.times.makespan_ps == outcome.times.makespan_ps
    assert again.balanced_ps == outcome.balanced_ps
    assert again.state.clock_ps == outcome.state.clock_ps == state.clock_ps + outcome.times.makespan_ps
    np.testing.assert_array_equal(again.times.parts_ps, outcome.times.parts_ps)
    np.testing.assert_array_equal(again.routed.processed, outcome.routed.processed)
    if state.routers is not None:
        assert outcome.state.routers is not None
        biases = [[router.bias.tolist() for router in routers] for routers in (state.routers, outcome.state.routers)]
        assert biases[0] != biases[1]


@pytest.mark.parametrize("changes", CASES, ids=["plain", "training", "faults", "queued", "two-batch"])
def test_the_steps_by_hand_are_those_of_simulate(changes: dict[str, Any]) -> None:
    """The loop adds nothing to `run_step` but collecting."""
    plan = plan_of(**changes)
    result = simulate(Scenario.from_dict(BASE, overrides=changes))
    times = [outcome.times.makespan_ps * 1e-12 for _, outcome in steps_of(plan)]
    assert result.steps.step_time_s.tolist() == times


@pytest.mark.parametrize("changes", [CASES[0], CASES[4], CASES[2]], ids=["plain", "two-batch", "faults"])
def test_a_placement_may_be_replaced_between_steps(changes: dict[str, Any]) -> None:
    """From the second step on experts live elsewhere, differently in every layer: loads of experts stay, those of GPUs
    move, and the collector's equalities hold.
    """
    plan, rng = plan_of(**changes), np.random.default_rng(1)
    collector = Collector(model=plan.model, cluster=plan.cluster, keep=plan.keep)
    contiguous = place("contiguous", n_experts=64, n_layers=3, n_ranks=8)
    shuffled = dataclasses.replace(contiguous, expert=rng.permuted(contiguous.expert, axis=1))
    state, unmoved = start(plan), [outcome for _, outcome in steps_of(plan)]
    for batch in plan.batches():
        if batch.step == 1:
            state = dataclasses.replace(state, placement=shuffled)
        outcome = run_step(plan, state, batch, conditions_of(plan, state))
        collector.add(batch.step, outcome.routed, outcome.times, outcome.balanced_ps)
        other = unmoved[batch.step].routed
        np.testing.assert_array_equal(outcome.routed.requested, other.requested)
        if not changes:
            np.testing.assert_array_equal(outcome.routed.slot_load, other.slot_load)
        moved = outcome.routed.traffic.slot_tokens.tolist() != other.traffic.slot_tokens.tolist()
        assert moved == (batch.step >= 1)
        if batch.step >= 1 and not changes:  # slot s of a layer serves the expert that the placement says
            load = np.take_along_axis(other.requested, shuffled.expert, axis=1)
            np.testing.assert_array_equal(outcome.routed.traffic.slot_tokens, load)
        state = outcome.state


@pytest.mark.parametrize("phase", ["decode", "prefill", "train"])
def test_equal_sequences_token_by_token_take_the_time_of_the_scalars(phase: str) -> None:
    """To the picosecond, where every token says its sequence and context; the last prompt of a rank is short."""
    plan = plan_of(**{"workload.phase": phase, "workload.sequence_tokens": 20, "workload.context_tokens": 777})
    state, batch = start(plan), plan.source.batch(0)
    assert batch.alike is not None
    stated = run_step(plan, state, batch, conditions_of(plan, state))
    by_token = run_step(plan, state, dataclasses.replace(batch, alike=None), conditions_of(plan, state))
    np.testing.assert_array_equal(by_token.times.parts_ps, stated.times.parts_ps)


@pytest.mark.parametrize("overlap", ["none", "two-batch"])
def test_a_step_may_mix_prompts_and_decodes(overlap: str) -> None:
    """Each of eight GPUs has a prompt of 12 tokens, one of 8 after 50 that are cached, and 12 sequences that decode.

    Attention is what the hardware says of these sequences. Routing, experts and exchanges see 32 tokens of a GPU.
    """
    plan = plan_of(**{"workload.steps": 1, "simulation.overlap": overlap})
    state, plain = start(plan), plan.source.batch(0)
    place_of = np.arange(plain.n_tokens) % 32  # of a token among those of its GPU
    number = np.where(place_of < 12, 0, np.where(place_of < 20, 1, place_of))
    context = np.where(place_of < 12, place_of, np.where(place_of < 20, 50 + place_of - 12, 100 * place_of))
    batch = dataclasses.replace(
        plain,
        sequence=(plain.source * 32 + number).astype(np.int32),
        decodes=place_of >= 20,
        context=context.astype(np.int32),
        alike=None,
    )
    mixed, decode = (run_step(plan, state, own, conditions_of(plan, state)) for own in (batch, plain))
    np.testing.assert_array_equal(mixed.routed.processed, decode.routed.processed)
    np.testing.assert_array_equal(mixed.times.bytes, decode.times.bytes)
    work = work_of(plan, batch)
    assert (work.prompt_tokens, work.decode_tokens) == (8 * 20, 8 * 12)
    assert [sorted(column) for column in work.prompts.new_tokens.T.tolist()] == [[8, 12]] * 8
    parts = [work] if overlap == "none" else [work_of(plan, batch.part(own)) for own in micro_batches_of(batch, 2)]
    assert sum(part.prompt_tokens for part in parts) == 8 * 20
    (layers,) = plan.model.layers
    kernels = plan.kernels.layers(throttled=True)
    seconds = [
        attention_seconds(layers.shape, plan.cluster.gpu, plan.precision, part, kernels=kernels) for part in parts
    ]
    own_ps = len(layers.indices) * sum(picoseconds(part) for part in seconds)
    if overlap == "none":
        np.testing.assert_array_equal(mixed.times.parts_ps[:, Part.ATTENTION], own_ps)
    else:  # SMs that the network's kernels hold, and what an exchange beside it slows down, come on top
        assert (mixed.times.parts_ps[:, Part.ATTENTION] > own_ps).all()
        assert (mixed.times.parts_ps[:, Part.ATTENTION] < 1.6 * own_ps).all()


def test_a_scenario_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `simulate`, and once for each variant by `compare`; other seeds are other runs."""
    known: list[int] = []

    def counting(scenario: Scenario) -> RunPlan:
        known.append(scenario.spec.seed)
        return prepare(scenario)

    monkeypatch.setattr(import_module("moesim.simulation.simulate"), "prepare", counting)  # not the function
    simulate(Scenario.from_dict(BASE))
    assert known == [0]
    variants = {"compare": {"a": {}, "b": {"workload.tokens_per_gpu": 16}}}
    compare(Scenario.from_dict({**BASE, **variants}), seeds=2)
    assert known == [0, 0, 0, 1, 1]
