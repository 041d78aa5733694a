"""Steps inside a serving process: arrivals, batches and steps share one SimPy clock."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import simpy
from simpy.events import ProcessGenerator

from moesim.engine import run, step_process
from moesim.types import Program, Timeline
from tests.builders import program

BATCH = 3


def step_of(batch: int) -> Program:
    """A step of so many requests on four GPUs in two nodes, message by message; they take turns at being slow."""
    rng = np.random.default_rng(batch)
    return program(
        rng.integers(0, 3 + batch, (2, 4, 4)),
        attention_ps=np.roll([900, 300, 300, 300], batch) * batch,
        experts_ps=rng.integers(100, 200 * batch + 101, (2, 4)),
        gpus_per_node=2,
        network="port",
    )


def serve(arrivals: list[int]) -> list[tuple[int, int, int]]:
    """Begin, end and size of each batch of a server that takes what is there, up to BATCH requests."""
    env = simpy.Environment()
    queue = simpy.Store(env)
    steps: list[tuple[int, int, int]] = []

    def arrive() -> ProcessGenerator:
        for gap in np.diff([0, *arrivals]).tolist():
            yield env.timeout(gap)
            queue.put(env.now)

    def server() -> ProcessGenerator:
        served = 0
        while served < len(arrivals):
            first = yield queue.get()
            batch = [first]
            while queue.items and len(batch) < BATCH:
                batch.append((yield queue.get()))
            begin = env.now
            timeline = yield from step_process(env, step_of(len(batch)))
            assert isinstance(timeline, Timeline)
            assert type(env.now) is int
            assert env.now - begin == timeline.end_ps.max()
            steps.append((begin, env.now, len(batch)))
            served += len(batch)

    env.process(arrive())
    done = env.process(server())
    env.run(done)
    return steps


def test_steps_back_to_back_take_the_sum_of_their_times() -> None:
    """Nine requests that are there from the start are three full batches, one after the other."""
    one = int(run(step_of(BATCH)).end_ps.max())
    assert serve([0] * 9) == [(0, one, 3), (one, 2 * one, 3), (2 * one, 3 * one, 3)]


@pytest.mark.parametrize("seed", range(10))
def test_steps_of_arrivals_are_those_that_simpy_runs(seed: int) -> None:
    """Every batch begins when it can and ends when the reference interpreter says."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.integers(0, 4000, 12)).tolist()
    expected, taken, now = [], 0, 0
    while taken < len(arrivals):
        begin = max(now, arrivals[taken])
        size = min(BATCH, sum(at <= begin for at in arrivals[taken:]))
        now = begin + int(run(step_of(size)).end_ps.max())
        expected.append((begin, now, size))
        taken += size
    steps = serve(arrivals)
    assert steps == expected
    assert sum(size for *_, size in steps) == len(arrivals)
    assert all(end <= begin for (_, end, _), (begin, *_) in pairwise(steps))


def test_a_serving_step_is_one_event() -> None:
    """Whatever happens in the step, the process waits once."""
    env = simpy.Environment()
    step = step_process(env, step_of(2))
    (waited,) = [next(step)]
    assert isinstance(waited, simpy.events.Timeout)
    with pytest.raises(StopIteration) as ended:
        next(step)
    np.testing.assert_array_equal(ended.value.value.end_ps, run(step_of(2)).end_ps)
