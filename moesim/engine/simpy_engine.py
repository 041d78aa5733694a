"""The SimPy interpreter of a program: one event per operation and GPU.

Order among events of the same instant is SimPy's: the one scheduled first.
Nothing in the model depends on it: an exchange's ends follow from its entries
and from when the ports are free, and are found in one call when its last
participant enters.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import simpy
from numpy.typing import NDArray
from simpy.events import Timeout

from moesim.engine.admission import admitted, check_admission
from moesim.engine.closed_form import transfer_ps
from moesim.engine.faults import task_end
from moesim.engine.port_exchange import exchange, latencies, node_copies, used_uplinks
from moesim.engine.ports import Ports, free_ports, free_uplinks
from moesim.errors import DeadlockError
from moesim.types import PARTS, Part, Program, Timeline

Callback = Callable[[simpy.Event], None]


def run(program: Program) -> Timeline:
    """Run a program to its end.

    Raises:
        DeadlockError: operations were left waiting; the text lists them.
        ConservationError: a slot was sent more tokens than it admits.
    """
    check_admission(program)
    step = Step(program)
    with without_gc():
        step.start()
        step.env.run()
    step.check_done()
    end = np.array(step.ended, dtype=np.int64)
    return Timeline(start_ps=step.starts(end), end_ps=end, admitted=admitted(program), n_events=end.size)


class Step:
    """One run of a program. Times are Python ints: a NumPy int would turn SimPy's clock into another type."""

    def __init__(self, program: Program) -> None:
        self.env = simpy.Environment()
        self.program = program
        n_ops, n_gpus = program.n_operations, program.n_gpus
        self.ended: list[list[int | float]] = [[-1] * n_gpus for _ in range(n_ops)]
        self._duration: list[list[int]] = program.duration_ps.tolist()
        self._waits_for = _without_detours(program.waits_for())
        self._waiting = [[len(before)] * n_gpus for before in self._waits_for]
        self._followers: list[list[int]] = [[] for _ in range(n_ops)]
        for o, before in enumerate(self._waits_for):
            for p in before:
                self._followers[p].append(o)
        delays = _delays(program)
        # what begins an operation on a GPU; followers come later in the list, so it is built from the end
        self.begin: list[Callable[[int], None]] = [lambda _: None] * n_ops
        for o in range(n_ops - 1, -1, -1):
            self.begin[o] = self._exchange(o, delays) if program.exchange_row[o] >= 0 else self._task(o)

    def start(self) -> None:
        """Start what waits for nothing."""
        for o, before in enumerate(self._waits_for):
            if not before:
                for x in range(self.program.n_gpus):
                    self.begin[o](x)

    def _task(self, o: int) -> Callable[[int], None]:
        """A task runs for its duration."""
        env, duration, callbacks = self.env, self._duration[o], [self._end(o)]
        slow = self.program.slow_gpus
        if len(slow):

            def begin_slowly(x: int) -> None:
                now = int(env.now)
                delay = int(task_end(now, duration[x], x, slow)) - now
                Timeout(env, delay, x).callbacks = callbacks

            return begin_slowly

        def begin(x: int) -> None:
            # the list is shared: SimPy takes it off the event before it calls, and nothing else waits
            Timeout(env, duration[x], x).callbacks = callbacks

        return begin

    def _exchange(self, o: int, delays: Callable[[int, list[int]], list[int]]) -> Callable[[int], None]:
        """An exchange moves when its last participant has entered."""
        env, callbacks = self.env, [self._end(o)]
        entries = [0] * self.program.n_gpus
        absent = self.program.n_gpus

        def begin(x: int) -> None:
            nonlocal absent
            entries[x] = int(env.now)
            absent -= 1
            if absent == 0:
                for gpu, delay in enumerate(delays(o, entries)):
                    Timeout(env, delay, gpu).callbacks = callbacks

        return begin

    def _end(self, o: int) -> Callback:
        """An operation ends on a GPU: what waited for it alone, or for it last, begins."""
        env, ended, waiting = self.env, self.ended[o], self._waiting
        followers = self._followers[o]
        if len(followers) == 1 and len(self._waits_for[followers[0]]) == 1:
            begin = self.begin[followers[0]]

            def pass_on(event: simpy.Event) -> None:
                # the private names spare two property calls an event, a tenth of the run
                x = event._value  # noqa: SLF001
                ended[x] = env._now  # noqa: SLF001
                begin(x)

            return pass_on

        begins = [(self.begin[follower], waiting[follower]) for follower in followers]

        def release(event: simpy.Event) -> None:
            x = event._value  # noqa: SLF001
            ended[x] = env._now  # noqa: SLF001
            for begin, missing in begins:
                missing[x] -= 1
                if missing[x] == 0:
                    begin(x)

        return release

    def starts(self, end: NDArray[np.int64]) -> NDArray[np.int64]:
        """When each operation began: when the last that it waited for had ended."""
        start = np.zeros_like(end)
        for o, before in enumerate(self._waits_for):
            if before:
                start[o] = end[list(before)].max(axis=0)
        return start

    def check_done(self) -> None:
        """Refuse a run that stopped with work left."""
        waiting = [
            f"{PARTS[self.program.kind[o]]} of layer {self.program.layer[o]} on GPU {x}"
            for o, ends in enumerate(self.ended)
            for x, end in enumerate(ends)
            if end < 0
        ]
        if waiting:
            raise work_left(waiting)


def work_left(waiting: Sequence[str]) -> DeadlockError:
    """The error of a step that stopped although these operations or queues wait."""
    more = f" and {len(waiting) - 5} more" if len(waiting) > 5 else ""
    return DeadlockError(f"the step stopped with work left: {'; '.join(waiting[:5])}{more}")


def _delays(program: Program) -> Callable[[int, list[int]], list[int]]:
    """How long after its last entry an exchange ends on each GPU, as a function of it and its entries."""
    n_gpus = program.n_gpus
    if program.network != "port" or n_gpus == 1:
        transfer: list[list[int]] = transfer_ps(program).tolist()
        return lambda o, _: transfer[o]
    levels, nodes = program.levels, node_copies(program)
    free, uplink_free = free_ports(n_gpus, levels), free_uplinks(n_gpus, program.gpus_per_node, levels)
    units, port = (np.array(values, dtype=np.int64) for values in (levels.units, levels.ports))
    end, arrival = np.zeros(n_gpus, dtype=np.int64), np.zeros((n_gpus, n_gpus), dtype=np.int64)
    latency = latencies(program)
    forward: list[bool] = (program.kind == Part.DISPATCH).tolist()
    per_node = program.copy_rule == "per-node"

    def resolve(o: int, entries: list[int]) -> list[int]:
        row = program.exchange_row[o]
        rates = program.dispatch if forward[o] else program.combine
        ports = Ports(
            rates.out_ps,
            rates.in_ps,
            latency[o],
            program.slow_links,
            program.gpus_per_node,
            free,
            units,
            port,
            used_uplinks(program, rates),
            uplink_free,
        )
        entry = np.array(entries, dtype=np.int64)
        exchange(forward[o], per_node, entry, program.copies[row], nodes[row], ports, end, arrival)
        if program.synchronous:
            end[:] = end.max()
        delays: list[int] = (end - entry.max()).tolist()
        return delays

    return resolve


@lru_cache(maxsize=16)  # the steps of a run have one structure
def _without_detours(waits_for: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Without the operations that another one waited for already (transitive reduction)."""
    behind: list[set[int]] = []  # all operations that have ended before each one begins
    result = []
    for before in waits_for:
        earlier = set[int]().union(*(behind[p] for p in before))
        result.append(tuple(p for p in before if p not in earlier))
        behind.append(earlier.union(before))
    return tuple(result)


@contextmanager
def without_gc() -> Iterator[None]:
    """The collector would walk all live events again and again: 3 times the run time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
