"""Ports that serve by arrival: the network of the queued engine, where there are no rounds of exchanges.

Four ports a GPU as in `ports`, and the same physics: an egress port sends one
message after the other in the order in which they were handed to it, the head
arrives a latency after it began to leave, an ingress port takes one after the
other as their heads arrive (of heads of one instant: the lowest sender's), and
a message has landed when the port has taken it and its tail is there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import Timeout

from moesim.engine.instants import RECEIVE, Instants
from moesim.engine.ports import rate

Steps = Generator[simpy.Event, object, None]


@dataclass(slots=True)
class Message:
    """Tokens on their way over one link, and what they carry."""

    source: int
    destination: int
    level: int
    tokens: int
    out_ps: int
    in_ps: int
    latency_ps: int
    load: Any
    head: int = 0
    number: int = 0
    sending: int = 0
    """How long the egress port sends it."""


@dataclass
class _Ingress:
    waiting: list[tuple[int, int, int, Message]] = field(default_factory=list)
    """A heap by head, sender and the number that the message has among all that are sent."""
    busy: bool = False


class Network:
    """Ports of G GPUs in nodes of m.

    Args:
        instants: of the environment.
        n_gpus: G.
        gpus_per_node: m.
        slow_links: as of a Program.
        deliver: called with a message that has landed; what it gives is waited for with the port held (None = nothing).
    """

    def __init__(
        self,
        instants: Instants,
        n_gpus: int,
        gpus_per_node: int,
        slow_links: Any,
        deliver: Callable[[Message], Steps | None],
    ) -> None:
        self._instants, self._env = instants, instants.env
        self._m, self._slow, self._deliver = gpus_per_node, slow_links, deliver
        self._free = [[0] * n_gpus for _ in range(2)]
        self._ingress = [[_Ingress() for _ in range(n_gpus)] for _ in range(2)]
        self._sent = 0
        # the lists are shared: SimPy takes them off an event before it calls
        self._arrive: list[Callable[[Any], None]] = [self._on_head]
        self._taken: list[Callable[[Any], None]] = [self._on_taken]
        self._late: list[Callable[[Any], None]] = [self._on_late]

    def level(self, source: int, destination: int) -> int:
        """0 within a node, 1 across nodes."""
        return int(source // self._m != destination // self._m)

    def send(self, message: Message) -> None:
        """Hand a message to the egress port of its source."""
        level, now = message.level, int(self._env.now)
        begin = max(now, self._free[level][message.source])
        message.sending = message.tokens * self._ps(message.out_ps, level, message.source, begin)
        self._free[level][message.source] = begin + message.sending
        message.head = begin + message.latency_ps
        self._sent += 1
        message.number = self._sent
        Timeout(self._env, message.head - now, message).callbacks = self._arrive

    def _ps(self, ps: int, level: int, gpu: int, now: int) -> int:
        """Picoseconds a token at a port now."""
        return int(rate(ps, level, gpu, now, self._slow)) if len(self._slow) else ps

    def _on_head(self, event: simpy.Event) -> None:
        message = event.value
        assert isinstance(message, Message)
        port = self._ingress[message.level][message.destination]
        heappush(port.waiting, (message.head, message.source, message.number, message))
        self._take_later(port, message)

    def _take_later(self, port: _Ingress, message: Message) -> None:
        """When all heads of this instant have arrived; the message is one of the port."""
        if not port.busy:
            self._instants.decide(RECEIVE, (message.level, message.destination), lambda: self._take(port))

    def _take(self, port: _Ingress) -> None:
        if port.busy or not port.waiting:
            return
        port.busy = True
        message = heappop(port.waiting)[-1]
        now = int(self._env.now)
        time = message.tokens * self._ps(message.in_ps, message.level, message.destination, now)
        Timeout(self._env, time, message).callbacks = self._taken

    def _on_taken(self, event: simpy.Event) -> None:
        message = event.value
        assert isinstance(message, Message)
        tail, now = message.head + message.sending, int(self._env.now)
        if tail > now:  # a slow sender delays its own message, not the port
            Timeout(self._env, tail - now, message).callbacks = self._late
            held = None
        else:
            held = self._deliver(message)
        if held is None:
            self._free_again(message)
        else:
            self._env.process(self._hold(message, held))

    def _hold(self, message: Message, held: Steps) -> Steps:
        """Keep the port until what was delivered lets it go."""
        yield from held
        self._free_again(message)

    def _free_again(self, message: Message) -> None:
        port = self._ingress[message.level][message.destination]
        port.busy = False
        if port.waiting:
            self._take_later(port, message)

    def _on_late(self, event: simpy.Event) -> None:
        message = event.value
        assert isinstance(message, Message)
        held = self._deliver(message)
        if held is not None:
            self._env.process(held)
