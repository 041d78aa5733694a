"""From durations and traffic to the program of one step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moesim.types import (
    COMPUTE_STREAM,
    EXCHANGE_KINDS,
    EXCHANGE_STREAM,
    PARTS,
    Exchange,
    Placement,
    Program,
    Traffic,
)

IN_TURN = ("attention", "router", "shared_experts", "dispatch")
SHARED_MEANWHILE = ("attention", "router", "dispatch", "shared_experts")


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How a layer is ordered: `front` of each micro-batch, then experts and combine of each."""

    micro_batches: int
    front: tuple[str, ...]
    text: str


OVERLAPS = {
    "none": Overlap(micro_batches=1, front=IN_TURN, text="one part after the other"),
    "shared-expert": Overlap(micro_batches=1, front=SHARED_MEANWHILE, text="shared experts during dispatch"),
    "two-batch": Overlap(
        micro_batches=2,
        front=SHARED_MEANWHILE,
        text="two micro-batches take turns: one computes while the other's tokens are on their way",
    ),
}
"""By the name that scenarios use."""


class Durations(Protocol):
    """Seconds of each part, once a layer: [G] each, `experts` [L, G]; `head` once a step."""

    @property
    def attention(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def router(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def dense(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def shared_experts(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def experts(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def head(self) -> NDArray[np.float64]: ...  # noqa: D102


def lay_out(
    *,
    n_layers: int,
    dense_layers: tuple[int, ...],
    durations: Sequence[Durations],
    head: NDArray[np.float64],
    traffic: Traffic,
    placement: Placement,
    capacity: NDArray[np.int64] | None,
    copies_rule: str,
    gpus_per_node: int,
    dispatch: Exchange,
    combine: Exchange,
    has_shared: bool,
    overlap: str = "none",
    network: str = "closed-form",
) -> Program:
    """The program of a step: all layers, then the head.

    Durations are rounded up to whole picoseconds here, once, so that every sum of them is exact.

    Args:
        n_layers: of the model.
        dense_layers: those without experts.
        durations: one a micro-batch, seconds.
        head: seconds of the head for the whole step, [G].
        traffic: of every MoE layer and micro-batch.
        placement: the GPU of each slot.
        capacity: what each slot may admit, [L, S]; None or -1 = unlimited.
        copies_rule: the collective's (NetworkSpec.copies).
        gpus_per_node: of the cluster.
        dispatch: port rates of the dispatch payload.
        combine: the same of combine.
        has_shared: whether MoE layers have shared experts.
        overlap: a name of OVERLAPS.
        network: "closed-form" or "port".
    """
    order = _order(n_layers, dense_layers, overlap, has_shared)
    assert len(durations) == OVERLAPS[overlap].micro_batches
    n_gpus = placement.n_ranks
    duration = np.zeros((len(order.kind), n_gpus), dtype=np.int64)
    for (kind, batch), (rows, moe_index) in order.tasks.items():
        known = _picoseconds(head if kind == "head" else getattr(durations[batch], kind))
        duration[rows] = known[moe_index] if kind == "experts" else known
    unlimited = np.full_like(traffic.slot_tokens, -1)
    return Program(
        n_gpus=n_gpus,
        gpus_per_node=gpus_per_node,
        kind=order.kind,
        layer=order.layer,
        stream=order.stream,
        predecessors=order.predecessors,
        duration_ps=duration,
        exchange_layer=order.matrix,
        copies=traffic.copies,
        node_copies=traffic.node_copies,
        copies_rule=copies_rule,
        dispatch=dispatch,
        combine=combine,
        slot_tokens=traffic.slot_tokens,
        slot_capacity=unlimited if capacity is None else np.repeat(capacity, len(durations), axis=0),
        slot_rank=placement.rank,
        micro_batches=len(durations),
        network=network,
        n_groups=placement.n_groups,
        expert_tensor=placement.expert_tensor,
    )


_WAITS_FOR = {
    "dense": ("attention",),
    "router": ("attention",),
    "shared_experts": ("router",),
    "dispatch": ("router", "shared_experts"),
    "experts": ("dispatch", "shared_experts"),
    "combine": ("experts",),
}
"""Parts of the same layer and micro-batch that end before one begins, where they come earlier in the order."""


@dataclass(frozen=True, kw_only=True)
class _Order:
    """The operations of a step without their sizes, which every step of a run has in common; nobody writes to it.

    `tasks`: by kind and micro-batch the rows of `duration_ps` and the MoE layer of each, which experts differ by.
    """

    kind: NDArray[np.int64]
    layer: NDArray[np.int64]
    stream: NDArray[np.int64]
    predecessors: tuple[tuple[int, ...], ...]
    matrix: NDArray[np.int64]
    tasks: dict[tuple[str, int], tuple[list[int], list[int]]]


@lru_cache(maxsize=16)
def _order(n_layers: int, dense_layers: tuple[int, ...], overlap: str, has_shared: bool) -> _Order:
    order = OVERLAPS[overlap]
    todo = _Operations()
    moe_index = 0
    for layer in range(n_layers):
        dense = layer in dense_layers
        front = ("attention", "dense") if dense else order.front
        for kinds in (front, () if dense else ("experts", "combine")):
            for batch in range(order.micro_batches):
                for kind in kinds:
                    if kind != "shared_experts" or has_shared:
                        todo.add(kind, layer, batch, moe_index, order.micro_batches)
        moe_index += not dense
    todo.add("head", -1, 0, 0, order.micro_batches)
    matrix = np.array(todo.matrix, dtype=np.int64)
    return _Order(
        kind=np.array([PARTS.index(kind) for kind in todo.kind], dtype=np.int64),
        layer=np.array(todo.layer, dtype=np.int64),
        stream=np.where(matrix >= 0, EXCHANGE_STREAM, COMPUTE_STREAM).astype(np.int64),
        predecessors=tuple(todo.predecessors),
        matrix=matrix,
        tasks=dict(todo.tasks),
    )


@dataclass
class _Operations:
    """The list as it grows; `done` has the operations of each micro-batch in the layer at hand."""

    kind: list[str] = field(default_factory=list)
    layer: list[int] = field(default_factory=list)
    predecessors: list[tuple[int, ...]] = field(default_factory=list)
    matrix: list[int] = field(default_factory=list)
    tasks: dict[tuple[str, int], tuple[list[int], list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: ([], []))
    )
    done: dict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, kind: str, layer: int, batch: int, moe_index: int, micro_batches: int) -> None:
        """One more. A layer begins when the one before it has ended, the head when all micro-batches have."""
        done = self.done[batch]
        if kind == "head":
            before = [max(own.values()) for own in self.done.values() if own]
        elif kind == "attention":
            before = [max(done.values())] if done else []
            done.clear()
        else:
            before = [done[name] for name in _WAITS_FOR[kind] if name in done]
        done[kind] = len(self.kind)
        self.matrix.append(moe_index * micro_batches + batch if kind in EXCHANGE_KINDS else -1)
        if kind not in EXCHANGE_KINDS:
            rows, moe = self.tasks[kind, batch]
            rows.append(len(self.kind))
            moe.append(moe_index)
        self.kind.append(kind)
        self.layer.append(layer)
        self.predecessors.append(tuple(before))


def _picoseconds(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rounded up, but for the noise of the multiplication: 1 ns is 1000 ps, not 1001."""
    return np.ceil(np.round(seconds * 1e12, 3)).astype(np.int64)
