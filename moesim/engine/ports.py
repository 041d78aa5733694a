"""Ports of GPUs and the messages that queue at them, as compiled code sees both.

Four ports a GPU: out and in for each of two levels, 0 (within a node) and 1
(across nodes). A message leaves in node rotation outside and index rotation
inside, is cut through (its head arrives a latency after it begins to leave)
and has landed when the receiving port has taken it and its tail is there.
Every port is a sort and a Lindley recursion; the only state carried on from one
exchange to the next is the time at which each port is free.

Times are int64 picoseconds. G GPUs in nodes of m.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.picoseconds import whole_picoseconds

Times = NDArray[np.int64]


class Ports(NamedTuple):
    """The ports of G GPUs, as one exchange finds them.

    Attributes:
        out_ps: time of a token at each egress port, [2, G].
        in_ps: time of a token at each ingress port, [2, G].
        latency_ps: of each level and sender, [2, G], at least 1.
        slow: degraded links, [K, 5]: level, GPU, from, until (ps) and by what factor a token takes longer at
            that GPU's ports, both ways; a message has the rate in force when the port begins with it.
        gpus_per_node: m.
        free: when each port is free, [out or in, level, G]; an exchange replaces it by when it is free afterwards.
    """

    out_ps: Times
    in_ps: Times
    latency_ps: Times
    slow: NDArray[np.float64]
    gpus_per_node: int
    free: Times


class Messages(NamedTuple):
    """The messages of an exchange, [G, G] each: by receiver and position (node rotation * m + index rotation).

    Attributes:
        size: tokens, 0 = no message.
        head: when the head of each message reaches its receiver.
        landed: when each message has landed.
    """

    size: Times
    head: Times
    landed: Times


def free_ports(n_gpus: int) -> Times:
    """When each port is free at the start of a step: [out or in, level, G]."""
    return np.zeros((2, 2, n_gpus), dtype=np.int64)


@njit
def rate(ps: int, level: int, gpu: int, now: int, slow: NDArray[np.float64]) -> int:
    """Picoseconds a token at a port of a GPU now."""
    for k in range(slow.shape[0]):
        if slow[k, 0] == level and slow[k, 1] == gpu and slow[k, 2] <= now < slow[k, 3]:
            ps = max(1, whole_picoseconds(ps * slow[k, 4]))
    return ps


@njit
def send(forward: bool, entry: Times, copies: Times, ports: Ports, messages: Messages) -> None:
    """Direct: every GPU sends to all others, each level through its own egress port.

    Node by node, so that senders and receivers of one pair of nodes share their cache lines.
    """
    m, slow, free = ports.gpus_per_node, ports.slow, ports.free
    out_ps, latency_ps = ports.out_ps, ports.latency_ps
    size, head = messages.size, messages.head
    n_gpus = len(entry)
    n_nodes = n_gpus // m
    steady = slow.shape[0] == 0
    for hops in range(n_nodes):
        level = 0 if hops == 0 else 1
        for s in range(n_gpus):
            index, first = s % m, (s // m + hops) % n_nodes * m
            now = max(entry[s], free[0, level, s])
            p, wire = out_ps[level, s], latency_ps[level, s]
            for turn in range(m):
                d = first + (index + turn if index + turn < m else index + turn - m)
                c = copies[s, d] if forward else copies[d, s]
                if c > 0 and d != s:
                    size[d, hops * m + turn] = c
                    head[d, hops * m + turn] = now + wire
                    now += c * p if steady else c * rate(p, level, s, now, slow)
            free[0, level, s] = now


@njit
def receive(
    level: int,
    all_hops: tuple[int, int],
    all_turns: tuple[int, int],
    ports: Ports,
    messages: Messages,
    end: Times,
) -> None:
    """Every ingress port of a level takes what stands at its positions, first come first served.

    Ties go to the lowest sender. The port is held while it takes the tokens at its own rate; a message of a
    slower sender lands with its tail and delays no other.
    """
    m, slow, free = ports.gpus_per_node, ports.slow, ports.free
    out_ps, in_ps, latency_ps = ports.out_ps, ports.in_ps, ports.latency_ps
    size, head, landed = messages.size, messages.head, messages.landed
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
                at = max(now, times[k] + c * out_ps[level, s])
            else:
                now += c * rate(in_ps[level, d], level, d, now, slow)
                sent = times[k] - latency_ps[level, s]  # when it began to leave
                at = max(now, times[k] + c * rate(out_ps[level, s], level, s, sent, slow))
            landed[d, pos] = at
            last = max(last, at)
        free[1, level, d] = now
        end[d] = last
