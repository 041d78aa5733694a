"""Ports of GPUs and the messages that queue at them, as compiled code sees both.

A GPU has a port out and one in for each level of the network, or for several
that share one; of two levels, 0 is within a node and 1 across nodes. A message
leaves in node rotation outside and index rotation
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
from moesim.compiled.levels import level_above
from moesim.compiled.picoseconds import whole_picoseconds
from moesim.types import TWO_LEVELS, NetworkLevels

Times = NDArray[np.int64]


NO_UNITS = np.empty(0, dtype=np.int64)
NEVER_FULL = np.empty(0, dtype=np.int64)
NO_UPLINKS = np.empty((2, 0, 0), dtype=np.int64)


class Ports(NamedTuple):
    """The ports of G GPUs, P of each, and the shared uplinks of their units, as one exchange finds them; N levels.

    Attributes:
        out_ps: time of a token at each egress port, [P, G].
        in_ps: time of a token at each ingress port, [P, G].
        latency_ps: of each level and sender, [N, G], at least 1.
        slow: degraded links, [K, 5]: port, GPU, from, until (ps) and by what factor a token takes longer at
            that port of the GPU, both ways; a message has the rate in force when the port begins with it.
        gpus_per_node: m.
        free: when each port is free, [out or in, P, G]; an exchange replaces it by when it is free afterwards.
        units: GPUs of a unit of each level between the node and the whole, [N - 2].
        port: of each level, [N].
        uplink_ps: time of a token at the uplinks of a unit of each level but the last, [N - 1], 0 = never full;
            [0] where none can be full.
        uplink_free: when each uplink is free, [up or down, N - 1, units]; replaced as `free` is.
    """

    out_ps: Times
    in_ps: Times
    latency_ps: Times
    slow: NDArray[np.float64]
    gpus_per_node: int
    free: Times
    units: Times = NO_UNITS
    port: Times = np.array(TWO_LEVELS.ports, dtype=np.int64)
    uplink_ps: Times = NEVER_FULL
    uplink_free: Times = NO_UPLINKS


class Messages(NamedTuple):
    """The messages of an exchange, [G, G] each: by receiver and position (node rotation * m + index rotation).

    Attributes:
        size: tokens, 0 = no message.
        head: when the head of each message reaches its receiver.
        landed: when each message has landed.
        late: what uplinks have added to `head`; [0, 0] where no uplink can be full.
    """

    size: Times
    head: Times
    landed: Times
    late: Times


def free_ports(n_gpus: int, levels: NetworkLevels = TWO_LEVELS) -> Times:
    """When each port is free at the start of a step: [out or in, port, G]."""
    return np.zeros((2, levels.n_ports, n_gpus), dtype=np.int64)


def free_uplinks(n_gpus: int, gpus_per_node: int, levels: NetworkLevels) -> Times:
    """When each uplink is free at the start of a step: [up or down, N - 1, nodes], as no level has more units."""
    return np.zeros((2, levels.n_levels - 1, -(-n_gpus // gpus_per_node)), dtype=np.int64)


@njit
def rate(ps: int, port: int, gpu: int, now: int, slow: NDArray[np.float64]) -> int:
    """Picoseconds a token at a port of a GPU now."""
    for k in range(slow.shape[0]):
        if slow[k, 0] == port and slow[k, 1] == gpu and slow[k, 2] <= now < slow[k, 3]:
            ps = max(1, whole_picoseconds(ps * slow[k, 4]))
    return ps


@njit
def send(forward: bool, entry: Times, copies: Times, ports: Ports, messages: Messages) -> None:
    """Direct: every GPU sends to all others, each level through its egress port.

    Node by node, so that senders and receivers of one pair of nodes share their cache lines.
    """
    m, slow, free = ports.gpus_per_node, ports.slow, ports.free
    out_ps, latency_ps, units, port_of = ports.out_ps, ports.latency_ps, ports.units, ports.port
    size, head = messages.size, messages.head
    n_gpus = len(entry)
    n_nodes = n_gpus // m
    steady = slow.shape[0] == 0
    for hops in range(n_nodes):
        for s in range(n_gpus):
            index, first = s % m, (s // m + hops) % n_nodes * m
            level = 0 if hops == 0 else level_above(s, first, units)
            port = port_of[level]
            now = max(entry[s], free[0, port, s])
            p, wire = out_ps[port, s], latency_ps[level, s]
            for turn in range(m):
                d = first + (index + turn if index + turn < m else index + turn - m)
                c = copies[s, d] if forward else copies[d, s]
                if c > 0 and d != s:
                    size[d, hops * m + turn] = c
                    head[d, hops * m + turn] = now + wire
                    now += c * p if steady else c * rate(p, port, s, now, slow)
            free[0, port, s] = now


@njit
def sending_ps(s: int, d: int, pos: int, ports: Ports, messages: Messages) -> int:
    """How long the egress port of s sends the message that stands at a position of another receiver."""
    m = ports.gpus_per_node
    level = 0 if s // m == d // m else level_above(s, d, ports.units)
    port = ports.port[level]
    ps = ports.out_ps[port, s]
    if ports.slow.shape[0] > 0:
        began = messages.head[d, pos] - ports.latency_ps[level, s]
        if messages.late.shape[0] > 0:
            began -= messages.late[d, pos]
        ps = rate(ps, port, s, began, ports.slow)
    time: int = messages.size[d, pos] * ps
    return time


@njit
def receive(
    port: int,
    within: bool,
    all_hops: tuple[int, int],
    all_turns: tuple[int, int],
    ports: Ports,
    messages: Messages,
    end: Times,
) -> None:
    """A port of every GPU takes those of the messages at its positions that come to it, first come first served.

    Ties go to the lowest sender. The port is held while it takes the tokens at its own rate; a message of a
    slower sender, or one that an uplink held up, lands with its tail and delays no other.

    Args:
        port: number of the ingress port.
        within: positions are of senders of the same node, whatever their hops; else hops are node rotation.
        all_hops: first and last but one.
        all_turns: the same of index rotation.
        ports: of all GPUs; `free` is moved on.
        messages: `landed` is filled in.
        end: of each GPU; moved on to the last landing.
    """
    m, slow, free = ports.gpus_per_node, ports.slow, ports.free
    out_ps, in_ps, units, port_of = ports.out_ps, ports.in_ps, ports.units, ports.port
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
            first = node * m if within else (node - hops + n_nodes) % n_nodes * m
            if port_of[0 if first == node * m else level_above(d, first, units)] != port:
                continue
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
        now, last = free[1, port, d], end[d]
        for k in range(waiting):
            s, pos = tickets[k] >> 32, tickets[k] & 0xFFFFFFFF
            c = size[d, pos]
            now = max(now, times[k])
            if steady:
                now += c * in_ps[port, d]
                at = max(now, times[k] + c * out_ps[port, s])
            else:
                now += c * rate(in_ps[port, d], port, d, now, slow)
                at = max(now, times[k] + sending_ps(s, d, pos, ports, messages))
            landed[d, pos] = at
            last = max(last, at)
        free[1, port, d] = now
        end[d] = last
