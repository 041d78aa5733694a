"""From durations and traffic to the program of one step."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moesim.engine.groups import transfers_ps
from moesim.types import (
    COMPUTE_STREAM,
    EXCHANGE_KINDS,
    EXCHANGE_STREAM,
    TWO_LEVELS,
    Exchange,
    ModelShape,
    NetworkLevels,
    Part,
    Placement,
    Program,
    Traffic,
)
from moesim.types.picoseconds import picoseconds, whole_ps


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How a layer is ordered: micro-batches take its `stages` in turn, the second `lag` stages behind the first."""

    micro_batches: int
    stages: tuple[tuple[str, ...], ...]
    lag: int
    text: str


OVERLAPS = {
    "none": Overlap(
        micro_batches=1,
        stages=(("attention", "router", "shared_experts", "dispatch", "experts", "combine"),),
        lag=0,
        text="one part after the other",
    ),
    "shared-expert": Overlap(
        micro_batches=1,
        stages=(("attention", "router", "dispatch", "shared_experts", "experts", "combine"),),
        lag=0,
        text="shared experts during dispatch",
    ),
    "two-batch": Overlap(
        micro_batches=2,
        stages=(("attention", "router", "dispatch"), ("experts", "combine"), ("shared_experts",)),
        lag=0,
        text="two micro-batches take turns: one computes while the other's tokens are on their way",
    ),
    "two-batch-decode": Overlap(
        micro_batches=2,
        stages=(
            ("attention_in",),
            ("attention", "router"),
            ("dispatch", "shared_experts"),
            ("experts", "combine"),
            (),
        ),
        lag=2,
        text="the same for decode, where experts are short and the attention of each hides both exchanges of the other",
    ),
}
"""Scenarios name the first three; two-batch takes the last in decode. Orders of both as SGLang runs them (its
operations_strategy.py), whose deployment of 96 H100 is among the published results."""


_PART = {part.name.lower(): part for part in Part} | {"attention_in": Part.ATTENTION}
"""The part that each task and exchange of a stage counts for."""


class Durations(Protocol):
    """Seconds of each part: [C, G] for C classes of layers, `experts` [L, G]; `head` [G] once a step.

    `attention_in` is the part of `attention` before its kernel.
    """

    @property
    def attention(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def attention_in(self) -> NDArray[np.float64]: ...  # noqa: D102
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


@dataclass(frozen=True, kw_only=True)
class Collective:
    """How tokens are exchanged between GPUs.

    Attributes:
        copy_rule: how many copies of a token are sent (NetworkSpec.copies).
        gpus_per_node: of the cluster.
        dispatch: port rates of the dispatch payload.
        combine: the same of combine.
        network: how exchanges are timed, "closed-form" or "port".
        synchronous: whether an exchange ends on all GPUs at once.
        levels: of the network.
    """

    copy_rule: str
    gpus_per_node: int
    dispatch: Exchange
    combine: Exchange
    network: str = "closed-form"
    synchronous: bool = False
    levels: NetworkLevels = TWO_LEVELS


def lay_out(
    model: ModelShape,
    *,
    durations: Sequence[Durations],
    traffic: Traffic,
    placement: Placement,
    capacity: NDArray[np.int64] | None,
    collective: Collective,
    overlap: str = "none",
    overlap_slowdown: float = 0.0,
) -> Program:
    """The program of a step: all layers, then the head.

    Durations are rounded up to whole picoseconds here, once, so that every sum
    of them is exact. With two micro-batches what is computed during an exchange
    takes longer by a part of the time of that exchange.

    Args:
        model: its layers and their classes.
        durations: one a micro-batch, seconds; the head, which runs once for all tokens, is that of the first.
        traffic: of every MoE layer and micro-batch.
        placement: the GPU of each slot.
        capacity: what each slot may admit, [L, S]; None or -1 = unlimited.
        collective: how tokens are exchanged.
        overlap: a name of OVERLAPS.
        overlap_slowdown: part of an exchange's closed form that computing during it loses; only of two micro-batches.
    """
    order = _order(model.n_layers, model.dense_layers, overlap, model.shared_layers)
    layer_class = model.class_of_layer
    assert len(durations) == OVERLAPS[overlap].micro_batches
    n_gpus = placement.n_ranks
    duration = np.zeros((len(order.kind), n_gpus), dtype=np.int64)
    split = "attention_in" in {kind for kind, _ in order.tasks}
    for (kind, batch), (rows, moe_index) in order.tasks.items():
        if kind == "head":
            duration[rows] = picoseconds(durations[0].head)
            continue
        known = picoseconds(getattr(durations[batch], kind))
        if kind == "attention" and split:  # the rest, so that both are the whole
            known = known - picoseconds(durations[batch].attention_in)
        duration[rows] = known[moe_index if kind == "experts" else layer_class[order.layer[rows]]]
    unlimited = np.full_like(traffic.slot_tokens, -1)
    program = Program(
        n_gpus=n_gpus,
        gpus_per_node=collective.gpus_per_node,
        kind=order.kind,
        layer=order.layer,
        stream=order.stream,
        predecessors=order.predecessors,
        duration_ps=duration,
        exchange_row=order.matrix,
        copies=traffic.copies,
        node_copies=traffic.node_copies,
        copy_rule=collective.copy_rule,
        dispatch=collective.dispatch,
        combine=collective.combine,
        slot_tokens=traffic.slot_tokens,
        slot_capacity=unlimited if capacity is None else np.repeat(capacity, len(durations), axis=0),
        slot_rank=placement.rank,
        micro_batches=len(durations),
        network=collective.network,
        synchronous=collective.synchronous,
        n_groups=placement.n_groups,
        expert_tp=placement.expert_tp,
        levels=collective.levels,
    )
    return _slowed_by_exchanges(program, overlap_slowdown) if len(durations) > 1 and overlap_slowdown else program


def _slowed_by_exchanges(program: Program, loss: float) -> Program:
    """With the tasks that follow each exchange on the computing stream longer by a part of its time."""
    lost = whole_ps(loss * transfers_ps(program))
    duration = program.duration_ps.copy()
    computing = np.flatnonzero((program.exchange_row < 0) & (program.kind != Part.HEAD))
    exchanges = np.flatnonzero(program.exchange_row >= 0)
    after = np.searchsorted(computing, exchanges)
    during = after < len(computing)  # nothing is computed during the last exchanges
    np.add.at(duration, computing[after[during]], lost[exchanges[during]])
    return dataclasses.replace(program, duration_ps=duration)


_WAITS_FOR = {
    "attention": ("attention_in",),
    "dense": ("attention",),
    "router": ("attention",),
    "shared_experts": ("router",),
    "dispatch": ("router", "shared_experts"),
    "experts": ("dispatch", "shared_experts"),
    "combine": ("experts",),
}
"""Parts of the same layer and micro-batch that end before one begins, where they come earlier in the order."""

_ENDS = ("dense", "shared_experts", "combine")
"""Parts that the next layer waits for."""


@dataclass(frozen=True, kw_only=True)
class _Order:
    """The operations of a step without their sizes, which every step of a run has in common; it is never written to.

    `tasks`: by kind and micro-batch the rows of `duration_ps` and the MoE layer of each, which experts differ by.
    """

    kind: NDArray[np.int64]
    layer: NDArray[np.int64]
    stream: NDArray[np.int64]
    predecessors: tuple[tuple[int, ...], ...]
    matrix: NDArray[np.int64]
    tasks: dict[tuple[str, int], tuple[list[int], list[int]]]


@lru_cache(maxsize=16)
def _order(n_layers: int, dense_layers: tuple[int, ...], overlap: str, shared_layers: tuple[int, ...]) -> _Order:
    order = OVERLAPS[overlap]
    todo = _Operations()
    moe_indices = np.cumsum([layer not in dense_layers for layer in range(n_layers)]) - 1
    stages = [
        (layer, _dense(kinds) if layer in dense_layers else kinds)
        for layer in range(n_layers)
        for kinds in order.stages
    ]
    for now in range(len(stages) + order.lag):
        for batch in range(order.micro_batches):
            if 0 <= now - batch * order.lag < len(stages):
                layer, kinds = stages[now - batch * order.lag]
                for kind in kinds:
                    if kind != "shared_experts" or layer in shared_layers:
                        todo.add(kind, layer, batch, int(moe_indices[layer]), order.micro_batches)
    todo.add("head", -1, 0, 0, order.micro_batches)
    matrix = np.array(todo.matrix, dtype=np.int64)
    return _Order(
        kind=np.array([_PART[kind] for kind in todo.kind], dtype=np.int64),
        layer=np.array(todo.layer, dtype=np.int64),
        stream=np.where(matrix >= 0, EXCHANGE_STREAM, COMPUTE_STREAM).astype(np.int64),
        predecessors=tuple(todo.predecessors),
        matrix=matrix,
        tasks=dict(todo.tasks),
    )


def _dense(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """What a layer without experts has of a stage."""
    own = tuple(kind for kind in kinds if kind.startswith("attention"))
    return (*own, "dense") if "attention" in own else own


@dataclass
class _Operations:
    """The list as it grows; `done` has the operations of each micro-batch in the layer that it is in."""

    kind: list[str] = field(default_factory=list)
    layer: list[int] = field(default_factory=list)
    predecessors: list[tuple[int, ...]] = field(default_factory=list)
    matrix: list[int] = field(default_factory=list)
    tasks: dict[tuple[str, int], tuple[list[int], list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: ([], []))
    )
    done: dict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    at: dict[int, int] = field(default_factory=dict)

    def add(self, kind: str, layer: int, batch: int, moe_index: int, micro_batches: int) -> None:
        """One more. A layer begins when the one before it has ended, the head when all micro-batches have."""
        done = self.done[batch]
        if kind == "head":
            before = [own[name] for own in self.done.values() for name in _ENDS if name in own]
        elif self.at.get(batch) != layer:
            before = [done[name] for name in _ENDS if name in done]
            done.clear()
            self.at[batch] = layer
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
