"""The rules of the engine as one would teach them in SimPy: the independent proof of the compiled kernels.

A process for each task, message and flag, a Resource for each stream of each
GPU, ports with a queue and an arbiter, and shared uplinks. Slow and plain on purpose: nothing
here is shared with the package but the Program.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import simpy
from simpy.events import ProcessGenerator

from moesim.types import PARTS, Program
from tests.textbook_ports import AFTER_ALL_ELSE, INGRESS, Port, Uplink


@dataclass
class Run:
    """Start and end [O][G], and landings[o][receiver, sender] of direct messages."""

    start: np.ndarray
    end: np.ndarray
    landings: dict[int, dict[tuple[int, int], int]]


def textbook(program: Program) -> Run:
    """Run a program of the port level."""
    return _Textbook(program).run()


class _Textbook:
    def __init__(self, program: Program) -> None:
        self.p, self.env = program, simpy.Environment()
        g = program.n_gpus
        self.m, self.n_nodes = program.gpus_per_node, g // program.gpus_per_node
        self.sizes = [program.gpus_per_node, *program.levels.units, g]
        self.port = {
            (side, port, x): Port(self.env, priority)
            for side, priority in (("out", AFTER_ALL_ELSE), ("in", INGRESS))
            for port in program.levels.ports
            for x in range(g)
        }
        n = len(self.sizes)
        self.uplink = {
            (side, k, unit): Uplink(self.env, k if side == "up" else 2 * n - k)
            for side in ("up", "down")
            for k in range(n - 1)
            for unit in range(g)
        }
        shape = (program.n_operations, g)
        self.start, self.end = np.full(shape, -1, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        self.done = [[self.env.event() for _ in range(g)] for _ in range(shape[0])]
        self.entered = [[self.env.event() for _ in range(g)] for _ in range(shape[0])]
        self.arrivals: dict[tuple[int, int], list[simpy.Event]] = defaultdict(list)
        self.landings: dict[int, dict[tuple[int, int], int]] = defaultdict(dict)

    def run(self) -> Run:
        """Run the program; the times are in `start` and `end`."""
        p = self.p
        streams = {(s, x): simpy.Resource(self.env) for s in set(p.stream.tolist()) for x in range(p.n_gpus)}
        for o in range(p.n_operations):
            if p.exchange_row[o] >= 0 and p.n_gpus > 1:
                self.exchange(o)
            for x in range(p.n_gpus):
                self.env.process(self.task(o, x, streams[int(p.stream[o]), x]))
        self.env.run()
        assert (self.end >= 0).all(), "some task never ended"
        return Run(self.start, self.end, self.landings)

    def task(self, o: int, x: int, stream: simpy.Resource) -> ProcessGenerator:
        """An operation on one GPU, in its stream after its predecessors."""
        with stream.request() as turn:
            yield turn
            for before in self.p.predecessors[o]:
                yield self.done[before][x]
            self.start[o, x] = self.env.now
            if self.p.exchange_row[o] < 0:
                yield from self.work(int(self.p.duration_ps[o, x]), x)
            else:
                self.entered[o][x].succeed()
                for d in range(self.p.n_gpus) if self.p.synchronous else [x]:
                    yield from self.arrivals[o, d]
            self.end[o, x] = self.env.now
            self.done[o][x].succeed()

    def work(self, todo: int, x: int) -> ProcessGenerator:
        """Picosecond by picosecond where a GPU is slow; what one does with a factor is 1 / factor."""
        slow = [row for row in self.p.slow_gpus.tolist() if row[0] == x]
        if not slow:
            yield self.env.timeout(todo)
            return
        done = Fraction(0)
        while done < todo:
            share = Fraction(1)
            for _, begin, end, factor in slow:
                if begin <= self.env.now < end:
                    share = share / int(factor) if factor < float("inf") else Fraction(0)
            done += share
            yield self.env.timeout(1)

    def rate(self, ps: int, level: int, x: int) -> int:
        """Picoseconds a token at a port now."""
        for where, gpu, begin, end, factor in self.p.slow_links.tolist():
            if (where, gpu) == (self.p.levels.ports[level], x) and begin <= self.env.now < end:
                ps *= int(factor)
        return ps

    # what an exchange consists of

    def exchange(self, o: int) -> None:
        """Set up the messages and flags of an exchange."""
        p, m = self.p, self.m
        forward = PARTS[p.kind[o]] == "dispatch"
        self.rates = p.dispatch if forward else p.combine
        latency = np.repeat(self.rates.latency_ps[:, None], p.n_gpus, axis=1)
        self.latency = latency if p.latency_ps is None else p.latency_ps[o]
        c = p.copies[p.exchange_row[o]]
        u = p.node_copies[p.exchange_row[o]] if p.copy_rule == "per-node" else None
        gpus = range(p.n_gpus)
        if u is None:
            tokens = c if forward else c.T
            for s in gpus:
                for d in gpus:
                    if s != d:
                        self.flag(o, self.wait_entry(o, s), self.level(s, d), d, s)
                        if tokens[s, d]:
                            ready = [self.entered[o][s]]
                            landed = self.message(2 * o, s, d, int(tokens[s, d]), ready, (0, 0), origin=0)
                            self.env.process(self.note(o, s, d, landed))
        elif forward:
            self.scatter(o, c, u)
        else:
            self.gather(o, c, u)
        assert m * self.n_nodes == p.n_gpus

    def scatter(self, o: int, c: np.ndarray, u: np.ndarray) -> None:
        """Dispatch in two hops: once to each node, from there to its GPUs."""
        for s in range(self.p.n_gpus):
            for node in range(self.n_nodes):
                home = node == s // self.m
                j = node * self.m + s % self.m
                whole = None
                if not home and u[s, node]:
                    whole = self.message(2 * o, s, j, int(u[s, node]), [self.entered[o][s]], (0, 0), origin=s)
                for d in range(node * self.m, node * self.m + self.m):
                    if d == s:
                        continue
                    if home:
                        self.flag(o, self.wait_entry(o, s), 0, d, s)
                    else:
                        at_j = self.after([self.wait_entry(o, s)], self.level(s, j), s, [self.entered[o][j]])
                        self.flag(o, at_j, None if j == d else 0, d, j)
                    if j != d and c[s, d]:
                        ready = [self.entered[o][j]] if whole is None else [whole, self.entered[o][j]]
                        self.message(2 * o + 1, j, d, int(c[s, d]), ready, (0 if home else 1, s), origin=s)

    def gather(self, o: int, c: np.ndarray, u: np.ndarray) -> None:
        """Combine in two hops: within each node, from there to the source."""
        for s in range(self.p.n_gpus):
            for node in range(self.n_nodes):
                home = node == s // self.m
                j = node * self.m + s % self.m
                parts, flags = [], []
                for d in range(node * self.m, node * self.m + self.m):
                    if d == j:
                        continue
                    if c[s, d]:
                        parts.append(
                            self.message(2 * o, d, j, int(c[s, d]), [self.entered[o][d]], (0, 0), origin=s, owner=s)
                        )
                    if home:
                        self.flag(o, self.wait_entry(o, d), 0, s, d)
                    else:
                        flags.append(self.after([self.wait_entry(o, d)], 0, d, []))
                if not home:
                    self.flag(o, self.env.all_of([*flags, self.entered[o][j]]), self.level(j, s), s, j)
                    if u[s, node]:
                        ready = [*parts, self.entered[o][j]]
                        self.message(2 * o + 1, j, s, int(u[s, node]), ready, (0, 0), origin=j)

    # processes

    def level(self, s: int, d: int) -> int:
        """The lowest level that has both in one unit, 0 within a node."""
        return next(level for level, size in enumerate(self.sizes) if s // size == d // size)

    def uplinks(self, s: int, d: int) -> list[tuple[str, int, int]]:
        """What a message passes that leaves units and enters others."""
        full = [k for k, ps in enumerate(self.rates.uplink_ps) if ps and k < self.level(s, d)]
        up = [("up", k, s // self.sizes[k]) for k in full]
        return up + [("down", k, d // self.sizes[k]) for k in full[::-1]]

    def pos(self, s: int, d: int) -> int:
        """The place of d in the order in which s serves its destinations."""
        return ((d // self.m - s // self.m) % self.n_nodes) * self.m + (d - s) % self.m

    def wait_entry(self, o: int, x: int) -> simpy.Event:
        """When a GPU has entered an exchange."""
        return self.entered[o][x]

    def after(self, first: list[simpy.Event], level: int, sender: int, then: list[simpy.Event]) -> simpy.Event:
        """When all of `first` have happened, a latency has passed, and all of `then` have happened too."""

        def wait(latency: int) -> ProcessGenerator:
            for event in first:
                yield event
            yield self.env.timeout(latency)
            for event in then:
                yield event

        return self.env.process(wait(int(self.latency[level, sender])))

    def flag(self, o: int, begin: simpy.Event, level: int | None, d: int, sender: int) -> None:
        """A zero-byte flag to d."""
        self.arrivals[o, d].append(begin if level is None else self.after([begin], level, sender, []))

    def message(
        self,
        order: int,
        s: int,
        d: int,
        tokens: int,
        ready: list[simpy.Event],
        rank: tuple[int, int],
        *,
        origin: int,
        owner: int = -1,
    ) -> simpy.Event:
        """A message over one link; its process ends when it has landed.

        Its order is twice the exchange's, one more of what comes second in it: no port serves that before the first.
        """
        o, level = order // 2, self.level(s, d)
        port, uplinks = self.p.levels.ports[level], self.uplinks(s, d)
        out, into = self.port["out", port, s], self.port["in", port, d]
        stops: list[Port | Uplink] = [out, into, *(self.uplink[uplink] for uplink in uplinks)]
        for stop in stops:
            stop.expect(order)
        p_out, p_in = int(self.rates.out_ps[port, s]), int(self.rates.in_ps[port, d])
        latency, pos = int(self.latency[level, s]), self.pos(s, d if owner < 0 else owner)
        uplink_ps = self.rates.uplink_ps.tolist()

        def travel() -> ProcessGenerator:
            yield from ready
            key = (int(self.env.now), *rank, pos)
            started, _ = out.submit(order, key, lambda: tokens * self.rate(p_out, level, s))
            yield started
            sending = tokens * self.rate(p_out, level, s)
            yield self.env.timeout(latency)
            for uplink in uplinks:
                yield self.uplink[uplink].come(order, (s, pos), tokens * uplink_ps[uplink[1]], sending)
            head = self.env.now
            _, finished = into.submit(order, (int(head), s, origin), lambda: tokens * self.rate(p_in, level, d))
            yield finished
            yield self.env.timeout(max(0, head + sending - self.env.now))

        landed = self.env.process(travel())
        self.arrivals[o, d].append(landed)
        return landed

    def note(self, o: int, s: int, d: int, landed: simpy.Event) -> ProcessGenerator:
        """Keep the instant at which a message has landed."""
        yield landed
        self.landings[o][d, s] = int(self.env.now)
