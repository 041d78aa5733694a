"""Three interpreters of one program agree exactly: textbook SimPy, the package's SimPy, and the compiled sweep."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.engine import run, run_compiled
from moesim.engine.port_exchange import exchange, latencies
from moesim.engine.ports import Ports, free_ports
from moesim.metrics import breakdown, critical_path
from moesim.types import Part, Program
from tests.builders import program as build
from tests.engine.programs import DISPATCH, random_program
from tests.textbook import textbook


def assert_equal(program: Program) -> None:
    """Start and end of every task, to the picosecond; the parts of every GPU and the critical path sum to the step."""
    expected = textbook(program)
    for timeline in (run(program), run_compiled(program)):
        np.testing.assert_array_equal(timeline.start_ps, expected.start)
        np.testing.assert_array_equal(timeline.end_ps, expected.end)
    makespan = int(expected.end.max())
    by_part, by_gpu = critical_path(program, timeline)
    assert by_part.sum() == by_gpu.sum() == makespan
    assert by_part[Part.WAIT] == 0
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
def test_three_interpreters_agree_on_a_thousand_programs() -> None:
    """The same over 1,000 seeds."""
    for seed in range(1000):
        assert_equal(random_program(seed))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_every_message_lands_when_the_textbook_says(seed: int) -> None:
    """Ties at ingress ports do not show in the ends of direct exchanges, but they do in the landings."""
    program = dataclasses.replace(random_program(seed, per_node=False), synchronous=False)
    if program.n_gpus == 1:
        return
    expected = textbook(program)
    g, m = program.n_gpus, program.gpus_per_node
    n_nodes, free = g // m, free_ports(g)
    end, nodes = np.zeros(g, dtype=np.int64), np.zeros((0, 0), dtype=np.int64)
    for o in np.flatnonzero(program.exchange_row >= 0).tolist():
        forward = bool(program.kind[o] == DISPATCH)
        rates = program.dispatch if forward else program.combine
        copies = program.copies[program.exchange_row[o]]
        arrival = np.zeros((g, g), dtype=np.int64)
        ports = Ports(rates.out_ps, rates.in_ps, latencies(program)[o], program.slow_links, m, free)
        exchange(forward, False, expected.start[o], copies, nodes, ports, end, arrival)
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
    for overlap, rows in (("none", 2), ("shared-expert", 2), ("two-batch", 4), ("two-batch-decode", 4)):
        for rule in ("per-rank", "per-node"):
            copies = rng.integers(0, 9, (rows, 8, 8))
            nodes = np.maximum(copies.reshape(rows, 8, 2, 4).max(axis=3), 0)
            step = build(
                copies,
                attention_ps=rng.integers(0, 60, 8),
                experts_ps=rng.integers(0, 60, (rows, 8)),
                shared_ps=rng.integers(0, 40, 8),
                gpus_per_node=4,
                copy_rule=rule,
                node_copies=nodes if rule == "per-node" else None,
                overlap=overlap,
                network="port",
            )
            assert_equal(step)
            assert_equal(dataclasses.replace(step, dispatch=step.combine))
