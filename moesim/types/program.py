"""The work of one step, laid out before anything runs, and when it happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moesim.types.levels import TWO_LEVELS, NetworkLevels


class Part(IntEnum):
    """What a GPU spends its time on, in the order of the result frames; an operation is of any part but WAIT."""

    ATTENTION = 0
    DENSE = 1
    SHARED_EXPERTS = 2
    ROUTER = 3
    EXPERTS = 4
    HEAD = 5
    PLANNING = 6
    MIGRATION = 7
    DISPATCH = 8
    COMBINE = 9
    WAIT = 10


PARTS = tuple(part.name.lower() for part in Part)
"""Names of the parts in results and figures, by their number."""
EXCHANGE_KINDS = PARTS[Part.DISPATCH : Part.WAIT]
COMPUTE_KINDS = PARTS[: Part.DISPATCH]

COMPUTE_STREAM, EXCHANGE_STREAM = 0, 1


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """The ports' view of one payload: G GPUs, P ports of each, N levels (NetworkLevels), integer picoseconds.

    `out_ps`, `in_ps` int64 [P, G]: time of one token copy at each egress and
    ingress port; `latency_ps` int64 [N], at least 1. `uplink_ps` int64 [N - 1]: time of a copy at the
    shared uplink, and downlink, of a unit of each level but the last; 0 where it is never full, [0] where none is.
    """

    out_ps: NDArray[np.int64]
    in_ps: NDArray[np.int64]
    latency_ps: NDArray[np.int64]
    uplink_ps: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def has_uplinks(self) -> bool:
        """Whether any uplink can be full."""
        return bool(self.uplink_ps.any())


@dataclass(frozen=True, kw_only=True)
class Program:
    """Operations of one step, the same list for every GPU; O operations, G GPUs.

    `kind` is a Part; `layer` is the model's layer (-1 = none); `stream`s
    run in order; `predecessors[o]` lists earlier operations that o waits for
    on the same GPU. `duration_ps` int64 [O, G] is 0 for exchanges. An exchange
    o has `exchange_row[o]` = index l of its matrix `copies[l]` ([L, G, G],
    source to destination of the *dispatch*; combine runs it transposed), -1
    for compute; exchanges are totally ordered, on one stream. `slot_tokens`
    [L, S], `slot_capacity` [L, S] (-1 = unlimited) and `slot_rank` [S]: what
    the experts admit; `expert_tp` GPUs from that rank on share each slot.
    L counts MoE layers times `micro_batches`, micro-batch the faster index.
    `copy_rule` is the collective's (NetworkSpec.copies), `network` how
    exchanges are timed: "closed-form" or "port"; with `synchronous` each ends on
    all GPUs when it has ended on the last. `n_groups` groups of
    consecutive GPUs exchange within themselves alone, each with as many
    consecutive slots; they have nothing to do with one another.
    """

    n_gpus: int
    gpus_per_node: int
    kind: NDArray[np.int64]
    layer: NDArray[np.int64]
    stream: NDArray[np.int64]
    predecessors: tuple[tuple[int, ...], ...]
    duration_ps: NDArray[np.int64]
    exchange_row: NDArray[np.int64]
    copies: NDArray[np.int64]
    node_copies: NDArray[np.int64]
    copy_rule: str
    dispatch: Exchange
    combine: Exchange
    slot_tokens: NDArray[np.int64]
    slot_capacity: NDArray[np.int64]
    slot_rank: NDArray[np.int32]
    micro_batches: int = 1
    network: str = "closed-form"
    synchronous: bool = False
    n_groups: int = 1
    expert_tp: int = 1
    levels: NetworkLevels = TWO_LEVELS
    """Of the network; its first level is the node."""
    latency_ps: NDArray[np.int64] | None = None
    """Latency of each operation by level and sender, [O, N, G], where messages jitter; only of the port level."""
    slow_gpus: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 4)))
    """[K, 4]: GPU, from, until (ps after the step's begin), and by what factor a task takes longer; inf = stopped."""
    slow_links: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 5)))
    """[K, 5]: port, GPU, from, until, and the factor of that port of the GPU; only of the port level."""
    compute_factor: NDArray[np.float64] | None = None
    """What jitter made of each duration, [O, G], for the batches of queued experts, which are not laid out."""

    lost_ps: NDArray[np.int64] | None = None
    """When each GPU is lost for good, [G], the largest int64 for those that are not; None = none is."""

    @property
    def n_operations(self) -> int:
        """O, operations of a GPU."""
        return len(self.kind)

    @property
    def group_gpus(self) -> int:
        """GPUs that exchange with one another."""
        return self.n_gpus // self.n_groups

    def waits_for(self) -> tuple[tuple[int, ...], ...]:
        """What each operation waits for on its GPU: its predecessors and the one before it on its stream."""
        return _waits_for(tuple(self.stream.tolist()), self.predecessors)

    def expert_rows(self) -> list[int]:
        """Index into `slot_tokens` of each experts operation, -1 for all others."""
        experts = self.kind == Part.EXPERTS
        rows: list[int] = np.where(experts, np.cumsum(experts) - 1, -1).tolist()
        return rows


@lru_cache(maxsize=16)  # the steps of a run have one structure
def _waits_for(streams: tuple[int, ...], predecessors: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    last_of_stream: dict[int, int] = {}
    result = []
    for o, stream in enumerate(streams):
        before = set(predecessors[o])
        if stream in last_of_stream:
            before.add(last_of_stream[stream])
        last_of_stream[stream] = o
        result.append(tuple(sorted(before)))
    return tuple(result)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """When each operation ran: `start_ps`, `end_ps` int64 [O, G], and how many events it took.

    The start of an exchange on a GPU is its entry; `admitted` int64 [L, S]
    counts what each slot processed.
    """

    start_ps: NDArray[np.int64]
    end_ps: NDArray[np.int64]
    admitted: NDArray[np.int64]
    n_events: int

    @property
    def makespan_ps(self) -> int:
        """When the last operation ended."""
        return int(self.end_ps.max(initial=0))
