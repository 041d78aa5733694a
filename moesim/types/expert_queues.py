"""Experts as servers with queues: what is sent to them in a step, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class TokenGroups:
    """What the ranks send to the slots of one MoE layer and micro-batch: a group for each (source, slot), N in all.

    Sorted by source, then slot. `source`, `slot` int64 [N]; the tokens of group i are `token[first[i]:first[i + 1]]`,
    numbered within the `n_tokens` of the row. `alternates` int32 [n_tokens, J]: the best experts that each
    token did not choose, best first, -1 beyond them; [n_tokens, 0] where no queue asks.
    """

    source: NDArray[np.int64]
    slot: NDArray[np.int64]
    first: NDArray[np.int64]
    token: NDArray[np.int64]
    n_tokens: int
    alternates: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Queues:
    """How slots queue; L MoE layers, S slots, E experts.

    `room` tokens may wait at a slot (None = any number); `overflow` is "drop",
    "block" or "next". `expert` int32 [L, S] is the expert of each slot.
    """

    room: int | None
    overflow: str
    expert: NDArray[np.int32]
    n_experts: int

    def slots_of_experts(self, layer: int) -> list[list[int]]:
        """The slots of each expert in a MoE layer."""
        slots: list[list[int]] = [[] for _ in range(self.n_experts)]
        for slot, e in enumerate(self.expert[layer].tolist()):
            slots[e].append(slot)
        return slots


@dataclass(frozen=True, kw_only=True)
class QueuedRun:
    """What happened in a step with expert queues: N nodes (tasks and messages), Q waits; R rows of TokenGroups.

    A node is int64 [N]: `kind` is a Part, `gpu` the one that ran or sent it,
    `layer`, `start_ps` (of a message: when it was ready to leave), `end_ps` (when it had
    landed), `tokens`, and `cause`, the node that let it begin, -1 = the step's begin.
    Of messages `destination` and `level`, -1 for tasks. `waits` int64 [Q, 5]: GPU, layer, from, until, tokens
    of each group in a queue. `admitted` int64 [R, S]; `dropped`, `rerouted_away`, `rerouted_in` int64 [R, E];
    `dropped_copies` int64 [R, G, G]: those of each source, by the GPU that dropped them;
    `token_drops`: for each row how many choices of each token were dropped.
    """

    kind: NDArray[np.int64]
    gpu: NDArray[np.int64]
    layer: NDArray[np.int64]
    start_ps: NDArray[np.int64]
    end_ps: NDArray[np.int64]
    tokens: NDArray[np.int64]
    cause: NDArray[np.int64]
    destination: NDArray[np.int64]
    level: NDArray[np.int64]
    waits: NDArray[np.int64]
    longest_queue: int
    admitted: NDArray[np.int64]
    dropped: NDArray[np.int64]
    dropped_copies: NDArray[np.int64]
    rerouted_away: NDArray[np.int64]
    rerouted_in: NDArray[np.int64]
    token_drops: tuple[NDArray[np.int64], ...]
    n_events: int

    @property
    def makespan_ps(self) -> int:
        """When the last task ended or message landed."""
        return int(self.end_ps.max(initial=0))
