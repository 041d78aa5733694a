"""Ports that serve by arrival: the network of the queued engine, where there are no rounds of exchanges.

Four ports a GPU as in `ports`, and the same physics: an egress port sends one
message after the other in the order in which they were handed to it, the head
arrives a latency after it began to leave, an ingress port takes one after the
other as their heads arrive (of heads of one instant: whose was sent first), and
a message has landed when the port has taken it and its tail is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import simpy
from simpy.events import Timeout

from moesim.engine.ports import _rate

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
    sending: int = 0
    """How long the egress port sends it."""


@dataclass
class _Ingress:
    waiting: deque[Message]
    busy: bool = False


class Network:
    """Ports of G GPUs in nodes of m.

    Args:
        env: the clock.
        n_gpus: G.
        gpus_per_node: m.
        slow_links: as of a Program.
        deliver: called with a message that has landed; what it gives is waited for with the port held (None = nothing).
    """

    def __init__(
        self,
        env: simpy.Environment,
        n_gpus: int,
        gpus_per_node: int,
        slow_links: Any,
        deliver: Callable[[Message], Steps | None],
    ) -> None:
        self._env, self._m, self._slow, self._deliver = env, gpus_per_node, slow_links, deliver
        self._free = [[0] * n_gpus for _ in range(2)]
        self._ingress = [[_Ingress(deque()) for _ in range(n_gpus)] for _ in range(2)]
        self._arrive: list[Callable[[Any], None]] = [self._on_head]

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
        # the list is shared: SimPy takes it off the event before it calls
        Timeout(self._env, message.head - now, message).callbacks = self._arrive

    def _ps(self, ps: int, level: int, gpu: int, now: int) -> int:
        """Picoseconds a token at a port now."""
        return int(_rate(ps, level, gpu, now, self._slow)) if len(self._slow) else ps

    def _on_head(self, event: simpy.Event) -> None:
        message = event.value
        assert isinstance(message, Message)
        port = self._ingress[message.level][message.destination]
        port.waiting.append(message)
        if not port.busy:
            port.busy = True
            self._env.process(self._receive(port))

    def _receive(self, port: _Ingress) -> Steps:
        while port.waiting:
            message = port.waiting.popleft()
            ps = self._ps(message.in_ps, message.level, message.destination, int(self._env.now))
            yield self._env.timeout(message.tokens * ps)
            tail = message.head + message.sending
            if tail > self._env.now:
                self._env.process(self._land_later(message, tail))
                continue
            held = self._deliver(message)
            if held is not None:
                yield from held
        port.busy = False

    def _land_later(self, message: Message, tail: int) -> Steps:
        """A slow sender delays its own message, not the port."""
        yield self._env.timeout(tail - int(self._env.now))
        held = self._deliver(message)
        if held is not None:
            yield from held
