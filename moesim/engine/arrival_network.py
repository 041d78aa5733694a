"""Ports that serve by arrival: the network of the queued engine, where there are no rounds of exchanges.

The ports of GPUs are those of `ports`, the shared uplinks those of `uplinks`, with
the same physics: an egress port sends one
message after the other in the order in which they were handed to it, the head
arrives a latency after it began to leave and as late as uplinks make it, an
ingress port takes one after the
other as their heads arrive (of heads of one instant: the lowest sender's), and
a message has landed when the port has taken it and its tail is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import numpy as np
import simpy
from simpy.events import Timeout

from moesim.compiled.levels import level_above
from moesim.engine.instants import PASS, RECEIVE, Instants
from moesim.engine.ports import rate
from moesim.engine.uplinks import DOWN, UP
from moesim.types import TWO_LEVELS, NetworkLevels

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
    uplink_ps: Sequence[int] = ()
    """Of each level but the last."""
    head: int = 0
    number: int = 0
    sending: int = 0
    """How long the egress port sends it."""
    uplinks: list[tuple[int, int, int]] = field(default_factory=list)
    """Those that it has still to pass, the next one last: up or down, level, unit."""


@dataclass
class _Ingress:
    waiting: list[tuple[int, int, int, Message]] = field(default_factory=list)
    """A heap by head, sender and the number that the message has among all that are sent."""
    busy: bool = False


class Network:
    """Ports of G GPUs in nodes of m, and the uplinks that they share.

    Args:
        instants: of the environment.
        n_gpus: G.
        gpus_per_node: m.
        slow_links: as of a Program.
        deliver: called with a message that has landed; what it gives is waited for with the port held (None = nothing).
        levels: of the network.
    """

    def __init__(
        self,
        instants: Instants,
        n_gpus: int,
        gpus_per_node: int,
        slow_links: Any,
        deliver: Callable[[Message], Steps | None],
        levels: NetworkLevels = TWO_LEVELS,
    ) -> None:
        self._instants, self._env = instants, instants.env
        self._n_gpus, self._m, self._slow, self._deliver = n_gpus, gpus_per_node, slow_links, deliver
        self._sizes: list[int] = levels.sizes(self._m).tolist()
        self._units, self._port = np.array(levels.units, dtype=np.int64), levels.ports
        self._free = [[0] * self._n_gpus for _ in range(levels.n_ports)]
        self._ingress = [[_Ingress() for _ in range(self._n_gpus)] for _ in range(levels.n_ports)]
        self._uplink_free: dict[tuple[int, int, int], int] = defaultdict(int)
        self._passing: list[tuple[tuple[int, ...], Message]] = []
        self._sent = 0
        # the lists are shared: SimPy takes them off an event before it calls
        self._arrive: list[Callable[[Any], None]] = [self._on_head]
        self._taken: list[Callable[[Any], None]] = [self._on_taken]
        self._late: list[Callable[[Any], None]] = [self._on_late]

    def level(self, source: int, destination: int) -> int:
        """The level of a message between two GPUs, 0 within a node."""
        if source // self._m == destination // self._m:
            return 0
        return int(level_above(source, destination, self._units)) if len(self._units) else 1

    def turn(self, source: int, destination: int) -> int:
        """Place of a receiver in the order of a sender: node rotation outside, index rotation inside."""
        m = self._m
        nodes = self._n_gpus // m
        return (destination // m - source // m) % nodes * m + (destination - source) % m

    def send(self, message: Message) -> None:
        """Hand a message to the egress port of its source."""
        now, port = int(self._env.now), self._port[message.level]
        begin = max(now, self._free[port][message.source])
        message.sending = message.tokens * self._ps(message.out_ps, port, message.source, begin)
        self._free[port][message.source] = begin + message.sending
        message.head = begin + message.latency_ps
        message.uplinks = self._uplinks(message)
        self._sent += 1
        message.number = self._sent
        Timeout(self._env, message.head - now, message).callbacks = self._arrive

    def _uplinks(self, message: Message) -> list[tuple[int, int, int]]:
        """The uplinks of a message that can be full, the first one last."""
        used = [k for k, ps in enumerate(message.uplink_ps) if ps and k < message.level]
        up = [(UP, k, message.source // self._sizes[k]) for k in used]
        return [(DOWN, k, message.destination // self._sizes[k]) for k in used] + up[::-1]

    def _ps(self, ps: int, port: int, gpu: int, now: int) -> int:
        """Picoseconds a token at a port now."""
        return int(rate(ps, port, gpu, now, self._slow)) if len(self._slow) else ps

    def _on_head(self, event: simpy.Event) -> None:
        message = event.value
        assert isinstance(message, Message)
        if message.uplinks:
            self._come_to_uplink(message)
            return
        port = self._ingress[self._port[message.level]][message.destination]
        heappush(port.waiting, (message.head, message.source, message.number, message))
        self._take_later(port, message)

    def _come_to_uplink(self, message: Message) -> None:
        if not self._passing:
            self._instants.decide(PASS, (), self._pass_uplinks)
        side, level, _ = message.uplinks[-1]
        stage = level if side == UP else 2 * len(self._sizes) - level
        turn = self.turn(message.source, message.destination)
        heappush(self._passing, ((stage, message.source, turn, message.number), message))

    def _pass_uplinks(self) -> None:
        """All that has come to an uplink by now, and what comes to the next one at once."""
        now = int(self._env.now)
        while self._passing:
            message = heappop(self._passing)[1]
            uplink = message.uplinks.pop()
            finish = max(self._uplink_free[uplink], now) + message.tokens * message.uplink_ps[uplink[1]]
            self._uplink_free[uplink] = finish
            late = max(0, finish - now - message.sending)
            message.head = now + late
            if late == 0 and message.uplinks:
                self._come_to_uplink(message)
            else:
                Timeout(self._env, late, message).callbacks = self._arrive

    def _take_later(self, port: _Ingress, message: Message) -> None:
        """When all heads of this instant have arrived; the message is one of the port."""
        if not port.busy:
            key = self._port[message.level], message.destination
            self._instants.decide(RECEIVE, key, lambda: self._take(port))

    def _take(self, port: _Ingress) -> None:
        if port.busy or not port.waiting:
            return
        port.busy = True
        message = heappop(port.waiting)[-1]
        now = int(self._env.now)
        time = message.tokens * self._ps(message.in_ps, self._port[message.level], message.destination, now)
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
        port = self._ingress[self._port[message.level]][message.destination]
        port.busy = False
        if port.waiting:
            self._take_later(port, message)

    def _on_late(self, event: simpy.Event) -> None:
        message = event.value
        assert isinstance(message, Message)
        held = self._deliver(message)
        if held is not None:
            self._env.process(held)
