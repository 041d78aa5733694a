"""Collectives of two hops: one copy of a token for each node, which a GPU of the node hands on inside it.

In dispatch a token crosses to the GPU of its sender's index, which sends it on
to the others of its node. In combine the results of a node meet at that GPU,
which sends their sum back. The hops of an exchange follow one another here as
`moesim.engine.port_exchange` calls them. The way to another node has the level
of the two nodes, whatever lies between; where it shares its port with the
level within nodes, that port serves the first hop before the second.
"""

from __future__ import annotations

import numpy as np

from moesim.compiled.jit import njit
from moesim.compiled.levels import level_above
from moesim.engine.ports import Messages, Ports, Times, rate


@njit
def send_to_nodes(entry: Times, node_copies: Times, ports: Ports, messages: Messages) -> None:
    """Two-hop dispatch, first hop: one copy for each other node, to the GPU of the same index there."""
    m, slow, free = ports.gpus_per_node, ports.slow, ports.free
    out_ps, latency_ps, units, port_of = ports.out_ps, ports.latency_ps, ports.units, ports.port
    size, head = messages.size, messages.head
    n_gpus = len(entry)
    n_nodes = n_gpus // m
    for s in range(n_gpus):
        for hops in range(1, n_nodes):
            node = (s // m + hops) % n_nodes
            c = node_copies[s, node]
            if c > 0:
                level = level_above(s, node * m, units)
                port = port_of[level]
                now = max(entry[s], free[0, port, s])
                size[node * m + s % m, hops * m] = c
                head[node * m + s % m, hops * m] = now + latency_ps[level, s]
                free[0, port, s] = now + c * rate(out_ps[port, s], port, s, now, slow)


@njit
def hand_on(entry: Times, copies: Times, ports: Ports, messages: Messages) -> None:
    """Two-hop dispatch, second hop: own copies, then those of other nodes as they have landed whole.

    At the receivers a message stands at (rank in this order) * m + index rotation.
    """
    m, slow, free = ports.gpus_per_node, ports.slow, ports.free
    out_ps, latency_ps, port = ports.out_ps, ports.latency_ps, ports.port[0]
    size, head, landed = messages.size, messages.head, messages.landed
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
                at = max(landed[j, hops * m], entry[j])
                s = (node - hops + n_nodes) % n_nodes * m + index
                k = n
                while k > 1 and (ready[k - 1] > at or (ready[k - 1] == at and origin[k - 1] > s)):
                    ready[k], origin[k] = ready[k - 1], origin[k - 1]
                    k -= 1
                ready[k], origin[k] = at, s
                n += 1
        now = free[0, port, j]
        for k in range(n):
            for turn in range(1, m):
                d = node * m + (index + turn) % m
                c = copies[origin[k], d]
                if c > 0:
                    now = max(now, ready[k])
                    size[d, k * m + turn] = c
                    head[d, k * m + turn] = now + latency_ps[0, j]
                    now += c * rate(out_ps[port, j], port, j, now, slow)
        free[0, port, j] = now


@njit
def send_to_reducers(entry: Times, copies: Times, ports: Ports, messages: Messages) -> None:
    """Two-hop combine, first hop: results for another node go to the GPU of their owner's index in this one."""
    m, slow, free = ports.gpus_per_node, ports.slow, ports.free
    out_ps, latency_ps, port = ports.out_ps, ports.latency_ps, ports.port[0]
    size, head = messages.size, messages.head
    n_gpus = len(entry)
    n_nodes = n_gpus // m
    for d in range(n_gpus):
        node, index = d // m, d % m
        now = max(entry[d], free[0, port, d])
        for hops in range(n_nodes):
            for turn in range(1, m):
                other = (index + turn) % m
                c = copies[(node + hops) % n_nodes * m + other, d]
                if c > 0:
                    size[node * m + other, hops * m + turn] = c
                    head[node * m + other, hops * m + turn] = now + latency_ps[0, d]
                    now += c * rate(out_ps[port, d], port, d, now, slow)
        free[0, port, d] = now


@njit
def send_reduced(entry: Times, node_copies: Times, ports: Ports, messages: Messages) -> None:
    """Two-hop combine, second hop: a sum leaves for its owner when all parts of its node have landed."""
    m, slow, free = ports.gpus_per_node, ports.slow, ports.free
    out_ps, latency_ps, units, port_of = ports.out_ps, ports.latency_ps, ports.units, ports.port
    size, head, landed = messages.size, messages.head, messages.landed
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
                    at = max(at, landed[j, pos])
            k = hops
            while k > 1 and ready[k - 1] > at:
                ready[k], order[k] = ready[k - 1], order[k - 1]
                k -= 1
            ready[k], order[k] = at, hops
        for k in range(1, n_nodes):
            s = (node + order[k]) % n_nodes * m + j % m
            c = node_copies[s, node]
            if c > 0:
                level = level_above(j, s, units)
                port = port_of[level]
                now = max(free[0, port, j], ready[k])
                size[s, order[k] * m] = c
                head[s, order[k] * m] = now + latency_ps[level, j]
                free[0, port, j] = now + c * rate(out_ps[port, j], port, j, now, slow)
