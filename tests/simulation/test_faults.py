"""What goes wrong: at stated times, again and again, or a little everywhere."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim import Result, Scenario, simulate
from moesim.engine import jitter
from moesim.engine.faults import task_end
from moesim.errors import ScenarioError, TooLargeError
from moesim.simulation.conditions import conditions_of
from moesim.simulation.fault_schedule import FaultSchedule
from moesim.simulation.prepare import prepare
from moesim.simulation.state import start

SMALL = {
    "workload.steps": 3,
    "workload.tokens_per_gpu": 12,
    "cluster.nodes": 2,
    "cluster.gpus_per_node": 4,
    "model.n_layers": 4,
    "model.dense_layers": [],
    "simulation.network": "port",
}


def scenario(*faults: dict[str, Any], **changes: Any) -> Scenario:
    """A small decode with faults."""
    return Scenario.from_yaml("deepseek-v3-decode", overrides={**SMALL, "faults": list(faults), **changes})


def run(*faults: dict[str, Any], **changes: Any) -> Result:
    """Its result."""
    return simulate(scenario(*faults, **changes))


def schedule_of(fault: dict[str, Any]) -> FaultSchedule:
    """The schedule of one fault."""
    return prepare(scenario(fault)).faults


def test_a_task_by_hand() -> None:
    """100 of work from 10: full speed to 50, half speed to 90, stopped to 95, then full: 10 + 40 + 40 + 5 + 40."""
    slow = np.array([[0, 50, 90, 2], [0, 90, 95, math.inf], [1, 0, 1000, 9]])
    assert task_end(10, 100, 0, slow) == 135
    assert task_end(10, 100, 1, slow) == 910
    assert task_end(10, 100, 2, slow) == 110
    assert task_end(60, 0, 0, slow) == 60


@given(
    st.integers(0, 60),
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(0, 80), st.integers(1, 40), st.sampled_from([1, 2, 3, math.inf])), max_size=4),
)
def test_a_task_ends_when_its_work_is_done(start: int, work: int, intervals: list[tuple[int, int, float]]) -> None:
    """Against a walk of one picosecond at a time in exact fractions."""
    slow = np.array([(0, begin, begin + length, factor) for begin, length, factor in intervals]).reshape(-1, 4)
    now, done = start, Fraction(0)
    while done < work:
        speed = Fraction(1)
        for begin, length, factor in intervals:
            if begin <= now < begin + length:
                speed = Fraction(0) if math.isinf(factor) else speed / int(factor)
        done += speed
        now += 1
    assert task_end(start, work, 0, slow) == now


def test_a_slow_gpu_computes_slower_for_its_interval_only() -> None:
    """Steps that begin after it are those of a run without."""
    well = run()
    first = float(well.steps.step_time_s[0])
    ill = run({"kind": "slow-gpu", "gpu": 5, "factor": 3.0, "duration_s": first / 2})
    assert ill.steps.step_time_s[0] > first
    assert ill.steps.step_time_s[1:].tolist() == well.steps.step_time_s[1:].tolist()
    computing = ["attention_s", "router_s", "shared_experts_s", "experts_s", "head_s"]
    others = ill.gpus.gpu != 5
    assert ill.gpus[others][computing].equals(well.gpus[others][computing])
    assert (ill.gpus[(~others) & (ill.gpus.step == 0)].attention_s.to_numpy() > well.gpus.attention_s[5]).all()


def test_a_gpu_that_is_slow_throughout_takes_so_many_times_as_long() -> None:
    """Every one of its tasks."""
    well, ill = run(), run({"kind": "slow-gpu", "gpu": 2, "factor": 4.0})
    mine = well.gpus.gpu == 2
    np.testing.assert_allclose(ill.gpus[mine].experts_s, 4 * well.gpus[mine].experts_s, rtol=1e-9)


def test_all_wait_for_a_gpu_that_stops() -> None:
    """The step under way takes as much longer, all of it straggler wait or the stopped task."""
    well, ill = run(), run({"kind": "gpu-pause", "gpu": 1, "start_s": 1e-5, "duration_s": 0.02})
    longer = ill.steps.step_time_s[0] - well.steps.step_time_s[0]
    assert 0.02 - 1e-3 < longer <= 0.02 + 1e-9
    assert ill.steps.wait_s[0] > well.steps.wait_s[0] + 0.015


def test_a_slow_link_slows_the_exchanges_of_its_level() -> None:
    """Bytes stay what they are; computing too."""
    well, ill = run(), run({"kind": "slow-link", "gpu": 0, "level": "across_nodes", "factor": 10.0})
    assert (ill.steps.step_time_s > well.steps.step_time_s).all()
    assert ill.links.equals(well.links)
    assert ill.gpus.experts_s.equals(well.gpus.experts_s)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "compute-jitter", "cv": 0.3},
        {"kind": "message-jitter", "cv": 1.0, "distribution": "exponential"},
        {"kind": "slow-gpu", "factor": 3.0, "mean_time_between_s": 0.004, "duration_s": 0.001},
        {"kind": "gpu-pause", "mean_time_between_s": 0.02, "duration_s": 0.0005},
        {
            "kind": "slow-link",
            "level": "across_nodes",
            "factor": 5.0,
            "mean_time_between_s": 0.002,
            "duration_s": 0.002,
        },
    ],
    ids=lambda fault: fault["kind"],
)
def test_random_faults_are_the_same_again_and_in_both_engines(fault: dict[str, Any]) -> None:
    """One seed, one result; another seed, another."""
    result = run(fault)
    assert result.steps.equals(run(fault, **{"simulation.engine": "simpy"}).steps)
    assert not result.steps.step_time_s.equals(run(fault, seed=99).steps.step_time_s)
    assert not result.steps.step_time_s.equals(run().steps.step_time_s)


def test_jitter_has_the_stated_mean_and_variation() -> None:
    """Over 40,000 draws, within 4 standard errors."""
    for lognormal, cv in ((True, 0.5), (False, 0.5), (False, 1.0)):
        out = np.empty((200, 200))
        jitter(1, 0, 0, cv, lognormal, out)
        assert abs(out.mean() - 1) < 4 * cv / 200
        assert abs(out.std() - cv) < 0.05 * cv
        assert out.min() >= (0 if lognormal else 1 - cv)


def test_events_come_as_often_as_stated_and_never_overlap_on_a_gpu() -> None:
    """Mean time between the end of one and the begin of the next, over some 8,000 events."""
    schedule = schedule_of({"kind": "slow-gpu", "factor": 2.0, "mean_time_between_s": 0.5, "duration_s": 0.25})
    gaps = []
    for gpu in range(schedule.n_gpus):
        events = [event for event in schedule.events(0, 0.0, 750.0) if event.gpu == gpu]
        known = np.array([(event.begin_s, event.end_s) for event in events])
        np.testing.assert_allclose(known[:, 1] - known[:, 0], 0.25)
        gaps += [known[0, 0], *(known[1:, 0] - known[:-1, 1])]
    assert min(gaps) > 0
    assert abs(np.mean(gaps) - 0.5) < 4 * 0.5 / math.sqrt(len(gaps))


def test_events_do_not_depend_on_when_they_are_asked_for() -> None:
    """Second by second, backwards, or all at once."""
    fault = {"kind": "slow-gpu", "factor": 2.0, "mean_time_between_s": 0.5, "duration_s": 0.25}
    forwards, backwards = schedule_of(fault), schedule_of(fault)
    whole = list(schedule_of(fault).events(0, 0.0, 20.0))
    for begin in range(20):
        wanted = [event for event in whole if event.begin_s < begin + 1.0 and event.end_s > begin]
        assert list(forwards.events(0, begin, begin + 1.0)) == wanted
    for begin in reversed(range(20)):
        wanted = [event for event in whole if event.begin_s < begin + 1.0 and event.end_s > begin]
        assert list(backwards.events(0, begin, begin + 1.0)) == wanted


def test_conditions_are_values_of_a_plan_and_a_state() -> None:
    """Asked for again they are the same, and a longer interval begins with a shorter one."""
    plan = prepare(scenario({"kind": "slow-gpu", "factor": 2.0, "mean_time_between_s": 0.5, "duration_s": 0.25}))
    state = dataclasses.replace(start(plan), clock_ps=3 * 10**12)
    short, again, long = (conditions_of(plan, state, length_ps) for length_ps in (1e12, 1e12, 5e12))
    assert len(short.slow_gpus) > 0
    np.testing.assert_array_equal(short.slow_gpus, again.slow_gpus)
    inside = long.slow_gpus[long.slow_gpus[:, 1] < 1e12]
    np.testing.assert_array_equal(inside, short.slow_gpus)


@pytest.mark.parametrize(
    "fault, message",
    [
        ({"kind": "slow-gpu", "gpu": 99, "factor": 2.0}, "faults.0.gpu: found 99, wanted 0 to 7"),
        ({"kind": "slow-gpu", "factr": 2.0}, "did you mean|wanted factor"),
        ({"kind": "slow-gpu"}, "wanted factor, which a slow-gpu needs"),
        ({"kind": "boom"}, "faults.0.kind: found 'boom'"),
        ({"kind": "gpu-pause", "gpu": 1}, "duration_s, which a gpu-pause needs"),
        ({"kind": "gpu-pause", "duration_s": 1.0}, "gpu, which a gpu-pause needs"),
        ({"kind": "slow-gpu", "factor": 2.0, "mean_time_between_s": 1.0}, "duration_s: what happens again must end"),
        ({"kind": "compute-jitter", "cv": 0.1, "gpu": 2}, "no gpu for a compute-jitter"),
        ({"kind": "compute-jitter", "cv": 1.1, "distribution": "exponential"}, "at most 1 for an exponential"),
        ({"kind": "slow-gpu", "factor": 0.5}, "greater than or equal to 1"),
        ({"factor": 2.0}, "faults.0.kind: found nothing"),
    ],
)
def test_wrong_faults_are_refused(fault: dict[str, Any], message: str) -> None:
    """With the field, what was found and what would be right."""
    with pytest.raises(ScenarioError, match=message):
        run(fault)


def test_faults_of_messages_need_messages() -> None:
    """The closed form has none."""
    with pytest.raises(ScenarioError, match=r"simulation\.network: port"):
        run({"kind": "message-jitter", "cv": 0.1}, **{"simulation.network": "closed-form"})


def test_latency_below_a_picosecond_is_refused() -> None:
    """The engine's rules need at least one."""
    changes = {"cluster.network.dispatch_latency_us": [1e-7, 1.0]}
    with pytest.raises(ScenarioError, match="1 ps"):
        run(**changes)


def slow(n: int, **interval: float) -> list[dict[str, Any]]:
    """So many faults that make every GPU 1,000 times slower, at once."""
    return [{"kind": "slow-gpu", "factor": 1000.0, **interval}] * n


@pytest.mark.parametrize(
    "how", [{}, {"simulation.network": "closed-form"}, {"simulation.engine": "simpy"}, {"simulation.experts": "queued"}]
)
def test_factors_that_multiply_beyond_64_bits_are_refused(how: dict[str, Any]) -> None:
    """One sentence instead of times that wrap around; two at once are a million, as they should be."""
    small = {**how, "workload.steps": 1, "model.n_layers": 1}
    well, ill = run(**small), run(*slow(2), **small)
    tasks = well.summary["breakdown_s"]["attention"], ill.summary["breakdown_s"]["attention"]
    assert tasks[1] == pytest.approx(1e6 * tasks[0], rel=1e-6)
    for n in (5, 9):
        with pytest.raises(TooLargeError, match=r"a step takes .*, wanted less than 4,611,686 s"):
            run(*slow(n), **small)


def test_factors_that_hold_for_a_short_time_only_are_no_long_step() -> None:
    """Five at once in the first microsecond, and five one after the other."""
    faults = slow(5, duration_s=1e-6) + [
        fault for i in range(5) for fault in slow(1, start_s=2e-6 * (i + 1), duration_s=1e-6)
    ]
    well, ill = run(), run(*faults)
    assert ill.summary["simulated_s"] == pytest.approx(well.summary["simulated_s"] + 6e-6, abs=1e-6)
