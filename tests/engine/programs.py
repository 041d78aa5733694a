"""Random programs: what the package lays out and much that it does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from moesim.types import Exchange, NetworkLevels, Part, Program

COMPUTE = [Part.ATTENTION, Part.ROUTER, Part.EXPERTS, Part.SHARED_EXPERTS]
DISPATCH, COMBINE = Part.DISPATCH, Part.COMBINE


def random_program(seed: int, *, per_node: bool | None = None, shape: tuple[int, int] | None = None) -> Program:
    """Ties in most, zero sizes and durations, hot receivers, slow ports, 1 to 3 compute streams, any predecessors.

    Args:
        seed: of all that is drawn.
        per_node: whether copies are forwarded inside nodes; default: drawn.
        shape: nodes and GPUs of a node; default: drawn, up to 4 of each.
    """
    rng = np.random.default_rng(seed)
    n_nodes, m = shape or (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    g, pairs = n_nodes * m, int(rng.integers(1, 5))
    top = int(rng.choice([1, 2, 5, 50]))  # small numbers make ties
    c = rng.integers(0, rng.choice([2, 4, 12]), (pairs, g, g))
    if rng.random() < 0.4:
        c[:, :, rng.integers(g)] *= 9
    if rng.random() < 0.3:
        c *= rng.random((pairs, g, g)) < 0.3
    per_node = bool(rng.random() < 0.5) if per_node is None else per_node
    by_node = c.reshape(pairs, g, n_nodes, m)
    u = np.minimum(by_node.sum(axis=3), np.maximum(by_node.max(axis=3), rng.integers(1, 20, (pairs, g, n_nodes))))

    def rates() -> Exchange:
        def ports() -> np.ndarray:
            slow = np.where(rng.random((2, g)) < 0.2, 5, 1)
            return rng.integers(1, 1 + rng.choice([1, 3, 9]), (2, 1)) * slow

        return Exchange(out_ps=ports(), in_ps=ports(), latency_ps=rng.integers(1, 2 + top, 2))

    kinds: list[int] = []
    streams: list[int] = []
    predecessors: list[tuple[int, ...]] = []
    matrix: list[int] = []
    exchanges = [(row, kind) for row in range(pairs) for kind in (DISPATCH, COMBINE)]
    while exchanges or rng.random() < 0.7:
        o = len(kinds)
        is_exchange = bool(exchanges) and rng.random() < 0.4
        row, kind = exchanges.pop(0) if is_exchange else (-1, int(rng.choice(COMPUTE)))
        kinds.append(kind)
        matrix.append(row)
        streams.append(1 if is_exchange else int(rng.choice([0, 2, 3], p=[0.7, 0.2, 0.1])))
        predecessors.append(tuple(sorted({int(p) for p in rng.integers(0, o, int(rng.integers(0, 3)))})) if o else ())
    n_experts = kinds.count(Part.EXPERTS)
    duration = rng.integers(0, top + 1, (len(kinds), g))
    duration[np.array(matrix) >= 0] = 0
    return Program(
        n_gpus=g,
        gpus_per_node=m,
        kind=np.array(kinds),
        layer=np.zeros(len(kinds), dtype=np.int64),
        stream=np.array(streams),
        predecessors=tuple(predecessors),
        duration_ps=duration,
        exchange_row=np.array(matrix),
        copies=c,
        node_copies=u if per_node else np.zeros((0, 0, 0), dtype=np.int64),
        copy_rule="per-node" if per_node else "per-rank",
        dispatch=rates(),
        combine=rates(),
        slot_tokens=np.zeros((n_experts, g), dtype=np.int64),
        slot_capacity=np.full((n_experts, g), -1, dtype=np.int64),
        slot_rank=np.arange(g, dtype=np.int32),
        network="port",
        synchronous=bool(rng.random() < 0.3),
        **(faults(rng, g, len(kinds), top) if rng.random() < 0.4 else {}),
    )


SHAPES = ((4, 1), (4, 2), (6, 1), (6, 2), (8, 1), (8, 2), (9, 1), (12, 1), (4, 3))
"""Nodes and GPUs of a node of clusters that trees stand on."""


def random_tree(seed: int, *, per_node: bool | None = None, oversubscribed: bool = True) -> Program:
    """The same on a tree of two to four levels, whose levels share ports and whose uplinks can be full."""
    rng = np.random.default_rng([seed, 1])
    n_nodes, m = SHAPES[rng.integers(len(SHAPES))]
    program = random_program(seed, per_node=per_node, shape=(n_nodes, m))
    units, size = [], m
    for _ in range(int(rng.integers(0, 3))):
        larger = [size * k for k in (2, 3, 4) if n_nodes * m % (size * k) == 0]
        if larger:
            size = int(rng.choice(larger))
            units.append(size)
    n = len(units) + 2
    ports = [0, *np.cumsum(rng.random(n - 1) < 0.7).tolist()]
    levels = NetworkLevels(units=tuple(units), ports=tuple(ports), names=tuple(f"level {i}" for i in range(n)))
    top, g = int(rng.choice([2, 5, 50])), program.n_gpus

    def rates(found: Exchange) -> Exchange:
        rows = rng.integers(0, 2, levels.n_ports)
        uplinks = rng.integers(1, 1 + rng.choice([1, 3, 9]), n - 1) * (rng.random(n - 1) < 0.7)
        return Exchange(
            out_ps=found.out_ps[rows],
            in_ps=found.in_ps[rows],
            latency_ps=rng.integers(1, 2 + top, n),
            uplink_ps=uplinks if oversubscribed else np.empty(0, dtype=np.int64),
        )

    slow = program.slow_links.copy()
    slow[:, 0] = rng.integers(0, levels.n_ports, len(slow))
    jittered = rng.integers(1, 2 + top, (program.n_operations, n, g))
    return dataclasses.replace(
        program,
        levels=levels,
        dispatch=rates(program.dispatch),
        combine=rates(program.combine),
        slow_links=slow,
        latency_ps=None if program.latency_ps is None else jittered,
    )


def faults(rng: np.random.Generator, g: int, n_ops: int, top: int) -> dict[str, Any]:
    """Slow and stopped GPUs, degraded links, messages with a latency of their own; intervals overlap."""
    n = int(rng.integers(0, 4))
    begin = rng.integers(0, 10 * top, n)
    end = begin + rng.integers(1, 10 * top, n)
    gpus = np.stack([rng.integers(0, g, n), begin, end, rng.choice([1, 2, 3, np.inf], n)], axis=1)
    links = np.stack([rng.integers(0, 2, n), rng.integers(0, g, n), begin, end, rng.choice([1, 2, 5], n)], axis=1)
    return {
        "slow_gpus": gpus.astype(np.float64),
        "slow_links": links.astype(np.float64),
        "latency_ps": rng.integers(1, 2 + top, (n_ops, 2, g)),
    }
