"""Laws of whole programs: direct exchanges, tasks and streams together are nothing but max and plus."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moesim.engine import longest_ps, run, run_compiled
from moesim.metrics import breakdown, critical_path
from moesim.types import EXCHANGE_STREAM, Exchange, Part, Program, Timeline
from tests.engine.programs import random_program

NO_LINKS = np.empty((0, 5))
NO_GPUS = np.empty((0, 4))


def steady(seed: int, *, per_node: bool | None = None) -> Program:
    """A random program without faults; messages may still have latencies of their own."""
    return dataclasses.replace(random_program(seed, per_node=per_node), slow_gpus=NO_GPUS, slow_links=NO_LINKS)


# times scale


def scaled(program: Program, factor: int) -> Program:
    """Every time of it, those of degraded links as well."""

    def rates(ports: Exchange) -> Exchange:
        fields = ("out_ps", "in_ps", "latency_ps")
        return dataclasses.replace(ports, **{name: getattr(ports, name) * factor for name in fields})

    return dataclasses.replace(
        program,
        duration_ps=program.duration_ps * factor,
        dispatch=rates(program.dispatch),
        combine=rates(program.combine),
        latency_ps=None if program.latency_ps is None else program.latency_ps * factor,
        slow_links=program.slow_links * [1, 1, factor, factor, 1],
    )


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.sampled_from(["port", "closed-form"]))
def test_all_times_scale(seed: int, factor: int, network: str) -> None:
    """Every start and end, direct and two-hop, with degraded links (slow GPUs end in whole picoseconds, rounded)."""
    program = dataclasses.replace(random_program(seed), slow_gpus=NO_GPUS, network=network)
    once, more = run_compiled(program), run_compiled(scaled(program, factor))
    np.testing.assert_array_equal(more.start_ps, once.start_ps * factor)
    np.testing.assert_array_equal(more.end_ps, once.end_ps * factor)


# nothing made faster or smaller ends anything later

Change = Callable[[Program, int], Program | None]


def less(array: np.ndarray, which: int, least: int) -> np.ndarray | None:
    """A copy with one number above `least` made smaller by some of what it may lose; None if there is none."""
    places = np.flatnonzero(array > least)
    if not len(places):
        return None
    better = array.copy()
    place = places[which % len(places)]
    better.flat[place] -= 1 + which % (int(better.flat[place]) - least)
    return better


def of_program(name: str, least: int) -> Change:
    """A change that lessens one number of a field of the program."""

    def change(program: Program, which: int) -> Program | None:
        value = getattr(program, name)
        better = None if value is None else less(value, which, least)
        return None if better is None else dataclasses.replace(program, **{name: cast("Any", better)})

    return change


def of_ports(name: str) -> Change:
    """A change that lessens one number of the ports of an exchange."""

    def change(program: Program, which: int) -> Program | None:
        payload = "dispatch" if which % 2 else "combine"
        ports: Exchange = getattr(program, payload)
        better = less(getattr(ports, name), which // 2, 1)
        return (
            None
            if better is None
            else dataclasses.replace(program, **{payload: cast("Any", dataclasses.replace(ports, **{name: better}))})
        )

    return change


def latency(program: Program, which: int) -> Program | None:
    """Of one message of those that have their own; of a level otherwise."""
    if program.latency_ps is None:
        return of_ports("latency_ps")(program, which)
    return of_program("latency_ps", 1)(program, which)


def predecessor(program: Program, which: int) -> Program | None:
    """One operation fewer to wait for."""
    those = [o for o, before in enumerate(program.predecessors) if before]
    if not those:
        return None
    o = those[which % len(those)]
    before = list(program.predecessors)
    before[o] = before[o][1:]
    return dataclasses.replace(program, predecessors=tuple(before))


CHANGES: dict[str, Change] = {
    "duration": of_program("duration_ps", 0),
    "message": of_program("copies", 0),
    "egress": of_ports("out_ps"),
    "ingress": of_ports("in_ps"),
    "latency": latency,
    "predecessor": predecessor,
}


def later(program: Program, what: str, which: int) -> bool | None:
    """Whether any task ends later after a change for the better; None if there is nothing to change."""
    better = CHANGES[what](program, which)
    if better is None:
        return None
    return bool((run_compiled(better).end_ps > run_compiled(program).end_ps).any())


@settings(max_examples=400)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(CHANGES)), st.integers(0, 10**6))
def test_nothing_made_faster_or_smaller_ends_any_task_later(seed: int, what: str, which: int) -> None:
    """In direct mode, whole programs; slow and stopped GPUs may be among them."""
    program = dataclasses.replace(random_program(seed, per_node=False), slow_links=NO_LINKS)
    found = later(program, what, which)
    assume(found is not None)
    assert not found


@pytest.mark.slow
def test_two_hops_of_whole_programs_have_anomalies_and_direct_ones_none() -> None:
    """3,000 changes each: the law is no accident of programs in which nothing matters."""
    what = sorted(CHANGES)
    counts = {}
    for per_node in (False, True):
        found = [later(steady(seed, per_node=per_node), what[seed % len(what)], seed * 7919) for seed in range(3000)]
        counts[per_node] = sum(one for one in found if one)
    assert counts[False] == 0
    assert 10 < counts[True] < 500


def test_the_law_needs_first_come_first_served_ports_of_one_rate() -> None:
    """A link that is degraded for a while: a message that is ready earlier takes the slow rate, and ends later."""
    ports = Exchange(out_ps=np.full((2, 2), 1), in_ps=np.full((2, 2), 1), latency_ps=np.array([1, 1]))
    step = dataclasses.replace(
        hand_made([[0, 10], [0, 0]], attention=[5, 5]),
        dispatch=ports,
        combine=ports,
        slow_links=np.array([[0.0, 0, 0, 5, 9]]),
    )
    early = dataclasses.replace(step, duration_ps=np.array([[4, 5], [0, 0], [0, 0]]))
    assert run_compiled(step).end_ps[1, 1] == 5 + 10 + 1
    assert run_compiled(early).end_ps[1, 1] == 4 + 90 + 1


def hand_made(copies: Any, attention: list[int]) -> Program:
    """Attention, dispatch, combine of one layer; nothing else takes time."""
    from tests.builders import program as build

    step = build([copies], attention_ps=attention, experts_ps=[[0, 0]], network="port")
    keep = [int(np.flatnonzero(step.kind == part)[0]) for part in (Part.ATTENTION, Part.DISPATCH, Part.COMBINE)]
    return dataclasses.replace(
        step,
        kind=step.kind[keep],
        layer=step.layer[keep],
        stream=step.stream[keep],
        predecessors=((), (0,), (1,)),
        duration_ps=step.duration_ps[keep],
        exchange_row=step.exchange_row[keep],
    )


# whose time is whose


def assert_sums(program: Program, timeline: Timeline) -> None:
    """In integers, on every GPU; nothing runs twice at once on a stream, and no gap is left before a GPU's end."""
    makespan = int(timeline.end_ps.max())
    by_part, by_gpu = critical_path(program, timeline)
    assert by_part.sum() == by_gpu.sum() == makespan
    assert by_part[Part.WAIT] == 0
    assert (by_gpu >= 0).all()
    for stream in set(program.stream.tolist()):
        own = np.flatnonzero(program.stream == stream)
        assert (timeline.start_ps[own[1:]] >= timeline.end_ps[own[:-1]]).all()
    for x in range(program.n_gpus):
        covered = 0
        for o in np.argsort(timeline.start_ps[:, x], kind="stable"):
            assert timeline.start_ps[o, x] <= covered
            covered = max(covered, int(timeline.end_ps[o, x]))
    if len(set(program.stream.tolist()) - {EXCHANGE_STREAM}) <= 1:
        parts = breakdown(program, timeline)
        assert parts.dtype == np.int64
        assert (parts >= 0).all()
        assert (parts.sum(axis=1) == makespan).all()


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["port", "closed-form"]))
def test_parts_and_the_critical_path_sum_to_the_step(seed: int, network: str) -> None:
    """Random programs, by both interpreters."""
    program = dataclasses.replace(random_program(seed), network=network)
    if network == "closed-form":
        program = dataclasses.replace(program, latency_ps=None, slow_links=NO_LINKS)
    simpy, compiled = run(program), run_compiled(program)
    np.testing.assert_array_equal(simpy.start_ps, compiled.start_ps)
    np.testing.assert_array_equal(simpy.end_ps, compiled.end_ps)
    assert_sums(program, compiled)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["port", "closed-form"])
def test_they_sum_on_thousands_of_programs(network: str) -> None:
    """2,000 each."""
    for seed in range(2000):
        program = dataclasses.replace(steady(seed), network=network)
        assert_sums(program, run_compiled(program))


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_no_step_is_longer_than_its_bound(seed: int) -> None:
    """With all that is slow, stopped or late."""
    program = random_program(seed)
    assert run_compiled(program).makespan_ps <= longest_ps(program) * (1 + 1e-9)
