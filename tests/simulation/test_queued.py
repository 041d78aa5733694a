"""Scenarios with expert queues, from the file to the frames."""

from __future__ import annotations

from typing import Any

import pytest

from moesim import Result, Scenario, simulate
from moesim.errors import ScenarioError
from moesim.simulation.prepare import prepare
from moesim.simulation.queue_step import service_of
from moesim.types import PARTS

SMALL = {
    "workload.steps": 2,
    "workload.tokens_per_gpu": 12,
    "cluster.nodes": 2,
    "cluster.gpus_per_node": 4,
    "model.n_layers": 4,
    "model.dense_layers": [0],
    "simulation.experts": "queued",
}


def scenario(**changes: Any) -> Scenario:
    """A small decode with these overrides."""
    overrides = {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}}
    return Scenario.from_yaml("deepseek-v3-decode", overrides=overrides)


def run(**changes: Any) -> Result:
    """Its result."""
    return simulate(scenario(**changes))


@pytest.mark.parametrize("overflow", ["drop", "block", "next"])
def test_every_overflow_conserves_tokens(overflow: str) -> None:
    """From the frames: per expert, layer and step, and over tokens and causes."""
    result = run(simulation__queue_tokens=4, simulation__queue_overflow=overflow, workload__tokens_per_gpu=24)
    experts, summary = result.experts, result.summary
    left = experts.requested + experts.rerouted_in
    assert left.equals(experts.processed + experts.dropped + experts.rerouted_away)
    assert result.steps.processed.equals(result.steps.requested - result.steps.dropped)
    assert (result.gpus[[f"{p}_s" for p in PARTS]].sum(axis=1) - result.steps.step_time_s.mean()).abs().max() < 1
    dropped, moved = int(experts.dropped.sum()), int(experts.rerouted_away.sum())
    assert (dropped > 0) == (overflow == "drop" or summary["by_cause"]["queue_full"] > 0)
    assert (moved > 0) == (overflow == "next")
    assert summary["by_cause"]["queue_full"] == pytest.approx(summary["drop_rate"])
    assert summary["by_cause"]["to_next_choice"] == pytest.approx(summary["reroute_rate"])
    assert summary["queue"]["tokens_max"] == 4
    assert result.manifest["engine"] == "simpy"


def test_without_a_limit_the_loads_are_those_of_grouped_experts() -> None:
    """Queues change when things happen, not who goes where."""
    queued, grouped = run(), run(simulation__experts="grouped")
    assert queued.experts.equals(grouped.experts)
    assert queued.layers.equals(grouped.layers)
    assert grouped.summary["queue"] == {"wait_mean_s": None, "wait_max_s": None, "tokens_max": None}
    assert queued.summary["queue"]["wait_mean_s"] > 0


def test_experts_on_gpus_of_their_own() -> None:
    """Four GPUs compute attention, four hold the experts: nothing else runs there; tokens come from the first four."""
    result = run(placement__expert_gpus=4, placement__redundant_experts=0)
    gpus = result.gpus.groupby("gpu").sum()
    assert (gpus.attention_s[:4] > 0).all()
    assert (gpus.attention_s[4:] == 0).all()
    assert (gpus.processed[:4] == 0).all()
    assert (gpus.processed[4:] > 0).all()
    assert (result.steps.tokens == 4 * 12).all()
    assert set(result.links.level) == {"across_nodes"}
    grouped = run(placement__expert_gpus=4, placement__redundant_experts=0, simulation__experts="grouped")
    assert grouped.experts.equals(result.experts)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "slow-gpu", "gpu": 2, "factor": 3.0},
        {"kind": "gpu-pause", "gpu": 1, "start_s": 1e-4, "duration_s": 2e-3},
        {"kind": "slow-link", "gpu": 0, "level": "across_nodes", "factor": 20.0},
        {"kind": "compute-jitter", "cv": 0.4},
        {"kind": "message-jitter", "cv": 1.0},
    ],
    ids=lambda fault: fault["kind"],
)
def test_faults_change_times_and_conserve_tokens(fault: dict[str, Any]) -> None:
    """The same again with the same seed; the well run differs."""
    ill, again, well = run(faults=[fault]), run(faults=[fault]), run()
    assert ill.steps.equals(again.steps)
    assert not ill.steps.step_time_s.equals(well.steps.step_time_s)
    assert ill.experts.equals(well.experts)


def test_a_stopped_gpu_does_not_stop_those_that_ask_nothing_of_it() -> None:
    """Grouped experts make all GPUs wait; with queues a GPU of another node is ahead at the end of the first layers."""
    fault = [{"kind": "gpu-pause", "gpu": 0, "duration_s": 0.02}]
    queued, grouped = run(faults=fault), run(faults=fault, simulation__experts="grouped")

    def begins(result: Result, layer: int) -> float:
        rows = result.timeline
        return float(rows[(rows.kind == "attention") & (rows.layer == layer) & (rows.gpu == 5)].start_s.min())

    assert begins(queued, 1) < 0.02
    assert begins(grouped, 2) > 0.02


def test_the_timeline_has_tasks_messages_and_waits() -> None:
    """Streams 0, 1 and 2; what waits in queues is what the experts processed."""
    result = run(keep__timeline_steps=1)
    timeline = result.timeline
    assert sorted(timeline.stream.unique()) == [0, 1, 2]
    assert set(timeline[timeline.stream == 1].kind) == {"dispatch", "combine"}
    assert set(timeline[timeline.stream == 2].kind) == {"queue"}
    served = timeline[timeline.kind == "experts"].tokens.sum()
    assert served == timeline[timeline.kind == "queue"].tokens.sum()
    assert served == result.experts[result.experts.step == 0].processed.sum()
    assert (timeline.end_s >= timeline.start_s).all()
    sent = timeline[timeline.stream == 1].bytes.sum()
    assert sent == result.steps[["bytes_within_node", "bytes_across_nodes"]].iloc[0].sum()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"simulation__engine": "compiled"}, "simulation.engine: found compiled, wanted auto or simpy"),
        ({"simulation__queue_overflow": "block"}, "simulation.queue_tokens: .*wanted a number of tokens"),
        ({"simulation__experts": "grouped", "simulation__queue_tokens": 4}, "simulation.queue_tokens: found 4"),
        ({"placement__expert_gpus": 8}, "placement.expert_gpus: found 8, wanted 1 to 7"),
        (
            {"routing__capacity": {"factor": 1.0, "pad": True}},
            "routing.capacity.pad: .*wanted false with queued experts",
        ),
        ({"simulation__queue_tokens": 0}, "simulation.queue_tokens"),
        (
            {
                "simulation__queue_tokens": 4,
                "simulation__queue_overflow": "next",
                "workload__sampling": "direct",
                "routing__strategy": "softmax-top-k",
            },
            "workload.sampling: .*simulation.queue_overflow next",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    """With field, what was found and what would be right."""
    with pytest.raises(ScenarioError, match=message):
        run(**changes)


def test_the_penalty_compares_with_queues_without_a_limit() -> None:
    """Large batches of prefill make a hot expert's queue long."""
    prefill = {"workload__phase": "prefill", "workload__tokens_per_gpu": 2048, "workload__sequence_tokens": 1024}
    even, skewed = (
        run(**prefill, workload__steps=1, workload__popularity={"exponent": exponent}).summary["imbalance_penalty"]
        for exponent in (0.0, 1.5)
    )
    assert even < 1.05
    assert skewed > 1.2 * even


def test_sms_that_the_network_holds_are_missing_to_queued_experts() -> None:
    """Beside two micro-batches; nothing else of the kernel changes."""
    prepared = prepare(scenario(simulation__overlap="two-batch", cluster__network__held_sms=100))
    free = prepare(scenario(simulation__overlap="none", cluster__network__held_sms=100))
    assert (prepared.comm_sms, free.comm_sms) == (100, 0)
    assert service_of(prepared, prompts=False)(4096) > 1.5 * service_of(free, prompts=False)(4096)


def test_gpus_without_experts_do_not_make_the_others_uneven() -> None:
    """Even choices of experts that stand on half of the GPUs."""
    even = {"routing__strategy": "round-robin", "placement__expert_gpus": 4, "placement__redundant_experts": 0}
    result = run(**even, simulation__experts="grouped", workload__tokens_per_gpu=64)
    assert result.summary["balancedness"]["mean"] > 0.99
    assert result.summary["balancedness_requested"]["mean"] > 0.99
