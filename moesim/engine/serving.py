"""A step inside somebody else's SimPy clock: a serving process runs it as one call and one event."""

from __future__ import annotations

from collections.abc import Generator

import simpy
from simpy.events import Event

from moesim.engine.compiled_engine import run_compiled
from moesim.engine.groups import in_groups
from moesim.types import Program, Timeline


def step_process(env: simpy.Environment, program: Program) -> Generator[Event, None, Timeline]:
    """A step that begins now, for a serving process.

    Used as `timeline = yield from step_process(env, program)`. The compiled
    interpreter finds all of the step's times at once and the process then waits
    until its end, so a step costs one event whatever its size. The environment's
    clock counts picoseconds; it stays a Python int if it was one. Times of the
    Timeline count from the step's begin.

    Raises:
        ConservationError: a slot was sent more tokens than it admits.
    """
    timeline = in_groups(run_compiled)(program)
    yield env.timeout(int(timeline.end_ps.max()))
    return timeline
