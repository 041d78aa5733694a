"""The decisions of one instant of the queued engine, made in an order that does not depend on that of SimPy's events.

All that happens at an instant comes first, in any order: tasks end, heads and
messages arrive, sources are told. It only notes what is then to be decided.
Decisions follow, phase by phase, and within a phase in the order of their keys,
which are made of the numbers of GPUs, rows, slots, experts and tokens:

ADMIT: groups enter queues, by row, source and slot.
HAND_ON: what found no room is handed on, in the same order.
SEND: messages are handed to egress ports: of a GPU first dispatch, then combine, by row and receiver in rotation.
PASS: uplinks take what has come to them, those of the sender's node first, by sender and receiver in rotation.
RECEIVE: an ingress port takes the message whose head came first, of heads of one instant the lowest sender's.
SERVE: a server takes the first request; among requests of one instant, experts come before tasks, by layer and slot.

So a batch holds all that has landed by the instant at which it begins. What a
decision brings about at its own instant is dealt with before the phases after it.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from operator import itemgetter
from types import TracebackType
from typing import Self

import simpy
from simpy.events import EventPriority

Key = tuple[int, ...]
ADMIT, HAND_ON, SEND, PASS, RECEIVE, SERVE = range(6)
_FIRST = 2
"""SimPy's priority of the first phase; what happens has 0 and 1."""


class Instants:
    """The decisions of each instant of an environment."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self._todo: list[list[tuple[Key, Callable[[], object]]]] = [[] for _ in range(SERVE + 1)]

    def decide(self, phase: int, key: Key, call: Callable[[], object]) -> None:
        """Call it in that phase of this instant, after all with a smaller key."""
        if not self._todo[phase]:
            event = _Phase(self.env, lambda _: self._run(phase))
            self.env.schedule(event, priority=EventPriority(_FIRST + phase))
        self._todo[phase].append((key, call))

    def _run(self, phase: int) -> None:
        todo, self._todo[phase] = self._todo[phase], []
        for _, call in sorted(todo, key=itemgetter(0)):
            call()


class _Phase(simpy.Event):
    """An event that has happened when it is scheduled."""

    def __init__(self, env: simpy.Environment, then: Callable[[simpy.Event], None]) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        self.callbacks = [then]


class Turns:
    """Equal servers that are taken in turn: the first request first, of one instant that with the lowest key.

    Args:
        instants: of the environment.
        place: key of these servers among others.
        capacity: how many there are.
        phase: in which turns are given.
    """

    def __init__(self, instants: Instants, place: Key = (), *, capacity: int = 1, phase: int = SERVE) -> None:
        self._instants, self._place, self._free, self._phase = instants, place, capacity, phase
        self._waiting: list[tuple[int, Key, int, Turn]] = []
        self._asked = 0

    def request(self, key: Key = ()) -> Turn:
        """A turn to wait for; it ends with the `with` block that holds it."""
        turn, self._asked = Turn(self), self._asked + 1
        heappush(self._waiting, (int(self._instants.env.now), key, self._asked, turn))
        self._give_later()
        return turn

    def end(self) -> None:
        """One of them is free again."""
        self._free += 1
        self._give_later()

    def _give_later(self) -> None:
        if self._free and self._waiting:
            self._instants.decide(self._phase, self._place, self._give)

    def _give(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            heappop(self._waiting)[-1].succeed()


class Turn(simpy.Event):
    """Happens when its holder has a server."""

    def __init__(self, turns: Turns) -> None:
        super().__init__(turns._instants.env)  # noqa: SLF001
        self._turns = turns

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.end()
