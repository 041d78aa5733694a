"""Message-level exchanges: every message queues at its egress and its ingress port.

The whole exchange is one compiled call, made when its last participant has
entered. That is exact: ports serve all messages of an exchange before any of
the next, nobody leaves before everybody has entered, and egress never waits for
ingress, so that every port is a sort and a Lindley recursion. The only state
carried on is the time at which each port is free.

Times are int64 picoseconds. G GPUs in nodes of m; levels 0 (within a node) and
1 (across nodes); four ports a GPU: out and in for each level. A message leaves
in node rotation outside and index rotation inside, is cut through (its head
arrives a latency after it begins to leave) and has landed when the receiving
port has taken it and its tail is there. A zero-byte flag for every pair takes
latency only.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.types import Part, Program
from moesim.types.picoseconds import MAX_PS

Times = NDArray[np.int64]
Slow = NDArray[np.float64]


def free_ports(n_gpus: int) -> Times:
    """When each port is free at the start of a step: [out or in, level, G]."""
    return np.zeros((2, 2, n_gpus), dtype=np.int64)


def latencies(program: Program) -> Times:
    """Latency of each operation by level and sender, [O, 2, G]; 0 for compute."""
    if program.latency_ps is not None:
        return program.latency_ps
    by_payload = np.stack([program.combine.latency_ps, program.dispatch.latency_ps])
    payload = (program.kind == Part.DISPATCH).astype(np.int64)
    used = by_payload[payload] * (program.exchange_row >= 0)[:, None]
    return np.repeat(used[:, :, None], program.n_gpus, axis=2)


def node_copies(program: Program) -> NDArray[np.int64]:
    """Distinct tokens for each node, [L, G, N]; [L, 0, 0] for a direct collective, which has none."""
    if program.copy_rule == "per-node":
        return program.node_copies
    return np.zeros((len(program.copies), 0, 0), dtype=np.int64)


@njit
def exchange(
    forward: bool,
    per_node: bool,
    entry: Times,
    copies: Times,
    node_copies: Times,
    out_ps: Times,
    in_ps: Times,
    latency: Times,
    slow: Slow,
    m: int,
    free: Times,
    end: Times,
    arrival: Times,
) -> None:
    """Run one exchange: fill `end` and `arrival`, carry `free` on.

    Args:
        forward: dispatch (else combine, which runs the matrix back).
        per_node: two-hop; else direct.
        entry: when each GPU enters, [G].
        copies: tokens of source s for destination d of the dispatch, [G, G].
        node_copies: distinct tokens of s for each node, [G, N]; read in two-hop.
        out_ps: time of a token at each egress port, [2, G].
        in_ps: time of a token at each ingress port, [2, G].
        latency: of each level and sender, [2, G], at least 1.
        slow: degraded links, [K, 5]: level, GPU, from, until (ps) and by what factor a token takes longer at
            that GPU's ports, both ways; a message has the rate in force when the port begins with it.
        m: GPUs of a node.
        free: when each port is free, [out or in, level, G]; replaced by when it is free afterwards.
        end: filled with when each GPU leaves, [G].
        arrival: [G, G], scratch; after a direct exchange the landing of each message by receiver and
            position (node rotation * m + index rotation) where a message has one.
    """
    size = np.zeros(copies.shape, dtype=np.int64)  # tokens by receiver and position
    head = np.empty(copies.shape, dtype=np.int64)  # when their head is there
    if not per_node:
        _flags(entry, latency, m, end)
        _send(forward, entry, copies, out_ps, latency, slow, m, free, size, head)
        _receive(0, (0, 1), (1, m), size, head, out_ps, in_ps, latency, slow, m, free, end, arrival)
        _receive(1, (1, len(entry) // m), (0, m), size, head, out_ps, in_ps, latency, slow, m, free, end, arrival)
    elif forward:
        _flags_handed_on(entry, latency, m, end)
        _send_to_nodes(entry, node_copies, out_ps, latency, slow, m, free, size, head)
        _receive(1, (1, len(entry) // m), (0, 1), size, head, out_ps, in_ps, latency, slow, m, free, end, arrival)
        _hand_on(entry, copies, out_ps, latency, slow, m, free, size, head, arrival)
        _receive(0, (0, len(entry) // m), (1, m), size, head, out_ps, in_ps, latency, slow, m, free, end, arrival)
    else:
        _flags_reduced(entry, latency, m, end)
        _send_to_reducers(entry, copies, out_ps, latency, slow, m, free, size, head)
        _receive(0, (0, len(entry) // m), (1, m), size, head, out_ps, in_ps, latency, slow, m, free, end, arrival)
        _send_reduced(entry, node_copies, out_ps, latency, slow, m, free, size, head, arrival)
        _receive(1, (1, len(entry) // m), (0, 1), size, head, out_ps, in_ps, latency, slow, m, free, end, arrival)


@njit
def _rate(ps: int, level: int, gpu: int, now: int, slow: Slow) -> int:
    """Picoseconds a token at a port of a GPU now."""
    for k in range(slow.shape[0]):
        if slow[k, 0] == level and slow[k, 1] == gpu and slow[k, 2] <= now < slow[k, 3]:
            ps = max(1, math.ceil(round(min(ps * slow[k, 4], MAX_PS), 3)))
    return ps


@njit
def _flags(entry: Times, latency: Times, m: int, end: Times) -> None:
    """Direct: when each GPU has entered itself and everybody's flag has arrived."""
    n_gpus = len(entry)
    last = np.empty(n_gpus // m, dtype=np.int64)  # when the last flag of each node is in the others
    for node in range(len(last)):
        last[node] = (entry[node * m : (node + 1) * m] + latency[1, node * m : (node + 1) * m]).max()
    for d in range(n_gpus):
        end[d] = _last_within(entry, latency, m, d)
        for node in range(len(last)):
            if node != d // m:
                end[d] = max(end[d], last[node])


@njit
def _flags_handed_on(entry: Times, latency: Times, m: int, end: Times) -> None:
    """Two-hop dispatch: a flag goes to the GPU j of the same index, which hands it on once it has entered."""
    for d in range(len(entry)):
        end[d] = _last_within(entry, latency, m, d)
        for s in range(len(entry)):
            if s // m != d // m:
                j = d // m * m + s % m
                handed = max(entry[s] + latency[1, s], entry[j])
                end[d] = max(end[d], handed if j == d else handed + latency[0, j])


@njit
def _flags_reduced(entry: Times, latency: Times, m: int, end: Times) -> None:
    """Two-hop combine: a node's flags for s meet at its GPU j of the index of s."""
    for s in range(len(entry)):
        end[s] = _last_within(entry, latency, m, s)
        for j in range(s % m, len(entry), m):
            if j != s:
                end[s] = max(end[s], _last_within(entry, latency, m, j) + latency[1, j])


@njit
def _last_within(entry: Times, latency: Times, m: int, d: int) -> int:
    """When GPU d has entered and has the flags of its node."""
    time: int = entry[d]
    for s in range(d // m * m, d // m * m + m):
        if s != d:
            time = max(time, entry[s] + latency[0, s])
    return time


@njit
def _send(
    forward: bool,
    entry: Times,
    copies: Times,
    out_ps: Times,
    latency: Times,
    slow: Slow,
    m: int,
    free: Times,
    size: Times,
    head: Times,
) -> None:
    """Direct: every GPU sends to all others, each level through its own egress port.

    Node by node, so that senders and receivers of one pair of nodes share their cache lines.
    """
    n_gpus = len(entry)
    n_nodes = n_gpus // m
    steady = slow.shape[0] == 0
    for hops in range(n_nodes):
        level = 0 if hops == 0 else 1
        for s in range(n_gpus):
            index, first = s % m, (s // m + hops) % n_nodes * m
            now = max(entry[s], free[0, level, s])
            p, wire = out_ps[level, s], latency[level, s]
            for turn in range(m):
                d = first + (index + turn if index + turn < m else index + turn - m)
                c = copies[s, d] if forward else copies[d, s]
                if c > 0 and d != s:
                    size[d, hops * m + turn] = c
                    head[d, hops * m + turn] = now + wire
                    now += c * p if steady else c * _rate(p, level, s, now, slow)
            free[0, level, s] = now


@njit
def _send_to_nodes(
    entry: Times,
    node_copies: Times,
    out_ps: Times,
    latency: Times,
    slow: Slow,
    m: int,
    free: Times,
    size: Times,
    head: Times,
) -> None:
    """Two-hop dispatch, first hop: one copy for each other node, to the GPU of the same index there."""
    n_gpus = len(entry)
    n_nodes = n_gpus // m
    for s in range(n_gpus):
        now = max(entry[s], free[0, 1, s])
        for hops in range(1, n_nodes):
            node = (s // m + hops) % n_nodes
            c = node_copies[s, node]
            if c > 0:
                size[node * m + s % m, hops * m] = c
                head[node * m + s % m, hops * m] = now + latency[1, s]
                now += c * _rate(out_ps[1, s], 1, s, now, slow)
        free[0, 1, s] = now


@njit
def _hand_on(
    entry: Times,
    copies: Times,
    out_ps: Times,
    latency: Times,
    slow: Slow,
    m: int,
    free: Times,
    size: Times,
    head: Times,
    arrival: Times,
) -> None:
    """Two-hop dispatch, second hop: own copies, then those of other nodes as they have landed whole.

    At the receivers a message stands at (rank in this order) * m + index rotation.
    """
    n_gpus = len(entry)
    n_nodes = n_gpus // m
    ready = np.empty(n_nodes, dtype=np.int64)
    origin = np.empty(n_nodes, dtype=np.int64)
    for j in range(n_gpus):
        node, index = j // m, j % m
        ready[0], origin[0] = entry[j], j
        n = 1
        for hops in range(1, n_nodes):
            if size[j, hops * m] > 0:
                at = max(arrival[j, hops * m], entry[j])
                s = (node - hops + n_nodes) % n_nodes * m + index
                k = n
                while k > 1 and (ready[k - 1] > at or (ready[k - 1] == at and origin[k - 1] > s)):
                    ready[k], origin[k] = ready[k - 1], origin[k - 1]
                    k -= 1
                ready[k], origin[k] = at, s
                n += 1
        now = free[0, 0, j]
        for k in range(n):
            for turn in range(1, m):
                d = node * m + (index + turn) % m
                c = copies[origin[k], d]
                if c > 0:
                    now = max(now, ready[k])
                    size[d, k * m + turn] = c
                    head[d, k * m + turn] = now + latency[0, j]
                    now += c * _rate(out_ps[0, j], 0, j, now, slow)
        free[0, 0, j] = now


@njit
def _send_to_reducers(
    entry: Times,
    copies: Times,
    out_ps: Times,
    latency: Times,
    slow: Slow,
    m: int,
    free: Times,
    size: Times,
    head: Times,
) -> None:
    """Two-hop combine, first hop: results for another node go to the GPU of their owner's index in this one."""
    n_gpus = len(entry)
    n_nodes = n_gpus // m
    for d in range(n_gpus):
        node, index = d // m, d % m
        now = max(entry[d], free[0, 0, d])
        for hops in range(n_nodes):
            for turn in range(1, m):
                other = (index + turn) % m
                c = copies[(node + hops) % n_nodes * m + other, d]
                if c > 0:
                    size[node * m + other, hops * m + turn] = c
                    head[node * m + other, hops * m + turn] = now + latency[0, d]
                    now += c * _rate(out_ps[0, d], 0, d, now, slow)
        free[0, 0, d] = now


@njit
def _send_reduced(
    entry: Times,
    node_copies: Times,
    out_ps: Times,
    latency: Times,
    slow: Slow,
    m: int,
    free: Times,
    size: Times,
    head: Times,
    arrival: Times,
) -> None:
    """Two-hop combine, second hop: a sum leaves for its owner when all parts of its node have landed."""
    n_gpus = len(entry)
    n_nodes = n_gpus // m
    ready = np.empty(n_nodes, dtype=np.int64)
    order = np.empty(n_nodes, dtype=np.int64)
    for j in range(n_gpus):
        node = j // m
        for hops in range(1, n_nodes):
            at = entry[j]
            for pos in range(hops * m + 1, hops * m + m):
                if size[j, pos] > 0:
                    at = max(at, arrival[j, pos])
            k = hops
            while k > 1 and ready[k - 1] > at:
                ready[k], order[k] = ready[k - 1], order[k - 1]
                k -= 1
            ready[k], order[k] = at, hops
        now = free[0, 1, j]
        for k in range(1, n_nodes):
            s = (node + order[k]) % n_nodes * m + j % m
            c = node_copies[s, node]
            if c > 0:
                now = max(now, ready[k])
                size[s, order[k] * m] = c
                head[s, order[k] * m] = now + latency[1, j]
                now += c * _rate(out_ps[1, j], 1, j, now, slow)
        free[0, 1, j] = now


@njit
def _receive(
    level: int,
    all_hops: tuple[int, int],
    all_turns: tuple[int, int],
    size: Times,
    head: Times,
    out_ps: Times,
    in_ps: Times,
    latency: Times,
    slow: Slow,
    m: int,
    free: Times,
    end: Times,
    arrival: Times,
) -> None:
    """Every ingress port of a level takes what stands at its positions, first come first served.

    Ties go to the lowest sender. The port is held while it takes the tokens at its own rate; a message of a
    slower sender lands with its tail and delays nobody.
    """
    n_gpus = len(end)
    n_nodes = n_gpus // m
    times = np.empty(n_gpus, dtype=np.int64)
    tickets = np.empty(n_gpus, dtype=np.int64)  # sender and position in one number, in the order of the tie rule
    steady = slow.shape[0] == 0
    for d in range(n_gpus):
        node, index = d // m, d % m
        waiting = 0
        for hops in range(all_hops[0], all_hops[1]):
            first = (node - hops + n_nodes) % n_nodes * m if level else node * m
            for turn in range(all_turns[0], all_turns[1]):
                pos = hops * m + turn
                if size[d, pos] == 0:
                    continue
                at = head[d, pos]
                ticket = (first + (index - turn if turn <= index else index - turn + m)) << 32 | pos
                k = waiting
                while k > 0 and (times[k - 1] > at or (times[k - 1] == at and tickets[k - 1] > ticket)):
                    times[k], tickets[k] = times[k - 1], tickets[k - 1]
                    k -= 1
                times[k], tickets[k] = at, ticket
                waiting += 1
        now, last = free[1, level, d], end[d]
        for k in range(waiting):
            s, pos = tickets[k] >> 32, tickets[k] & 0xFFFFFFFF
            c = size[d, pos]
            now = max(now, times[k])
            if steady:
                now += c * in_ps[level, d]
                landed = max(now, times[k] + c * out_ps[level, s])
            else:
                now += c * _rate(in_ps[level, d], level, d, now, slow)
                sent = times[k] - latency[level, s]  # when it began to leave
                landed = max(now, times[k] + c * _rate(out_ps[level, s], level, s, sent, slow))
            arrival[d, pos] = landed
            last = max(last, landed)
        free[1, level, d] = now
        end[d] = last
