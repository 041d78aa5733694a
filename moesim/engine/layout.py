"""From durations and traffic to the program of one step."""

from __future__ import annotations

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

MOE_LAYER = ("attention", "router", "shared_experts", "dispatch", "experts", "combine")
DENSE_LAYER = ("attention", "dense")


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
    durations: Durations,
    traffic: Traffic,
    placement: Placement,
    capacity: NDArray[np.int64] | None,
    copies_rule: str,
    gpus_per_node: int,
    dispatch: Exchange,
    combine: Exchange,
    has_shared: bool,
) -> Program:
    """The program of a step without overlap: one chain through all layers, then the head.

    Durations are rounded up to whole picoseconds here, once, so that every sum
    of them is exact. `capacity` [L, S] is what each slot may admit; None or -1 = unlimited.
    """
    n_gpus = placement.n_ranks
    kinds: list[str] = []
    layers: list[int] = []
    matrix: list[int] = []
    rows: list[NDArray[np.float64]] = []
    moe_index = 0
    for layer in range(n_layers):
        dense = layer in dense_layers
        for kind in DENSE_LAYER if dense else MOE_LAYER:
            if kind == "shared_experts" and not has_shared:
                continue
            exchange = kind in EXCHANGE_KINDS
            kinds.append(kind)
            layers.append(layer)
            matrix.append(moe_index if exchange else -1)
            rows.append(np.zeros(n_gpus) if exchange else _seconds(durations, kind, moe_index))
        moe_index += not dense
    kinds.append("head")
    layers.append(-1)
    matrix.append(-1)
    rows.append(durations.head)
    exchange_ops = np.array(matrix) >= 0
    unlimited = np.full_like(traffic.slot_tokens, -1)
    return Program(
        n_gpus=n_gpus,
        gpus_per_node=gpus_per_node,
        kind=np.array([PARTS.index(kind) for kind in kinds], dtype=np.int64),
        layer=np.array(layers, dtype=np.int64),
        stream=np.where(exchange_ops, EXCHANGE_STREAM, COMPUTE_STREAM).astype(np.int64),
        predecessors=((), *((o - 1,) for o in range(1, len(kinds)))),
        duration_ps=_picoseconds(np.stack(rows)),
        exchange_layer=np.array(matrix, dtype=np.int64),
        copies=traffic.copies,
        node_copies=traffic.node_copies,
        copies_rule=copies_rule,
        dispatch=dispatch,
        combine=combine,
        slot_tokens=traffic.slot_tokens,
        slot_capacity=unlimited if capacity is None else capacity,
        slot_rank=placement.rank,
    )


def _seconds(durations: Durations, kind: str, moe_index: int) -> NDArray[np.float64]:
    row: NDArray[np.float64] = getattr(durations, kind)
    return row[moe_index] if kind == "experts" else row


def _picoseconds(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rounded up, but for the noise of the multiplication: 1 ns is 1000 ps, not 1001."""
    return np.ceil(np.round(seconds * 1e12, 3)).astype(np.int64)
