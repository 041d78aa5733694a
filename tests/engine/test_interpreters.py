"""Three interpreters of one program agree exactly: textbook SimPy, the package's SimPy, and the compiled sweep."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from builders import program as build
from hypothesis import given, settings
from hypothesis import strategies as st
from textbook import textbook

from moesim.engine import run, run_compiled
from moesim.engine.ports import exchange, free_ports, latencies
from moesim.metrics import breakdown, critical_path
from moesim.types import PARTS, Exchange, Program

COMPUTE = [PARTS.index(kind) for kind in ("attention", "router", "experts", "shared_experts")]
DISPATCH, COMBINE = PARTS.index("dispatch"), PARTS.index("combine")


def random_program(seed: int, *, per_node: bool | None = None) -> Program:
    """Ties in most, zero sizes and durations, hot receivers, slow ports, 1 to 3 compute streams, any predecessors."""
    rng = np.random.default_rng(seed)
    n_nodes, m = int(rng.integers(1, 5)), int(rng.integers(1, 5))
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

    kinds, streams, predecessors, matrix = [], [], [], []
    exchanges = [(row, kind) for row in range(pairs) for kind in (DISPATCH, COMBINE)]
    while exchanges or rng.random() < 0.7:
        o = len(kinds)
        is_exchange = bool(exchanges) and rng.random() < 0.4
        row, kind = exchanges.pop(0) if is_exchange else (-1, int(rng.choice(COMPUTE)))
        kinds.append(kind)
        matrix.append(row)
        streams.append(1 if is_exchange else int(rng.choice([0, 2, 3], p=[0.7, 0.2, 0.1])))
        predecessors.append(tuple(sorted({int(p) for p in rng.integers(0, o, int(rng.integers(0, 3)))})) if o else ())
    n_experts = kinds.count(PARTS.index("experts"))
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
        exchange_layer=np.array(matrix),
        copies=c,
        node_copies=u if per_node else np.zeros((0, 0, 0), dtype=np.int64),
        copies_rule="per-node" if per_node else "per-rank",
        dispatch=rates(),
        combine=rates(),
        slot_tokens=np.zeros((n_experts, g), dtype=np.int64),
        slot_capacity=np.full((n_experts, g), -1, dtype=np.int64),
        slot_rank=np.arange(g, dtype=np.int32),
        network="port",
        **(faults(rng, g, len(kinds), top) if rng.random() < 0.4 else {}),
    )


def faults(rng: np.random.Generator, g: int, n_ops: int, top: int) -> dict[str, np.ndarray]:
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


def assert_equal(program: Program) -> None:
    """Start and end of every task, to the picosecond; the parts of every GPU and the critical path sum to the step."""
    expected = textbook(program)
    for timeline in (run(program), run_compiled(program)):
        np.testing.assert_array_equal(timeline.start_ps, expected.start)
        np.testing.assert_array_equal(timeline.end_ps, expected.end)
    makespan = int(expected.end.max())
    by_part, by_gpu = critical_path(program, timeline)
    assert by_part.sum() == by_gpu.sum() == makespan
    assert by_part[PARTS.index("wait")] == 0
    if len(set(program.stream.tolist()) - {1}) <= 1:
        parts = breakdown(program, timeline)
        assert (parts.sum(axis=1) == makespan).all()
        assert (parts >= 0).all()


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_three_interpreters_agree(seed: int) -> None:
    """Random programs, direct and two-hop."""
    assert_equal(random_program(seed))


@pytest.mark.slow
def test_three_interpreters_agree_on_thousands_of_programs() -> None:
    """The same over 4,000 seeds."""
    for seed in range(4000):
        assert_equal(random_program(seed))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_every_message_lands_when_the_textbook_says(seed: int) -> None:
    """Ties at ingress ports do not show in the ends of direct exchanges, but they do in the landings."""
    program = random_program(seed, per_node=False)
    if program.n_gpus == 1:
        return
    expected = textbook(program)
    g, m = program.n_gpus, program.gpus_per_node
    n_nodes, free = g // m, free_ports(g)
    end, nodes = np.zeros(g, dtype=np.int64), np.zeros((0, 0), dtype=np.int64)
    for o in np.flatnonzero(program.exchange_layer >= 0):
        forward = bool(program.kind[o] == DISPATCH)
        rates = program.dispatch if forward else program.combine
        copies = program.copies[program.exchange_layer[o]]
        arrival = np.zeros((g, g), dtype=np.int64)
        ports = (rates.out_ps, rates.in_ps, latencies(program)[o], program.slow_links)
        exchange(forward, False, expected.start[o], copies, nodes, *ports, m, free, end, arrival)
        tokens = copies if forward else copies.T
        for d in range(g):
            for pos in range(1, g):
                s = (d // m - pos // m) % n_nodes * m + (d - pos) % m
                if s != d and tokens[s, d]:
                    assert arrival[d, pos] == expected.landings[o][d, s]
        np.testing.assert_array_equal(end, expected.end[o])


def test_one_micro_batch_more_or_less() -> None:
    """The programs that the package lays out agree too: every overlap, on both levels, direct and two-hop."""
    rng = np.random.default_rng(7)
    for overlap, rows in (("none", 2), ("shared-expert", 2), ("two-batch", 4)):
        for rule in ("per-rank", "per-node"):
            copies = rng.integers(0, 9, (rows, 8, 8))
            nodes = np.maximum(copies.reshape(rows, 8, 2, 4).max(axis=3), 0)
            step = build(
                copies,
                attention_ps=rng.integers(0, 60, 8),
                experts_ps=rng.integers(0, 60, (rows, 8)),
                shared_ps=rng.integers(0, 40, 8),
                gpus_per_node=4,
                copies_rule=rule,
                node_copies=nodes if rule == "per-node" else None,
                overlap=overlap,
                network="port",
            )
            assert_equal(step)
            assert_equal(dataclasses.replace(step, dispatch=step.combine))
