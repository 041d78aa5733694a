"""Shared uplinks: what leaves or enters a rack, or a node, goes through one port that all of its GPUs share.

A message over level k goes up through the uplinks of the units of its sender
at levels 0 to k - 1, and down through those of its receiver, in the opposite
order; those that are never full are not there. The latency of the message lies
before the first of them. An uplink takes messages first come first served by
their heads, of heads of one instant the lowest sender's in its order of sending,
and serves all messages of an exchange before any of the next. Packets of
messages interleave in a switch, so that a message is as late as the uplink has
finished with it after its tail would have passed, its head as well as its tail:
an uplink as fast as all ports below it delays nothing that is evenly loaded.

Times are int64 picoseconds. G GPUs in nodes of m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.engine.ports import Messages, Ports, Times, sending_ps

UP, DOWN = 0, 1


@njit
def pass_uplinks(turns: int, ports: Ports, messages: Messages) -> None:
    """Move the heads of all messages to other nodes on to when they have passed the uplinks of their way.

    Args:
        turns: index rotations at which there are messages to other nodes: m of direct exchanges, 1 of two hops.
        ports: `uplink_free` is moved on.
        messages: `head` and `late` are moved on.
    """
    n_stages = len(ports.uplink_ps)
    for k in range(n_stages):
        if ports.uplink_ps[k] > 0:
            _pass_all(k, UP, turns, ports, messages)
    for k in range(n_stages - 1, -1, -1):
        if ports.uplink_ps[k] > 0:
            _pass_all(k, DOWN, turns, ports, messages)


@njit
def _pass_all(k: int, side: int, turns: int, ports: Ports, messages: Messages) -> None:
    """All units of level k, one way; those that share nothing with each other."""
    n_gpus = len(messages.size)
    size = ports.gpus_per_node if k == 0 else ports.units[k - 1]
    for unit in range((n_gpus + size - 1) // size):
        first, last = unit * size, min((unit + 1) * size, n_gpus)
        room = (last - first) * (n_gpus - (last - first))
        place = np.empty((3, room), dtype=np.int64)  # sender, receiver and position, in the order of the tie rule
        if side == UP:
            n = _leaving(first, last, turns, ports.gpus_per_node, messages, place)
        else:
            n = _entering(first, last, turns, ports.gpus_per_node, messages, place)
        _pass(ports.uplink_ps[k], place[:, :n], ports, messages, ports.uplink_free[side, k], unit)


@njit
def _leaving(first: int, last: int, turns: int, m: int, messages: Messages, place: Times) -> int:
    """Write where the messages stand that leave a unit of GPUs; how many there are."""
    n, n_nodes = 0, len(messages.size) // m
    for s in range(first, last):
        for hops in range(1, n_nodes):
            node = (s // m + hops) % n_nodes * m
            if node < first or node >= last:
                n = _add(s, node, hops, turns, m, messages, place, n)
    return n


@njit
def _entering(first: int, last: int, turns: int, m: int, messages: Messages, place: Times) -> int:
    """Write where the messages stand that enter a unit of GPUs; how many there are."""
    n, n_gpus = 0, len(messages.size)
    n_nodes = n_gpus // m
    for s in range(n_gpus):
        if first <= s < last:
            continue
        for hops in range(1, n_nodes):
            node = (s // m + hops) % n_nodes * m
            if first <= node < last:
                n = _add(s, node, hops, turns, m, messages, place, n)
    return n


@njit
def _add(s: int, node: int, hops: int, turns: int, m: int, messages: Messages, place: Times, n: int) -> int:
    """The messages of one GPU to the node that begins with a GPU."""
    for turn in range(turns):
        d, pos = node + (s % m + turn) % m, hops * m + turn
        if messages.size[d, pos] > 0:
            place[0, n], place[1, n], place[2, n] = s, d, pos
            n += 1
    return n


@njit
def _pass(ps: int, place: Times, ports: Ports, messages: Messages, free: NDArray[np.int64], unit: int) -> None:
    """The messages at these places pass one uplink, whose `free[unit]` is moved on."""
    n = place.shape[1]
    heads = np.empty(n, dtype=np.int64)
    for i in range(n):
        heads[i] = messages.head[place[1, i], place[2, i]]
    before = now = free[unit]
    for i in np.argsort(heads, kind="mergesort"):  # stable: ties stay in the order of the places
        s, d, pos = place[0, i], place[1, i], place[2, i]
        now = max(now, heads[i]) + messages.size[d, pos] * ps
        tail = heads[i] + sending_ps(s, d, pos, ports, messages)
        late = max(0, now - tail, before - heads[i])
        messages.head[d, pos] += late
        messages.late[d, pos] += late
    free[unit] = now
