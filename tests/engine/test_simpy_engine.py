"""The SimPy engine, against times worked by hand and closed forms, to the picosecond."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.engine import run, run_compiled
from moesim.engine.simpy_engine import Step
from moesim.errors import ConservationError, DeadlockError
from moesim.metrics import breakdown, critical_path
from moesim.types import PARTS, Exchange, Part, Program, Timeline
from tests.builders import exchange, program


def named(times: np.ndarray) -> dict[str, int]:
    """Parts that took any time."""
    return {part: int(ps) for part, ps in zip(PARTS, times, strict=True) if ps}


def test_two_gpus_and_two_layers_by_hand() -> None:
    """GPU 0 is slow at attention, GPU 1 at its experts; each waits for the other in turn.

    Layer 0: attention ends at 1000 and 400, so dispatch begins at 1000. GPU 0
    sends 10 copies of 3 ps and receives 20: both ports are busy for at most 60,
    and the flag takes 100: it ends at 1160 on both. Experts: 300 and 900, to
    1460 and 2060. Combine begins at 2060 and runs the matrix back at 5 ps: 100
    + 100, to 2260. Layer 1 repeats with 2 copies each way: dispatch 106,
    combine 110, experts 300 and 900.
    """
    step = program(
        [[[4, 10], [20, 0]], [[0, 2], [2, 0]]],
        attention_ps=[1000, 400],
        experts_ps=[[300, 900], [300, 900]],
        head_ps=50,
    )
    timeline = run(step)
    kinds = [PARTS[k] for k in step.kind]
    assert kinds == ["attention", "router", "dispatch", "experts", "combine"] * 2 + ["head"]
    assert timeline.end_ps.tolist() == [
        [1000, 400],
        [1000, 400],
        [1160, 1160],
        [1460, 2060],
        [2260, 2260],
        [3260, 2660],
        [3260, 2660],
        [3366, 3366],
        [3666, 4266],
        [4376, 4376],
        [4426, 4426],
    ]
    parts = breakdown(step, timeline)
    assert named(parts[0]) == {
        "attention": 2000,
        "experts": 600,
        "head": 50,
        "dispatch": 266,
        "combine": 310,
        "wait": 1200,
    }
    assert named(parts[1]) == {
        "attention": 800,
        "experts": 1800,
        "head": 50,
        "dispatch": 266,
        "combine": 310,
        "wait": 1200,
    }
    by_part, by_gpu = critical_path(step, timeline)
    assert named(by_part) == {"attention": 2000, "experts": 1800, "head": 50, "dispatch": 266, "combine": 310}
    assert by_gpu.sum() == 4426
    assert timeline.n_events == 22


def test_balanced_tokens_take_the_analytic_sum() -> None:
    """With equal GPUs the step is the sum of its rounded parts, and nobody waits."""
    n, layers, copies = 4, 3, 6
    matrix = np.full((layers, n, n), copies)
    step = program(matrix, attention_ps=[700] * n, experts_ps=[[333] * n] * layers, router_ps=11, head_ps=17)
    timeline = run(step)
    dispatch, combine = 100 + (n - 1) * copies * 3, 100 + (n - 1) * copies * 5
    assert timeline.end_ps.max() == layers * (700 + 11 + dispatch + 333 + combine) + 17
    assert breakdown(step, timeline)[:, Part.WAIT].tolist() == [0] * n


def test_levels_cost_their_own_latency_and_port() -> None:
    """Two nodes of two: across nodes 7 ps a copy and 1000 ps, inside 3 ps and 100 ps; the slower level decides."""
    copies = np.zeros((1, 4, 4), dtype=int)
    copies[0, 0] = [9, 500, 10, 0]  # GPU 0 keeps 9, sends 500 to its neighbour and 10 across
    step = program(copies, attention_ps=[0] * 4, experts_ps=[[0] * 4], gpus_per_node=2)
    dispatch = run(step).end_ps[2]
    assert dispatch.tolist() == [100 + 1500, 100 + 1500, 1000 + 70, 1000]


def test_a_per_node_collective_forwards_inside_the_node() -> None:
    """GPU 0 sends one copy across to GPU 2, which hands it on to GPU 3; both latencies count everywhere."""
    copies = np.zeros((1, 4, 4), dtype=int)
    copies[0, 0, 3] = 10
    nodes = np.zeros((1, 4, 2), dtype=int)
    nodes[0, 0, 1] = 10
    step = program(
        copies,
        attention_ps=[0] * 4,
        experts_ps=[[0] * 4],
        gpus_per_node=2,
        copy_rule="per-node",
        node_copies=nodes,
    )
    dispatch = run(step).end_ps[2]
    assert dispatch.tolist() == [1100 + 70, 1100, 1100 + 70, 1100 + 30]


def test_one_gpu_exchanges_nothing() -> None:
    """No port, no flag, no latency."""
    step = program([[[5]]], attention_ps=[10], experts_ps=[[20]])
    assert run(step).end_ps[:, 0].tolist() == [10, 10, 10, 30, 30, 30]


def test_experts_admit_what_their_slots_may_take() -> None:
    """The timeline tells what was admitted; more than the capacity is a lost law."""
    arguments: dict[str, Any] = {"attention_ps": [0, 0], "experts_ps": [[5, 5]], "slot_tokens": [[3, 4]]}
    fits = program([[[0, 0], [0, 0]]], **arguments, capacity=[[3, -1]])
    assert run(fits).admitted.tolist() == [[3, 4]]
    for interpret in (run, run_compiled):
        with pytest.raises(ConservationError, match="slot 1 of MoE layer 0 got 4 tokens, it admits 3"):
            interpret(program([[[0, 0], [0, 0]]], **arguments, capacity=[[3, 3]]))


def test_a_step_that_stops_with_work_left_names_who_waits() -> None:
    """A GPU that never enters leaves the others waiting for ever: an error, not a quiet return."""
    step = Step(program([[[0, 1], [1, 0]]], attention_ps=[10, 10], experts_ps=[[5, 5]]))
    step.begin[0](0)  # GPU 1 never begins
    step.env.run()
    with pytest.raises(DeadlockError, match="attention of layer 0 on GPU 1"):
        step.check_done()


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random direct programs with ties, zero sizes and durations."""
    nodes, per_node, layers = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    n = nodes * per_node
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    top = draw(st.sampled_from([1, 3, 1000]))
    step = program(
        rng.integers(0, top, (layers, n, n)),
        attention_ps=rng.integers(0, top, n),
        experts_ps=rng.integers(0, top, (layers, n)),
        head_ps=int(rng.integers(0, top)),
        gpus_per_node=per_node,
    )
    return dataclasses.replace(step, synchronous=draw(st.booleans()))


def sweep(step: Program) -> np.ndarray:
    """Ends of all operations by the recurrence alone: no events, no SimPy."""
    n, m = step.n_gpus, step.gpus_per_node
    now = [0] * n
    ends = []
    for o in range(step.n_operations):
        layer = step.exchange_row[o]
        if layer < 0:
            now = [t + int(d) for t, d in zip(now, step.duration_ps[o], strict=True)]
        elif n > 1:
            forward = PARTS[step.kind[o]] == "dispatch"
            ports, matrix = (step.dispatch, step.copies[layer]) if forward else (step.combine, step.copies[layer].T)
            begin = max(now)
            for x in range(n):
                finish = []
                for level in (0, 1):
                    others = [d for d in range(n) if d != x and (d // m != x // m) == bool(level)]
                    if others:
                        out = sum(int(matrix[x, d]) for d in others) * int(ports.out_ps[level, x])
                        into = sum(int(matrix[d, x]) for d in others) * int(ports.in_ps[level, x])
                        finish.append(int(ports.latency_ps[level]) + max(out, into))
                now[x] = begin + max(finish)
            now = [max(now)] * n if step.synchronous else now
        ends.append(list(now))
    return np.array(ends)


@given(programs())
def test_both_interpreters_equal_the_recurrence(step: Program) -> None:
    """Every end of every operation, exactly; the parts and the critical path sum to the step."""
    timeline, compiled = run(step), run_compiled(step)
    np.testing.assert_array_equal(timeline.end_ps, sweep(step))
    for name in ("start_ps", "end_ps", "admitted"):
        np.testing.assert_array_equal(getattr(compiled, name), getattr(timeline, name))
    assert compiled.n_events == timeline.n_events
    makespan = timeline.end_ps.max()
    assert (breakdown(step, timeline).sum(axis=1) == makespan).all()
    by_part, by_gpu = critical_path(step, timeline)
    assert by_part.sum() == by_gpu.sum() == makespan
    assert by_part[Part.WAIT] == 0


@given(programs(), st.integers(2, 9))
def test_all_times_scale(step: Program, factor: int) -> None:
    """Everything times 7 makes every start and end times 7."""

    def scaled(e: Exchange) -> Exchange:
        return dataclasses.replace(
            e, out_ps=e.out_ps * factor, in_ps=e.in_ps * factor, latency_ps=e.latency_ps * factor
        )

    slow = dataclasses.replace(
        step,
        duration_ps=step.duration_ps * factor,
        dispatch=scaled(step.dispatch),
        combine=scaled(step.combine),
    )
    fast: Timeline = run(step)
    np.testing.assert_array_equal(run(slow).end_ps, fast.end_ps * factor)
    np.testing.assert_array_equal(run(slow).start_ps, fast.start_ps * factor)


@given(programs(), st.data())
def test_nothing_made_faster_ends_anything_later(step: Program, data: st.DataObject) -> None:
    """The engine is max and plus only."""
    o = data.draw(st.integers(0, step.n_operations - 1))
    x = data.draw(st.integers(0, step.n_gpus - 1))
    duration = step.duration_ps.copy()
    duration[o, x] //= 2
    faster = dataclasses.replace(step, duration_ps=duration, dispatch=exchange(step.n_gpus, copy_ps=(2, 7)))
    assert (run(faster).end_ps <= run(step).end_ps).all()
