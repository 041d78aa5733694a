"""Networks of more than two levels whose uplinks can be full: three interpreters, laws, and cases by hand."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.engine import balanced_traffic, exchange, longest_ps, run, run_compiled
from moesim.engine.arrival_network import Message, Network
from moesim.engine.closed_form import transfer_ps
from moesim.engine.instants import SEND, Instants
from moesim.engine.port_exchange import latencies, used_uplinks
from moesim.engine.ports import Ports, free_ports, free_uplinks
from moesim.metrics.traffic import link_traffic, uplinks_busy_ps
from moesim.placement import place
from moesim.types import TWO_LEVELS, Exchange, NetworkLevels, Part, Program, Traffic
from tests.builders import program as build
from tests.engine.programs import DISPATCH, random_program, random_tree
from tests.textbook import textbook

RACKS = NetworkLevels(units=(4,), ports=(0, 1, 1), names=("node", "rack", "pod"))
"""Nodes of 2 GPUs, racks of 2 nodes; what leaves a node goes through one port."""


def assert_equal(program: Program) -> None:
    """Start and end of every task, to the picosecond."""
    expected = textbook(program)
    for timeline in (run(program), run_compiled(program)):
        np.testing.assert_array_equal(timeline.start_ps, expected.start)
        np.testing.assert_array_equal(timeline.end_ps, expected.end)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_three_interpreters_agree_on_trees(seed: int) -> None:
    """Random programs on random trees, direct and two-hop, with shared ports and faults."""
    assert_equal(random_tree(seed))


@pytest.mark.slow
def test_three_interpreters_agree_on_hundreds_of_trees() -> None:
    """The same over 300 seeds."""
    for seed in range(300):
        assert_equal(random_tree(seed))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_levels_that_are_alike_are_one(seed: int, per_node: bool) -> None:
    """A tree whose upper levels share a port and a latency, without oversubscription, is a network of two levels."""
    program = random_program(seed, per_node=per_node, shape=(8, 2))
    levels = NetworkLevels(units=(4, 8), ports=(0, 1, 1, 1), names=("a", "b", "c", "d"))

    def taller(rates: Exchange) -> Exchange:
        return dataclasses.replace(rates, latency_ps=rates.latency_ps[[0, 1, 1, 1]], uplink_ps=np.zeros(3, np.int64))

    drawn = program.latency_ps
    tree = dataclasses.replace(
        program,
        levels=levels,
        dispatch=taller(program.dispatch),
        combine=taller(program.combine),
        latency_ps=None if drawn is None else drawn[:, [0, 1, 1, 1]],
    )
    np.testing.assert_array_equal(run_compiled(tree).end_ps, run_compiled(program).end_ps)
    np.testing.assert_array_equal(transfer_ps(tree), transfer_ps(program))


# the closed form


def tokens_sent(program: Program, o: int) -> dict[tuple[int, int], int]:
    """Tokens over each link in an exchange, by sender and receiver."""
    g, m, row = program.n_gpus, program.gpus_per_node, program.exchange_row[o]
    copies = program.copies[row]
    sent = {(s, d): int(copies[s, d]) for s in range(g) for d in range(g) if s != d}
    if program.copy_rule == "per-node":
        sent = dict.fromkeys(sent, 0)
        for s in range(g):
            for d in range(g):
                if (proxy := d // m * m + s % m) != d:
                    sent[proxy, d] += int(copies[s, d])
            for node in range(g // m):
                if node != s // m:
                    sent[s, node * m + s % m] += int(program.node_copies[row][s, node])
    return sent if program.kind[o] == Part.DISPATCH else {(d, s): n for (s, d), n in sent.items()}


def plain_closed_form(program: Program, o: int) -> np.ndarray:
    """The closed form of an exchange, link by link and unit by unit."""
    rates = program.dispatch if program.kind[o] == Part.DISPATCH else program.combine
    sizes, ports = [program.gpus_per_node, *program.levels.units, program.n_gpus], program.levels.ports
    sent = tokens_sent(program, o)
    level = {(s, d): next(i for i, size in enumerate(sizes) if s // size == d // size) for s, d in sent}
    wires = {i: int(rates.latency_ps[i]) for i in set(level.values())}
    end = np.zeros(program.n_gpus, dtype=np.int64)
    for x in range(program.n_gpus):
        busy = []
        for port in {ports[i] for i in wires}:
            own = {pair: n for pair, n in sent.items() if ports[level[pair]] == port}
            out = sum(n for (s, _), n in own.items() if s == x) * rates.out_ps[port, x]
            into = sum(n for (_, d), n in own.items() if d == x) * rates.in_ps[port, x]
            busy.append((max(out, into), max(wires[i] for i in wires if ports[i] == port)))
        for k, ps in enumerate(rates.uplink_ps):
            unit, size = x // sizes[k], sizes[k]
            up = sum(n for (s, d), n in sent.items() if s // size == unit != d // size)
            down = sum(n for (s, d), n in sent.items() if d // size == unit != s // size)
            if ps and max(wires) > k:
                busy.append((max(up, down) * ps, max(wires[i] for i in wires if i > k)))
        both = wires.get(0, 0) + max((wires[i] for i in wires if i), default=0)
        per_node = program.copy_rule == "per-node"
        end[x] = max(ps for ps, _ in busy) + both if per_node else max(ps + wire for ps, wire in busy)
    return np.full(program.n_gpus, end.max()) if program.synchronous else end


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_the_closed_form_is_the_busiest_port_or_uplink(seed: int) -> None:
    """Against a plain one; SimPy and the compiled sweep take it alike."""
    program = random_tree(seed)
    program = dataclasses.replace(program, network="closed-form", latency_ps=None, slow_links=np.empty((0, 5)))
    found = transfer_ps(program)
    for o in np.flatnonzero(program.exchange_row >= 0).tolist():
        np.testing.assert_array_equal(found[o], plain_closed_form(program, o))
    np.testing.assert_array_equal(run(program).end_ps, run_compiled(program).end_ps)


# conservation


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_what_leaves_a_level_enters_it_and_uplinks_carry_what_crosses(seed: int) -> None:
    """Bytes of links by level, and the busiest uplink, which carries all that crosses the border of its unit."""
    program = random_tree(seed)
    if not (program.dispatch.has_uplinks or program.combine.has_uplinks):
        assert not uplinks_busy_ps(program).any()
        return
    busy = np.zeros((2, program.levels.n_levels - 1, program.n_gpus), dtype=np.int64)
    sizes = program.levels.sizes(program.gpus_per_node)
    between = program.levels.between(program.n_gpus, program.gpus_per_node)
    for kind, rates in ((Part.DISPATCH, program.dispatch), (Part.COMBINE, program.combine)):
        payload = {"dispatch_bytes": int(kind == Part.DISPATCH), "combine_bytes": int(kind == Part.COMBINE)}
        _, carried = link_traffic(program, **payload)
        for level, links in enumerate(carried):
            assert not links[between != level].any()
        tokens = carried.sum(axis=0)
        for k, size in enumerate(sizes):
            for unit in range(program.n_gpus // size):
                inside = slice(unit * size, (unit + 1) * size)
                within = tokens[inside, inside].sum()
                busy[0, k, unit] += (tokens[inside].sum() - within) * rates.uplink_ps[k]
                busy[1, k, unit] += (tokens[:, inside].sum() - within) * rates.uplink_ps[k]
    np.testing.assert_array_equal(uplinks_busy_ps(program), busy.max(axis=(0, 2)))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_no_step_on_a_tree_is_longer_than_its_bound(seed: int) -> None:
    """With all that is slow, stopped or late."""
    program = random_tree(seed)
    assert run_compiled(program).makespan_ps <= longest_ps(program) * (1 + 1e-9)


# by hand


def tree(copies: Any, *, uplink_ps: Any, network: str = "port", latency: Any = (10, 20, 30), **more: Any) -> Program:
    """One MoE layer on 8 GPUs in nodes of 2 and racks of 4; 1 ps a token within a node, 4 ps above."""
    n = len(copies)
    ports = np.repeat(np.array([[1], [4]]), n, axis=1)
    rates = Exchange(out_ps=ports, in_ps=ports, latency_ps=np.array(latency), uplink_ps=np.array(uplink_ps))
    step = build(
        [copies],
        attention_ps=np.zeros(n, dtype=int),
        experts_ps=np.zeros((1, n), dtype=int),
        gpus_per_node=2,
        dispatch=rates,
        combine=rates,
        network=network,
        **more,
    )
    return dataclasses.replace(step, levels=RACKS)


def dispatch_ps(program: Program) -> list[int]:
    """How long each GPU is in its dispatch."""
    found = run_compiled(program)
    assert_equal(program) if program.network == "port" else None
    o = int(np.flatnonzero(program.kind == Part.DISPATCH)[0])
    took: list[int] = (found.end_ps[o] - found.start_ps[o]).tolist()
    return took


def pairs(*sent: tuple[int, int, int]) -> np.ndarray:
    """Tokens between 8 GPUs: (source, destination, how many)."""
    copies = np.zeros((8, 8), dtype=np.int64)
    for s, d, n in sent:
        copies[s, d] = n
    return copies


def test_three_levels_by_hand() -> None:
    """GPU 0 sends 5 tokens to 1 (its node), 2 (its rack) and 4 (the pod): 10 + 5, 20 + 20, and 30 after those 20 + 20.

    All wait for the flags of the other rack, 30.
    """
    copies = pairs((0, 1, 5), (0, 2, 5), (0, 4, 5))
    assert dispatch_ps(tree(copies, uplink_ps=[0, 0])) == [30, 30, 40, 30, 20 + 30 + 20, 30, 30, 30]


def test_an_uplink_makes_messages_as_late_as_it_finishes_after_their_tails() -> None:
    """GPUs 0 to 3 send 5 tokens each to the other rack; alone they take 20 and land at 50; the uplink takes 6 a token.

    All heads come at 30. It has finished with them at 60, 90, 120 and 150, their tails would have been through at 50:
    10, 40, 70 and 100 late. The way down is as fast: of heads at 40, 70, 100, 130 it is done at 70, 100, 130, 160.
    So tails, at 60, 90, 120 and 150 after the way up, are 10 later, and land then.
    """
    copies = pairs((0, 4, 5), (1, 5, 5), (2, 6, 5), (3, 7, 5))
    assert dispatch_ps(tree(copies, uplink_ps=[0, 6])) == [30, 30, 30, 30, 70, 100, 130, 160]
    assert dispatch_ps(tree(copies, uplink_ps=[0, 0]))[4:] == [50] * 4
    closed = dispatch_ps(tree(copies, uplink_ps=[0, 6], network="closed-form"))
    assert closed == [30 + 20 * 6] * 8


def test_an_uplink_as_fast_as_the_ports_below_it_delays_nothing_even() -> None:
    """Four GPUs of 4 ps a token under an uplink of 1 ps; messages to the same rack do not pass it."""
    even = np.where(np.arange(8)[:, None] // 4 != np.arange(8) // 4, 3, 2)
    np.fill_diagonal(even, 0)
    assert dispatch_ps(tree(even, uplink_ps=[0, 1])) == dispatch_ps(tree(even, uplink_ps=[0, 0]))


@pytest.mark.parametrize("network", ["port", "closed-form"])
@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_a_full_uplink_takes_the_oversubscription_times_as_long(network: str, ratio: int) -> None:
    """From a rack of n GPUs of bandwidth b come B bytes: B x ratio / (n b), in the limit of much to send."""
    tokens = 1000
    across = np.where(np.arange(8)[:, None] // 4 != np.arange(8) // 4, tokens, 0)
    time = max(dispatch_ps(tree(across, uplink_ps=[0, ratio], network=network)))
    ideal = across.sum() // 2 * 4 * ratio / 4
    assert ideal <= time <= ideal * 1.13 + 30


def test_racks_that_only_talk_within_have_idle_uplinks() -> None:
    """Nothing crosses, so nothing waits; flags need no uplink."""
    within = np.where(np.arange(8)[:, None] // 4 == np.arange(8) // 4, 9, 0)
    busy, idle = (dispatch_ps(tree(within, uplink_ps=[0, ps])) for ps in (99, 0))
    assert busy == idle


def test_copies_to_nodes_cross_once_and_are_forwarded_inside() -> None:
    """3 distinct tokens of GPU 0 for the node of 4 and 5, all of which 5 gets: over the uplink once, of 6 ps a token.

    Head at 30, through at 48 instead of 42: 6 late up; down it is done at 54, 6 later, so whole at GPU 4 at 54,
    then 10 + 3 to GPU 5.
    """
    nodes = np.zeros((8, 4), dtype=np.int64)
    nodes[0, 2] = 3
    step = tree(pairs((0, 5, 3)), uplink_ps=[0, 6], copy_rule="per-node", node_copies=[nodes])
    assert dispatch_ps(step)[4:6] == [54, 54 + 10 + 3]


# without rounds


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_ports_that_serve_by_arrival_deliver_an_exchange_alike(seed: int) -> None:
    """Of one direct exchange that all send at their entries, every message lands when the kernel says."""
    program = random_tree(seed, per_node=False)
    g, m, levels = program.n_gpus, program.gpus_per_node, program.levels
    o = int(np.flatnonzero(program.kind == DISPATCH)[0])
    rates, copies, latency = program.dispatch, program.copies[program.exchange_row[o]], latencies(program)[o]
    entry = np.random.default_rng(seed).integers(0, 30, g)
    ports = Ports(
        rates.out_ps,
        rates.in_ps,
        latency,
        program.slow_links,
        m,
        free_ports(g, levels),
        np.array(levels.units, dtype=np.int64),
        np.array(levels.ports, dtype=np.int64),
        used_uplinks(program, rates),
        free_uplinks(g, m, levels),
    )
    end, arrival, none = np.zeros(g, np.int64), np.zeros((g, g), np.int64), np.zeros((0, 0), np.int64)
    exchange(True, False, entry, copies, none, ports, end, arrival)
    env = simpy.Environment()
    instants, landed = Instants(env), {}

    def deliver(message: Message) -> None:
        landed[message.source, message.destination] = int(env.now)

    network = Network(instants, g, m, program.slow_links, deliver, levels)

    def sender(s: int) -> Any:
        yield env.timeout(int(entry[s]))
        for d in sorted(range(g), key=lambda d: network.turn(s, d)):
            if d != s and copies[s, d]:
                level = network.level(s, d)
                port = levels.ports[level]
                out, into = int(rates.out_ps[port, s]), int(rates.in_ps[port, d])
                uplinks = rates.uplink_ps.tolist()
                message = Message(s, d, level, int(copies[s, d]), out, into, int(latency[level, s]), None, uplinks)
                instants.decide(SEND, (s, network.turn(s, d)), partial(network.send, message))

    for s in range(g):
        env.process(sender(s))
    env.run()
    for s, d in np.argwhere(copies):
        if s != d:
            assert landed[s, d] == arrival[d, (d // m - s // m) % (g // m) * m + (d - s) % m]


def test_two_levels_are_what_programs_have_by_default() -> None:
    """Within a node and across nodes, each with its port."""
    assert TWO_LEVELS.between(4, 2).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert RACKS.between(8, 2)[0].tolist() == [0, 0, 1, 1, 2, 2, 2, 2]


@given(st.integers(0, 2**32 - 1))
def test_the_evenly_loaded_twin_keeps_what_goes_over_each_level(seed: int) -> None:
    """Of every sender, and spread evenly over the receivers of the level."""
    copies = np.random.default_rng(seed).integers(0, 9, (1, 8, 8))
    before = Traffic(slot_tokens=np.ones((1, 8), np.int64), copies=copies, node_copies=np.zeros((0, 0, 0), np.int64))
    placement = place("contiguous", n_experts=8, n_layers=1, n_ranks=8)
    after = balanced_traffic(before, placement, gpus_per_node=2, copy_rule="per-rank", levels=RACKS)
    between = RACKS.between(8, 2)
    for s in range(8):
        for level in range(3):
            own = (between[s] == level) & (np.arange(8) != s)
            assert after.copies[0, s, own].sum() == copies[0, s, own].sum()
            assert np.ptp(after.copies[0, s, own]) <= 1
