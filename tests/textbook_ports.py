"""Ports and shared uplinks of the textbook model: a queue and an arbiter each."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import simpy
from simpy.events import ProcessGenerator

AFTER_ALL_ELSE = 2
"""Arbitration comes after all arrivals, entries and releases of its instant (SimPy has 0 and 1)."""
UPLINK = AFTER_ALL_ELSE + 1
"""Uplinks come after egress ports, those of the senders' nodes first: what one does not hold up is at the next one."""
INGRESS = UPLINK + 100


class Uplink:
    """What the GPUs of a unit share: messages are as late as it is done with them after their tails would have passed.

    It passes the messages of exchange k before any of k + 1, inside one in the order of their keys.
    """

    def __init__(self, env: simpy.Environment, stage: int) -> None:
        self.env, self.stage, self.current, self.free, self.before, self.last = env, stage, 0, 0, 0, -1
        self.queue: dict[int, list[Any]] = defaultdict(list)
        self.expected: dict[int, int] = defaultdict(int)

    def expect(self, k: int) -> None:
        """One more message of exchange k will come."""
        self.expected[k] += 1
        self.last = max(self.last, k)

    def come(self, k: int, key: tuple[int, ...], work: int, sending: int) -> simpy.Event:
        """A head has come, with what it takes and how long it is sent; the event, the head's leaving, says how late."""
        leaves = self.env.event()
        heapq.heappush(self.queue[k], (int(self.env.now), key, work, sending, leaves))
        _later(self.env, UPLINK + self.stage, self.arbitrate)
        return leaves

    def arbitrate(self) -> None:
        """Say of all that have come and whose exchange it is how late they are."""
        while self.current <= self.last:
            while self.queue[self.current]:
                head, _, work, sending, leaves = heapq.heappop(self.queue[self.current])
                self.expected[self.current] -= 1
                self.free = max(self.free, head) + work
                late = max(0, self.free - (head + sending), self.before - head)
                self.env.process(self.leave(head + late, late, leaves))
            if self.expected[self.current]:
                return
            self.current, self.before = self.current + 1, self.free

    def leave(self, then: int, late: int, leaves: simpy.Event) -> ProcessGenerator:
        """The head leaves at a time."""
        yield self.env.timeout(then - self.env.now)
        leaves.succeed(late)


def _later(env: simpy.Environment, priority: int, call: Callable[[], None]) -> None:
    """Call after all else of this instant that has a lower priority."""
    event = env.event()
    event._ok, event._value = True, None  # noqa: SLF001
    event.callbacks.append(lambda _: call())
    env.schedule(event, priority=cast("Any", priority))


class Port:
    """Serves the messages of exchange k before any of k + 1, inside one in the order of their keys."""

    def __init__(self, env: simpy.Environment, priority: int) -> None:
        self.env, self.priority, self.busy, self.current = env, priority, False, 0
        self.queue: dict[int, list[Any]] = defaultdict(list)
        self.expected: dict[int, int] = defaultdict(int)
        self.last = -1
        self.log: list[tuple[int, int]] = []

    def expect(self, k: int) -> None:
        """One more message of exchange k will come."""
        self.expected[k] += 1
        self.last = max(self.last, k)

    def submit(self, k: int, key: tuple[int, ...], work: Callable[[], int]) -> tuple[simpy.Event, simpy.Event]:
        """Queue a message that occupies the port for work(), asked when it begins; events: service starts, ends."""
        started, finished = self.env.event(), self.env.event()
        heapq.heappush(self.queue[k], (key, work, started, finished))
        self.arbitrate_later()
        return started, finished

    def arbitrate_later(self) -> None:
        """Arbitrate after all else of this instant."""
        _later(self.env, self.priority, self.arbitrate)

    def arbitrate(self) -> None:
        """Begin the next message, if the port is idle and one is queued."""
        while self.current <= self.last and self.expected[self.current] == 0:
            self.current += 1
        if not self.busy and self.queue[self.current]:
            self.busy = True
            _, work, started, finished = heapq.heappop(self.queue[self.current])
            started.succeed()
            self.env.process(self.serve(work(), finished))

    def serve(self, work: int, finished: simpy.Event) -> ProcessGenerator:
        """Occupy the port for a message."""
        begin = int(self.env.now)
        yield self.env.timeout(work)
        self.log.append((begin, int(self.env.now)))
        self.busy = False
        self.expected[self.current] -= 1
        finished.succeed()
        self.arbitrate_later()
