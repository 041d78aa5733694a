"""What the queued engine keeps account of: groups of tokens, what GPUs wait for, counts, and a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import simpy
from numpy.typing import NDArray

from moesim.engine.instants import Key
from moesim.types import TokenGroups

BEGIN = -1
"""Number of the node that stands for the begin of the step."""


@dataclass(eq=False, slots=True)
class Group:
    """Tokens of one source for one slot; `expert` is the one they chose, `cause` the node that brought them."""

    row: int
    source: int
    slot: int
    expert: int
    token: NDArray[np.int64]
    cause: int = BEGIN
    handed_on: bool = False
    since: int = 0
    tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = len(self.token)

    @property
    def key(self) -> Key:
        """The place of this group among those that are decided at one instant; every group has another."""
        return self.row, self.source, self.slot, int(self.handed_on), self.expert, int(self.token[0])

    def split(self, n: int) -> tuple[Group, Group]:
        """The first n and the rest."""
        own = (self.row, self.source, self.slot, self.expert)
        return (
            Group(*own, self.token[:n], self.cause, self.handed_on),
            Group(*own, self.token[n:], self.cause, self.handed_on),
        )


class Log:
    """Nodes as they are added; columns of QueuedRun."""

    NAMES = ("kind", "gpu", "layer", "start_ps", "end_ps", "tokens", "cause", "destination", "level")

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.waits: list[tuple[int, int, int, int, int]] = []

    def add(self, *values: int) -> int:
        """A node; its number."""
        self.rows.append([*values, BEGIN, BEGIN][: len(self.NAMES)])
        return len(self.rows) - 1

    def landed(self, node: int, now: int) -> None:
        """When a message has arrived."""
        self.rows[node][4] = now

    def columns(self) -> dict[str, NDArray[np.int64]]:
        """The nodes by begin, GPU and so on: their numbers say nothing of the order in which they were added."""
        table = np.array(self.rows, dtype=np.int64).reshape(-1, len(self.NAMES))
        columns = dict(zip(self.NAMES, table.T.copy(), strict=True))
        order = np.lexsort([columns[name] for name in ("end_ps", "destination", "layer", "kind", "gpu", "start_ps")])
        number = np.append(np.argsort(order), BEGIN)  # of a node that was added as the i-th; the last is that of BEGIN
        columns["cause"] = number[columns["cause"]]
        return {name: column[order] for name, column in columns.items()}


class Results:
    """The results that one GPU waits for in one row: how many are missing, and which node brought the last ones."""

    def __init__(self, env: simpy.Environment) -> None:
        self.missing, self.cause, self.all = 0, BEGIN, env.event()
        self.latest: list[int] = []

    def arrive(self, tokens: int, cause: int, node: list[int]) -> None:
        """`node` orders those that bring tokens: the largest at the last instant is the cause."""
        self.missing -= tokens
        if node > self.latest:
            self.latest, self.cause = node, cause
        if self.missing == 0:
            self.all.succeed()


class Counts:
    """What became of the tokens of each row, counted as it happens; arrays as in QueuedRun."""

    def __init__(self, groups: Sequence[TokenGroups], n_slots: int, n_experts: int, n_gpus: int) -> None:
        shape = (len(groups), n_experts)
        self.admitted = np.zeros((len(groups), n_slots), dtype=np.int64)
        self.dropped, self.away, self.into = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        self.dropped_copies = np.zeros((len(groups), n_gpus, n_gpus), dtype=np.int64)
        self.token_drops = tuple(np.zeros(row.n_tokens, dtype=np.int64) for row in groups)

    def admit(self, group: Group, tokens: int, expert: int) -> None:
        """So many tokens of a group are in the queue of their slot, which holds that expert."""
        self.admitted[group.row, group.slot] += tokens
        if group.handed_on:
            self.away[group.row, group.expert] += tokens
            self.into[group.row, expert] += tokens

    def drop(self, group: Group, gpu: int) -> None:
        """A group found no room on that GPU."""
        self.dropped[group.row, group.expert] += group.tokens
        self.token_drops[group.row][group.token] += 1
        self.dropped_copies[group.row, group.source, gpu] += group.tokens
