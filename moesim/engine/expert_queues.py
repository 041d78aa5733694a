"""Experts as servers with queues: the SimPy model of asynchronous, possibly disaggregated expert serving.

Every GPU runs the tasks of its own tokens in program order on its compute
stream. A dispatch sends one message to each GPU that holds a chosen slot; when
it has landed, its groups of tokens (one for each slot) queue at their slots. A
slot asks for the compute stream of its GPU when something waits, takes all
that waits as one batch, and sends each source its results as soon as the batch
is done. A GPU goes on with the next layer when it has all results of its own:
there is no exchange order and no barrier between GPUs. Copies are one per
selected expert in both directions, and ports serve by arrival (`arrival_network`).

What finds no room at a slot is dropped (its source is told by a zero-byte
flag), blocks the port that brought it until there is room, or is handed to
the GPU of the token's next choice, once.

What is decided at one instant is decided in a total order (`instants`), on which SimPy's order of events has no say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from functools import partial

import numpy as np
import simpy

from moesim.engine.arrival_network import Message, Network
from moesim.engine.faults import task_end, too_long
from moesim.engine.instants import ADMIT, HAND_ON, SEND, Instants, Turns
from moesim.engine.port_exchange import latencies
from moesim.engine.queue_log import BEGIN, Counts, Group, Log, Results
from moesim.engine.simpy_engine import without_gc, work_left
from moesim.engine.station import Station
from moesim.types import Part, Program, QueuedRun, Queues, TokenGroups
from moesim.types.picoseconds import MAX_PS

OVERFLOWS = {
    "drop": "what finds no room in the queue of its slot is dropped",
    "block": "it waits at the port, which takes nothing else meanwhile (back-pressure)",
    "next": "it is handed to the token's best expert that it did not choose, once, then dropped",
}
"""Of a full queue, by the name that scenarios use."""

Steps = Generator[simpy.Event, object, None]
_AFTER_EXPERTS = (2**62,)
"""Key of tasks among all that ask for a compute stream at one instant; that of experts is their layer and slot."""


def run_queued(
    program: Program,
    groups: Sequence[TokenGroups],
    queues: Queues,
    service_ps: Callable[[int], int],
) -> QueuedRun:
    """Run a step whose experts are queued.

    Args:
        program: its tasks, rates and faults; what it says of experts and exchanges is left to the queues.
        groups: of each MoE layer and micro-batch, micro-batch the faster index.
        queues: room and overflow.
        service_ps: time of one expert for so many tokens.

    Raises:
        DeadlockError: tasks were left waiting; the text lists them.
        TooLargeError: it takes longer than picoseconds in 64 bits count.
    """
    step = _QueuedStep(program, groups, queues, service_ps)
    with without_gc():
        step.run()
    return step.result()


class _QueuedStep:
    """One run. Times are Python ints."""

    def __init__(
        self,
        program: Program,
        groups: Sequence[TokenGroups],
        queues: Queues,
        service_ps: Callable[[int], int],
    ) -> None:
        self.env = simpy.Environment()
        self.program, self.groups, self.queues, self.service_ps = program, groups, queues, service_ps
        n_gpus, n_rows = program.n_gpus, len(groups)
        self.rank: list[int] = program.slot_rank.tolist()
        self.duration: list[list[int]] = program.duration_ps.tolist()
        self.instants = Instants(self.env)
        self.network = Network(
            self.instants, n_gpus, program.gpus_per_node, program.slow_links, self._deliver, program.levels
        )
        self.stream = [Turns(self.instants, (x,)) for x in range(n_gpus)]
        self.last_on_stream = [BEGIN] * n_gpus
        self.log = Log()
        self.stations: dict[tuple[int, int], Station[Group]] = {}
        self.results = [[Results(self.env) for _ in range(n_gpus)] for _ in range(n_rows)]
        self.counts = Counts(groups, len(program.slot_rank), queues.n_experts, n_gpus)
        self.alternates_used = [np.zeros(row.n_tokens, dtype=np.int64) for row in groups]
        self.copies = [queues.slots_of_experts(layer) for layer in range(len(queues.expert))]
        self.out_ps: dict[int, list[list[int]]] = {
            Part.DISPATCH: program.dispatch.out_ps.tolist(),
            Part.COMBINE: program.combine.out_ps.tolist(),
        }
        self.in_ps: dict[int, list[list[int]]] = {
            Part.DISPATCH: program.dispatch.in_ps.tolist(),
            Part.COMBINE: program.combine.in_ps.tolist(),
        }
        self.uplink_ps: dict[int, list[int]] = {
            Part.DISPATCH: program.dispatch.uplink_ps.tolist(),
            Part.COMBINE: program.combine.uplink_ps.tolist(),
        }
        latency, layer = latencies(program).tolist(), program.layer.tolist()
        self.exchange: dict[tuple[int, int], tuple[int, list[list[int]]]] = {  # layer and latencies by kind and row
            (int(program.kind[o]), int(program.exchange_row[o])): (layer[o], latency[o])
            for o in np.flatnonzero(program.exchange_row >= 0).tolist()
        }
        self.experts_operation: list[int] = np.flatnonzero(program.kind == Part.EXPERTS).tolist()
        self.layer: list[int] = layer
        self.finished = [False] * n_gpus
        self.n_events = 0

    def run(self) -> None:
        for x in range(self.program.n_gpus):
            self.env.process(self._tasks_of(x))
        while self.env.peek() < MAX_PS:
            self.env.step()
        if self.env.peek() < math.inf:
            raise too_long("a step takes longer")
        waiting = [f"GPU {x}" for x, done in enumerate(self.finished) if not done]
        waiting += [f"slot {slot} of MoE layer {layer}" for (layer, slot), s in self.stations.items() if s.waiting]
        if waiting:
            raise work_left(waiting)

    def result(self) -> QueuedRun:
        return QueuedRun(
            **self.log.columns(),
            waits=np.array(sorted(self.log.waits), dtype=np.int64).reshape(-1, 5),
            longest_queue=max((station.longest for station in self.stations.values()), default=0),
            admitted=self.counts.admitted,
            dropped=self.counts.dropped,
            dropped_copies=self.counts.dropped_copies,
            rerouted_away=self.counts.away,
            rerouted_in=self.counts.into,
            token_drops=self.counts.token_drops,
            n_events=len(self.log.rows),
        )

    # the tasks of a GPU's own tokens

    def _tasks_of(self, x: int) -> Steps:
        program = self.program
        last = BEGIN
        for o in range(program.n_operations):
            kind, row = int(program.kind[o]), int(program.exchange_row[o])
            if kind == Part.DISPATCH:
                self._dispatch(x, row, last)
            if row >= 0 or kind == Part.EXPERTS:
                continue
            for p in program.predecessors[o]:
                if program.kind[p] == Part.COMBINE:
                    results = self.results[int(program.exchange_row[p])][x]
                    if not results.all.processed:
                        yield results.all
                    if results.latest[:1] == [int(self.env.now)]:
                        last = results.cause
            if self.duration[o][x]:
                asked = int(self.env.now)
                with self.stream[x].request(_AFTER_EXPERTS) as turn:
                    yield turn
                    begin = int(self.env.now)
                    cause = last if begin == asked else self.last_on_stream[x]
                    yield from self._compute(x, self.duration[o][x])
                last = self._computed(kind, x, self.layer[o], begin, 0, cause)
        self.finished[x] = True

    def _compute(self, x: int, work: int) -> Steps:
        slow = self.program.slow_gpus
        if len(slow):
            now = int(self.env.now)
            work = int(task_end(now, work, x, slow)) - now
        yield self.env.timeout(work)

    def _computed(self, kind: int, x: int, layer: int, begin: int, tokens: int, cause: int) -> int:
        node = self.log.add(kind, x, layer, begin, int(self.env.now), tokens, cause)
        self.last_on_stream[x] = node
        return node

    # tokens on their way

    def _dispatch(self, x: int, row: int, cause: int) -> None:
        """Send the tokens of a GPU to their slots, nearest in rotation first."""
        own = self.groups[row]
        expert = self.queues.expert[self._moe_layer(row)]
        begin, end = np.searchsorted(own.source, [x, x + 1])
        by_gpu: dict[int, list[Group]] = {}
        results = self.results[row][x]
        results.cause = cause
        for i in range(int(begin), int(end)):
            slot = int(own.slot[i])
            group = Group(row, x, slot, int(expert[slot]), own.token[own.first[i] : own.first[i + 1]])
            by_gpu.setdefault(self.rank[slot], []).append(group)
            results.missing += group.tokens
        if not by_gpu:
            results.all.succeed()
        for destination in sorted(by_gpu, key=lambda d: self.network.turn(x, d)):
            self._send(Part.DISPATCH, row, x, destination, by_gpu[destination], cause)

    def _send(self, kind: int, row: int, source: int, destination: int, load: list[Group], cause: int) -> None:
        """Groups to a GPU; what stays on its own needs no port."""
        if source == destination:
            held = self._arrived(kind, load, cause)
            if held is not None:
                self.env.process(held)
            return
        level = self.network.level(source, destination)
        port = self.program.levels.ports[level]
        tokens, now = sum([group.tokens for group in load]), int(self.env.now)
        layer, latency = self.exchange[kind, row]
        node = self.log.add(kind, source, layer, now, now, tokens, cause, destination, level)
        message = Message(
            source,
            destination,
            level,
            tokens,
            self.out_ps[kind][port][source],
            self.in_ps[kind][port][destination],
            latency[level][source],
            (kind, load, node),
            self.uplink_ps[kind],
        )
        key = (source, kind, row, self.network.turn(source, destination), *load[0].key)
        self.instants.decide(SEND, key, partial(self.network.send, message))

    def _deliver(self, message: Message) -> Steps | None:
        kind, load, node = message.load
        self.log.landed(node, int(self.env.now))
        return self._arrived(kind, load, node)

    def _arrived(self, kind: int, load: list[Group], node: int) -> Steps | None:
        if kind == Part.COMBINE:
            for group in load:
                self._arrive(group, node)
            return None
        for group in load:
            group.cause = node
        if self.queues.room is not None and self.queues.overflow == "block":
            return self._admit(load)
        self.instants.decide(ADMIT, load[0].key, partial(self._offer, load))
        return None

    def _arrive(self, group: Group, node: int) -> None:
        """The source of a group has its results, or knows that there are none."""
        order = [int(self.env.now), *(self.log.rows[node][:4] if node >= 0 else ())]
        self.results[group.row][group.source].arrive(group.tokens, node, order)

    # queues

    def _moe_layer(self, row: int) -> int:
        return row // self.program.micro_batches

    def _expert_of(self, group: Group) -> int:
        """The expert that the slot of a group holds."""
        return int(self.queues.expert[self._moe_layer(group.row), group.slot])

    def _station(self, group: Group) -> Station[Group]:
        key = self._moe_layer(group.row), group.slot
        if key not in self.stations:
            server, room = self.stream[self.rank[group.slot]], self.queues.room
            self.stations[key] = Station(self.instants, server, self._serve, room=room, place=key)
        return self.stations[key]

    def _admit(self, load: list[Group]) -> Steps:
        for group in load:
            self.counts.admit(group, group.tokens, self._expert_of(group))
            yield from self._station(group).admit(group, group.key)

    def _offer(self, load: list[Group]) -> None:
        for group in load:
            self._offer_group(group)

    def _offer_group(self, group: Group) -> None:
        rest = self._station(group).offer(group)
        taken = group.tokens - (0 if rest is None else rest.tokens)
        self.counts.admit(group, taken, self._expert_of(group))
        if rest is None:
            return
        if self.queues.overflow == "next" and not rest.handed_on:
            self.instants.decide(HAND_ON, rest.key, partial(self._hand_on, rest))
        else:
            self._drop(rest)

    def _drop(self, group: Group) -> None:
        """Count a group as dropped and tell its source."""
        here = self.rank[group.slot]
        self.counts.drop(group, here)
        if here == group.source:
            self._arrive(group, group.cause)
            return
        level = self.network.level(here, group.source)
        flag = self.env.timeout(self.exchange[Part.COMBINE, group.row][1][level][here])
        assert flag.callbacks is not None
        flag.callbacks.append(lambda _: self._arrive(group, group.cause))

    def _hand_on(self, group: Group) -> None:
        """Send tokens to the GPU of their next choice; those that have none left are dropped."""
        used, here = self.alternates_used[group.row], self.rank[group.slot]
        alternates = self.groups[group.row].alternates
        turn = used[group.token]
        used[group.token] += 1
        if alternates.shape[1] == 0:
            chosen = np.full(group.tokens, -1)
        else:
            known = turn < alternates.shape[1]
            chosen = np.where(known, alternates[group.token, np.minimum(turn, alternates.shape[1] - 1)], -1)
        by_gpu: dict[int, list[Group]] = {}
        for expert in np.unique(chosen).tolist():
            token = group.token[chosen == expert]
            if expert < 0:
                self._drop(Group(group.row, group.source, group.slot, group.expert, token, group.cause))
                continue
            slots = self.copies[self._moe_layer(group.row)][expert]
            slot = slots[group.source % len(slots)]
            handed = Group(group.row, group.source, slot, group.expert, token, group.cause, handed_on=True)
            by_gpu.setdefault(self.rank[slot], []).append(handed)
        for destination in sorted(by_gpu, key=lambda d: self.network.turn(here, d)):
            self._send(Part.DISPATCH, group.row, here, destination, by_gpu[destination], group.cause)

    def _serve(self, batch: list[Group], asked: int, again: bool) -> Steps:
        """Run a batch of one slot on the compute stream of its GPU, and send the results."""
        slot, begin = batch[0].slot, int(self.env.now)
        gpu, row = self.rank[slot], batch[0].row
        layer = self.layer[self.experts_operation[row]]
        tokens = sum(group.tokens for group in batch)
        cause = self.last_on_stream[gpu] if again or begin > asked else batch[0].cause
        for group in batch:
            self.log.waits.append((gpu, layer, group.since, begin, group.tokens))
        work = self.service_ps(tokens)
        if self.program.compute_factor is not None:
            work = round(work * float(self.program.compute_factor[self.experts_operation[row], gpu]))
        yield from self._compute(gpu, work)
        node = self._computed(Part.EXPERTS, gpu, layer, begin, tokens, cause)
        by_source: dict[tuple[int, int], list[Group]] = {}
        for group in batch:
            by_source.setdefault((self.network.turn(gpu, group.source), group.row), []).append(group)
        for (_, own_row), groups in sorted(by_source.items()):
            self._send(Part.COMBINE, own_row, gpu, groups[0].source, groups, node)
