"""GPUs that are lost: what goes on, what is dropped, and when the others go on without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim import Result, Scenario, simulate
from moesim.errors import ScenarioError, TooLargeError
from moesim.types import PARTS

SMALL = {
    "workload.steps": 4,
    "workload.tokens_per_gpu": 12,
    "cluster.nodes": 2,
    "cluster.gpus_per_node": 4,
    "model.n_layers": 4,
    "model.dense_layers": [],
    "placement.redundant_experts": 0,
    "simulation.network": "port",
}
LOST = {"kind": "gpu-failure", "gpu": 5}


def scenario(*faults: dict[str, Any], **changes: Any) -> Scenario:
    """A small decode with faults and other overrides."""
    overrides = {**SMALL, "faults": list(faults), **{name.replace("__", "."): value for name, value in changes.items()}}
    return Scenario.from_yaml("deepseek-v3-decode", overrides=overrides)


def run(*faults: dict[str, Any], **changes: Any) -> Result:
    """Its result."""
    return simulate(scenario(*faults, **changes))


def half_of_second_step() -> float:
    """A time in the middle of the second step of a run in which nothing happens."""
    steps = run().steps
    return float(steps.start_s[1] + steps.step_time_s[1] / 2)


def experts_of(gpu: int) -> range:
    """256 experts on 8 GPUs, in order."""
    return range(32 * gpu, 32 * gpu + 32)


def test_without_copies_the_experts_of_a_lost_gpu_drop_from_then_on() -> None:
    """Steps before are as if nothing was to happen; after it the GPU has no tokens, no work and no bytes."""
    well, ill = run(), run({**LOST, "start_s": half_of_second_step()})
    assert ill.experts[ill.experts.step == 0].equals(well.experts[well.experts.step == 0])
    assert ill.steps.step_time_s[0] == well.steps.step_time_s[0]
    later = ill.experts[ill.experts.step >= 2]
    mine = later.expert.isin(experts_of(5))
    assert (later[mine].processed == 0).all()
    assert (later[mine].dropped == later[mine].requested).all()
    assert later[mine].dropped.sum() > 0
    assert (later[~mine].dropped == 0).all()
    assert (ill.steps.tokens[:2] == 96).all()
    assert (ill.steps.tokens[2:] == 84).all()
    gpu = ill.gpus[(ill.gpus.step >= 2) & (ill.gpus.gpu == 5)]
    assert (gpu[["processed", "sent_bytes", "received_bytes"]] == 0).all(axis=None)
    np.testing.assert_allclose(gpu.wait_s, ill.steps.step_time_s[2:])
    assert ill.summary["by_cause"]["lost_gpu"] == pytest.approx(ill.summary["drop_rate"])


def test_with_copies_elsewhere_only_the_lost_gpus_own_tokens_are_dropped() -> None:
    """A second copy of every expert on another GPU."""
    ill = run({**LOST, "start_s": half_of_second_step()}, placement__redundant_experts=256)
    assert (ill.steps.dropped[[0, 2, 3]] == 0).all()
    own_share = 12 * 8 * 4  # its tokens, choices, layers
    # of the step under way it loses what is left of its own tokens, and what had been sent to it
    assert 0 < ill.steps.dropped[1] < 2 * own_share + 300
    later = ill.experts[ill.experts.step >= 2]
    assert later.processed.equals(later.requested)


def test_in_the_step_under_way_layers_before_are_unharmed_and_later_ones_do_without() -> None:
    """Drops begin in the layer at hand and in the later ones are those of the lost tokens and experts."""
    ill, well = run({**LOST, "start_s": half_of_second_step()}), run()
    dropped = ill.layers[ill.layers.step == 1].dropped.to_numpy()
    assert dropped[0] == 0
    assert dropped[-1] > 12 * 8  # all choices of its tokens, and those of others for its experts
    assert (np.diff(dropped > 0) >= 0).all()
    experts = ill.experts[(ill.experts.step == 1) & (ill.experts.layer == 3)]
    assert (experts[experts.expert.isin(experts_of(5))].processed == 0).all()
    assert (
        ill.experts.requested[ill.experts.step == 1].tolist() == well.experts.requested[well.experts.step == 1].tolist()
    )


def test_the_others_wait_until_the_loss_is_noticed() -> None:
    """The step takes longer by the detection time, within what a smaller load saves."""
    at = half_of_second_step()
    soon, late = (run({**LOST, "start_s": at, "detection_s": t}) for t in (0.0, 0.05))
    longer = late.steps.step_time_s[1] - soon.steps.step_time_s[1]
    assert 0.045 < longer <= 0.05
    others = late.gpus[(late.gpus.step == 1) & (late.gpus.gpu != 5)]
    assert (others.wait_s > 0.045).all()
    # the lost GPU did something until it was lost and then nothing
    gone = late.gpus[(late.gpus.step == 1) & (late.gpus.gpu == 5)].iloc[0]
    assert gone.wait_s > 0.05
    assert late.experts.equals(soon.experts)


@pytest.mark.parametrize("network", ["closed-form", "port"])
@pytest.mark.parametrize("overlap", ["none", "shared-expert", "two-batch"])
@pytest.mark.parametrize("share", [0.3, 0.999])
def test_tokens_and_times_are_conserved_whenever_it_happens(network: str, overlap: str, share: float) -> None:
    """Both engines; laws are asserted in the run, and from the frames here."""
    changes = {"simulation__network": network, "simulation__overlap": overlap, "workload__steps": 2}
    at = float(run(**changes).steps.step_time_s[0]) * share
    faults = ({**LOST, "start_s": at, "detection_s": 1e-4}, {"kind": "gpu-failure", "gpu": 0, "start_s": at * 1.0005})
    result = run(*faults, **changes)
    simpy = run(*faults, **changes, simulation__engine="simpy")
    assert result.steps.equals(simpy.steps)
    assert result.gpus.equals(simpy.gpus)
    experts = result.experts
    assert experts.requested.equals(experts.processed + experts.dropped)
    assert (result.steps.tokens == [96, 72]).all()
    parts = result.gpus[[f"{part}_s" for part in PARTS]].sum(axis=1)
    np.testing.assert_allclose(parts, result.steps.step_time_s[result.gpus.step], rtol=1e-9)


def test_a_replacement_brings_tokens_and_experts_back() -> None:
    """From the first step that begins after it."""
    steps = run().steps
    back = float(steps.start_s[2] - steps.start_s[0])
    ill = run({**LOST, "start_s": 0.0, "recovery_s": back * 0.9})
    assert ill.steps.tokens.tolist() == [84, 84, 96, 96]
    assert (ill.steps.dropped[:2] > 0).all()
    assert (ill.steps.dropped[2:] == 0).all()


def test_a_run_stalls_until_the_replacement_where_an_expert_has_no_copy() -> None:
    """Nothing is dropped, the step takes as much longer; with copies nobody stalls."""
    fault = {**LOST, "start_s": half_of_second_step(), "recovery_s": 0.5, "orphans": "stall"}
    well, ill = run(), run(fault)
    assert ill.experts.equals(well.experts)
    assert 0.49 < ill.steps.step_time_s[1] - well.steps.step_time_s[1] <= 0.5
    with_copies = run(fault, placement__redundant_experts=256)
    assert with_copies.steps.step_time_s.max() < 0.1


def test_losses_at_a_rate_are_the_same_again() -> None:
    """Every GPU on its own, replaced after a while."""
    fault = {"kind": "gpu-failure", "mean_time_between_s": 0.02, "recovery_s": 0.004}
    ill = run(fault, workload__steps=12)
    assert ill.steps.equals(run(fault, workload__steps=12).steps)
    assert ill.steps.tokens.nunique() > 1
    assert ill.summary["by_cause"]["lost_gpu"] > 0
    again = simulate(Scenario.from_dict(ill.scenario))
    assert again.steps.equals(ill.steps)


def test_routers_that_see_whole_batches_see_those_that_are_there() -> None:
    """Experts choose among 84 tokens once the GPU is lost."""
    ill = run(
        {**LOST, "start_s": 0.0},
        routing__strategy="expert-choice",
        model__preset="mixtral-8x7b",
        cluster__nodes=1,
        cluster__gpus_per_node=8,
        cluster__network="nvlink4-ib400",
        model__n_layers=2,
    )
    assert (ill.steps.tokens == 84).all()


def test_what_happens_late_in_a_long_step_happens() -> None:
    """Steps of seconds, and a GPU that stops 1.5 s after the begin of one."""
    slow = {"cluster__network": {"preset": "nvlink4-ib400", "dispatch_latency_us": [1e6, 1e6]}, "model__n_layers": 2}
    well = run(**slow)
    assert well.steps.step_time_s[0] > 2
    ill = run({"kind": "gpu-pause", "gpu": 0, "start_s": 1.0005, "duration_s": 5.0}, **slow)
    assert ill.steps.step_time_s[0] > well.steps.step_time_s[0] + 3


@pytest.mark.parametrize("network", ["deepep-normal", "nvlink4-ib400-two-hop"])
def test_a_gpu_of_one_node_may_be_lost_with_copies_by_node(network: str) -> None:
    """Nothing is handed on there."""
    one_node = {"cluster__nodes": 1, "cluster__gpus_per_node": 8, "cluster__network": network}
    ill = run({**LOST, "start_s": 1e-4, "detection_s": 1e-3}, **one_node)
    assert (ill.steps.tokens[1:] == 84).all()
    assert ill.summary["by_cause"]["lost_gpu"] > 0


def test_a_loss_at_the_begin_of_a_step_must_be_noticed_too() -> None:
    """As one a moment later; without a time of detection the GPU was never there."""
    at_once, later = (run({**LOST, "start_s": at, "detection_s": 0.05}) for at in (0.0, 1e-9))
    assert 0.05 < at_once.steps.step_time_s[0] < 0.1
    assert at_once.steps.step_time_s[0] == pytest.approx(later.steps.step_time_s[0], rel=1e-2)
    assert (run({**LOST, "start_s": 0.0}).steps.tokens == 84).all()


def test_until_a_loss_is_noticed_nobody_computes() -> None:
    """Neither on the critical path nor in the timeline, however long it takes."""
    at = half_of_second_step()
    short, long = (run({**LOST, "start_s": at, "detection_s": d}, keep__timeline_steps=4) for d in (0.01, 1.0))
    for part in ("attention", "experts", "dispatch"):
        assert long.summary["critical_path_s"][part] == pytest.approx(short.summary["critical_path_s"][part], abs=2e-3)
    waits = [result.summary["critical_path_s"]["wait"] for result in (short, long)]
    assert waits[1] - waits[0] == pytest.approx(0.99 / 4, rel=0.01)
    assert sum(long.summary["critical_path_s"].values()) == pytest.approx(long.summary["step_time_s"]["mean"])
    assert "wait" not in run().summary["critical_path_s"]
    tasks = long.timeline[long.timeline["kind"].isin(["attention", "experts", "dense", "router"])]
    assert (tasks["end_s"] - tasks["start_s"]).max() < 0.01


def test_the_even_reference_of_a_loss_spreads_its_load_over_those_that_are_left() -> None:
    """A moment after the begin of a step as at its begin, when the GPU has no tokens either."""
    prefill = {"workload__phase": "prefill", "workload__tokens_per_gpu": 1024, "workload__sequence_tokens": 1024}
    prefill |= {"placement__redundant_experts": 256, "workload__steps": 1}
    at_once, later = (run({**LOST, "start_s": at}, **prefill).summary for at in (0.0, 1e-9))
    assert later["imbalance_penalty"] == pytest.approx(at_once["imbalance_penalty"], rel=0.05)


def test_losses_faster_than_steps_end_too() -> None:
    """Whole steps are lost, in reasonable time."""
    fault = {"kind": "gpu-failure", "mean_time_between_s": 1e-4, "detection_s": 1e-3, "recovery_s": 3e-4}
    assert run(fault, workload__steps=2).summary["by_cause"]["lost_gpu"] > 0


def test_more_simulated_time_than_picoseconds_can_count_is_refused() -> None:
    """Two months of steps of a day; sums would wrap around."""
    latency = {"dispatch_latency_us": [1e9, 1e9], "combine_latency_us": [1e9, 1e9]}
    slow = {"cluster__network": {"preset": "nvlink4-ib400", **latency}, "model__n_layers": 40}
    assert run(**slow, workload__steps=1).summary["simulated_s"] > 1000
    with pytest.raises(TooLargeError, match=r"step \d+ takes 80,\d+ s of simulated time on 8 GPUs"):
        run(**slow, workload__steps=64)


ONE = {"cluster__nodes": 1, "cluster__gpus_per_node": 1, "cluster__network": "nvlink4-ib400", "workload__steps": 5}
ONE |= {"model__preset": "mixtral-8x7b", "cluster__gpu": "h200-sxm"}


def test_where_all_are_lost_the_step_waits_for_the_first_replacement() -> None:
    """The only GPU is replaced after 10 ms: five steps, of which the first begins 10 ms late, with all its tokens."""
    well, ill = run(**ONE), run({"kind": "gpu-failure", "gpu": 0, "recovery_s": 0.01}, **ONE, keep__timeline_steps=5)
    late = ill.steps.step_time_s - well.steps.step_time_s
    np.testing.assert_allclose(late, [0.01, 0, 0, 0, 0], atol=1e-12)
    assert ill.steps.wait_s[0] == pytest.approx(0.01)
    assert ill.steps.tokens.equals(well.steps.tokens)
    assert (ill.steps.dropped == 0).all()
    assert ill.timeline.start_s.min() == pytest.approx(0.01)
    assert ill.timeline.end_s.max() == pytest.approx(ill.summary["simulated_s"])
    assert ill.summary["critical_path_s"]["wait"] == pytest.approx(0.01 / 5)
    assert sum(ill.summary["critical_path_s"].values()) == pytest.approx(ill.summary["step_time_s"]["mean"])


@pytest.mark.parametrize("expert_gpus", [None, 4])
def test_the_replacement_that_comes_first_goes_on_alone(expert_gpus: int | None) -> None:
    """All GPUs with tokens are lost in the second step; GPU 2 comes back after 20 ms, the others never."""
    at, n = half_of_second_step(), 8 if expert_gpus is None else 4
    faults = [
        {"kind": "gpu-failure", "gpu": x, "start_s": at, **({"recovery_s": 0.02} if x == 2 else {})} for x in range(n)
    ]
    ill = run(*faults, placement__expert_gpus=expert_gpus)
    assert ill.steps.tokens.tolist() == [12 * n, 12 * n, 12, 12]
    assert ill.steps.start_s[2] + ill.steps.step_time_s[2] > at + 0.02
    assert ill.steps.step_time_s[3] < 0.01
    with pytest.raises(
        ScenarioError, match=r"faults: found every GPU.* lost for good 0.0.* wanted recovery_s, or fewer"
    ):
        run(
            *faults[:2],
            *({"kind": "gpu-failure", "gpu": x, "start_s": at} for x in range(2, n)),
            placement__expert_gpus=expert_gpus,
        )


@pytest.mark.parametrize(
    "fault, changes, message",
    [
        ({"kind": "gpu-failure"}, {}, "wanted gpu, which a gpu-failure needs"),
        ({**LOST, "orphans": "stall"}, {}, "recovery_s, after which the run goes on"),
        ({**LOST, "duration_s": 1.0}, {}, "no duration_s for a gpu-failure"),
        (LOST, {"simulation__experts": "queued"}, "simulation.experts: grouped"),
        (LOST, {"cluster__network": "deepep-normal"}, "copies are neither per-node nor all"),
        (LOST, {"routing__capacity": {"factor": 1.0, "pad": True}}, "routing.capacity.pad: false"),
    ],
)
def test_what_cannot_be_lost_is_refused(fault: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    """With field, what was found and what would be right."""
    with pytest.raises(ScenarioError, match=message):
        run(fault, **changes)
