"""The SimPy interpreter of a program: one event per operation and GPU.

Order among events of the same instant is SimPy's: the one scheduled first.
Nothing in the model depends on it, as no two operations compete for a port:
an exchange's ends follow from its entries alone.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import simpy

from moesim.engine.closed_form import transfer_ps
from moesim.engine.dependencies import dependencies, moe_layers
from moesim.errors import ConservationError, DeadlockError
from moesim.types import PARTS, Program, Timeline


def run(program: Program) -> Timeline:
    """Run a program to its end.

    Raises:
        DeadlockError: operations were left waiting; the text lists them.
        ConservationError: a slot was sent more tokens than it admits.
    """
    step = _Step(program)
    with _without_gc():
        step.start()
        step.env.run()
    step.check_done()
    return Timeline(
        start_ps=np.array(step.started, dtype=np.int64),
        end_ps=np.array(step.ended, dtype=np.int64),
        admitted=np.array(step.admitted, dtype=np.int64).reshape(program.slot_tokens.shape),
        n_events=step.n_events,
    )


class _Step:
    """One run of a program. Times are Python ints: a NumPy int would turn SimPy's clock into another type."""

    def __init__(self, program: Program) -> None:
        self.env = simpy.Environment()
        self.program = program
        n_ops, n_gpus = program.n_operations, program.n_gpus
        self.started = [[-1] * n_gpus for _ in range(n_ops)]
        self.ended = [[-1] * n_gpus for _ in range(n_ops)]
        self.admitted = np.zeros_like(program.slot_tokens).tolist()
        self.n_events = 0
        self._duration = program.duration_ps.tolist()
        self._transfer = transfer_ps(program).tolist()
        self._is_exchange = (program.exchange_layer >= 0).tolist()
        self._to_enter = [n_gpus] * n_ops
        self._moe_layer = moe_layers(program)
        self._slots_of = [np.flatnonzero(program.slot_rank == x).tolist() for x in range(n_gpus)]
        self._slot_tokens = program.slot_tokens.tolist()
        self._slot_capacity = program.slot_capacity.tolist()
        waits_for = dependencies(program)
        self._waiting = [[len(before)] * n_gpus for before in waits_for]
        self._followers: list[list[int]] = [[] for _ in range(n_ops)]
        for o, before in enumerate(waits_for):
            for p in before:
                self._followers[p].append(o)

    def start(self) -> None:
        """Start what waits for nothing."""
        for o, waiting in enumerate(self._waiting):
            for x, count in enumerate(waiting):
                if count == 0:
                    self._begin(o, x)

    def _begin(self, o: int, x: int) -> None:
        """Operation o starts on GPU x: a task runs for its duration, an exchange waits for its last participant."""
        self.started[o][x] = int(self.env.now)
        if not self._is_exchange[o]:
            if self._moe_layer[o] >= 0:
                self._admit(self._moe_layer[o], x)
            self._finish_after(self._duration[o][x], o, x)
            return
        self._to_enter[o] -= 1
        if self._to_enter[o] == 0:
            for gpu, delay in enumerate(self._transfer[o]):
                self._finish_after(delay, o, gpu)

    def _finish_after(self, delay: int, o: int, x: int) -> None:
        event = self.env.timeout(delay, (o, x))
        event.callbacks = [self._end]  # nobody else waits for it
        self.n_events += 1

    def _end(self, event: simpy.Event) -> None:
        o, x = cast("tuple[int, int]", event.value)
        self.ended[o][x] = int(self.env.now)
        for follower in self._followers[o]:
            self._waiting[follower][x] -= 1
            if self._waiting[follower][x] == 0:
                self._begin(follower, x)

    def _admit(self, layer: int, x: int) -> None:
        """The experts of GPU x take the tokens that arrived for them, up to their capacity."""
        for slot in self._slots_of[x]:
            tokens, capacity = (
                self._slot_tokens[layer][slot],
                self._slot_capacity[layer][slot],
            )
            if 0 <= capacity < tokens:
                raise ConservationError(f"slot {slot} of MoE layer {layer} got {tokens} tokens, it admits {capacity}")
            self.admitted[layer][slot] += tokens

    def check_done(self) -> None:
        """Refuse a run that stopped with work left."""
        waiting = [
            f"{PARTS[self.program.kind[o]]} of layer {self.program.layer[o]} on GPU {x}"
            for o, ends in enumerate(self.ended)
            for x, end in enumerate(ends)
            if end < 0
        ]
        if waiting:
            more = f" and {len(waiting) - 5} more" if len(waiting) > 5 else ""
            raise DeadlockError(f"the step stopped with work left: {'; '.join(waiting[:5])}{more}")


@contextmanager
def _without_gc() -> Iterator[None]:
    """The collector would walk all live events again and again: 3 times the run time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
