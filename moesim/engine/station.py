"""A queue with limited room in front of servers: what an expert's slot is where experts are queued.

Several stations may share servers, as the slots of a GPU share its compute
stream. Groups of tokens are served first come, first served; a server takes
what waits, up to `batch` groups, at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Generic, Protocol, Self, TypeVar

import simpy

from moesim.engine.instants import ADMIT, Instants, Key, Turns

Steps = Generator[simpy.Event, object, None]


class Splittable(Protocol):
    """A group of tokens that can be admitted in part; `since` is set to when it was."""

    since: int

    @property
    def tokens(self) -> int:
        """How many tokens it has."""

    def split(self, n: int) -> tuple[Self, Self]:
        """The first n tokens and the rest."""


G = TypeVar("G", bound=Splittable)


class Station(Generic[G]):
    """Room for `room` waiting tokens (None = any number) in front of `workers` servers.

    Args:
        instants: of the environment.
        server: whose turn a worker needs; its capacity counts for all stations that share it.
        serve: runs the service of a batch: takes the groups, when its worker asked for a turn, and whether that worker
            had just ended another batch.
        room: tokens that may wait; those in service do not count.
        batch: groups served together at most; None = all that wait.
        workers: batches of this station in service at a time.
        place: key of the station among others, in turns that are asked for at one instant.
    """

    def __init__(
        self,
        instants: Instants,
        server: Turns,
        serve: Callable[[list[G], int, bool], Steps],
        *,
        room: int | None = None,
        batch: int | None = None,
        workers: int = 1,
        place: Key = (),
    ) -> None:
        self._env, self._server, self._serve = instants.env, server, serve
        self._room, self._batch, self._idle, self._place = room, batch, workers, place
        self._queue: deque[G] = deque()
        self._door = Turns(instants, place, phase=ADMIT)
        self._freed = self._env.event()
        self.waiting = 0
        self.longest = 0

    def offer(self, group: G) -> G | None:
        """Admit what there is room for now; the rest is given back, None = all of it was admitted."""
        rest: G | None = None
        if self._room is not None and self.waiting + group.tokens > self._room:
            if self.waiting >= self._room:
                return group
            group, rest = group.split(self._room - self.waiting)
        group.since = int(self._env.now)
        self._queue.append(group)
        self.waiting += group.tokens
        self.longest = max(self.longest, self.waiting)
        if self._idle:
            self._idle -= 1
            self._env.process(self._work())
        return rest

    def admit(self, group: G, key: Key = ()) -> Steps:
        """Wait until all of a group has been admitted, in the order of arrival, at one instant in that of the keys."""
        with self._door.request(key) as turn:
            yield turn
            rest = self.offer(group)
            while rest is not None:
                yield self._freed
                rest = self.offer(rest)

    def _work(self) -> Steps:
        again = False
        while self._queue:
            asked = int(self._env.now)
            with self._server.request(self._place) as turn:
                yield turn
                batch = self._take()
                if batch:
                    yield from self._serve(batch, asked, again)
            again = True
        self._idle += 1

    def _take(self) -> list[G]:
        n = len(self._queue) if self._batch is None else min(self._batch, len(self._queue))
        batch = [self._queue.popleft() for _ in range(n)]
        self.waiting -= sum(group.tokens for group in batch)
        freed, self._freed = self._freed, self._env.event()
        freed.succeed()
        return batch
