"""Message-level exchanges: every message queues at its egress and its ingress port.

The whole exchange is one compiled call, made when its last participant has
entered. That is exact: ports serve all messages of an exchange before any of
the next, no GPU leaves before all have entered, and egress never waits for
ingress. A zero-byte flag for every pair takes latency only.

Times are int64 picoseconds. G GPUs in nodes of m; `moesim.engine.ports` has the physics of a message.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.levels import level_above
from moesim.engine.ports import NEVER_FULL, Messages, Ports, Times, receive, send
from moesim.engine.two_hop import hand_on, send_reduced, send_to_nodes, send_to_reducers
from moesim.engine.uplinks import pass_uplinks
from moesim.types import Exchange, Part, Program


def latencies(program: Program) -> Times:
    """Latency of each operation by level and sender, [O, N, G]; 0 for compute."""
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


def used_uplinks(program: Program, payload: Exchange) -> Times:
    """Time of a copy at the uplinks of each level, [N - 1]; [0] where none can be full in either payload."""
    full = program.dispatch.has_uplinks or program.combine.has_uplinks
    return payload.uplink_ps if full else NEVER_FULL


@njit
def exchange(
    forward: bool,
    per_node: bool,
    entry: Times,
    copies: Times,
    node_copies: Times,
    ports: Ports,
    end: Times,
    arrival: Times,
) -> None:
    """Run one exchange: fill `end` and `arrival`, and move the times at which ports are free on.

    Args:
        forward: dispatch (else combine, which runs the matrix back).
        per_node: two-hop; else direct.
        entry: when each GPU enters, [G].
        copies: tokens of source s for destination d of the dispatch, [G, G].
        node_copies: distinct tokens of s for each node, [G, N]; read in two-hop.
        ports: of the payload; `free` and `uplink_free` are replaced by when each is free afterwards.
        end: filled with when each GPU leaves, [G].
        arrival: [G, G], scratch; after a direct exchange the landing of each message by receiver and
            position (node rotation * m + index rotation) where a message has one.
    """
    m = ports.gpus_per_node
    n_nodes, n_ports = len(entry) // m, len(ports.out_ps)
    shared = len(ports.uplink_ps) > 0
    late = np.zeros(copies.shape if shared else (0, 0), dtype=np.int64)
    size = np.zeros(copies.shape, dtype=np.int64)
    messages = Messages(size, np.empty(copies.shape, dtype=np.int64), arrival, late)
    if not per_node:
        _flags(entry, ports.latency_ps, ports.units, m, end)
        send(forward, entry, copies, ports, messages)
        if shared:
            pass_uplinks(m, ports, messages)
        for port in range(n_ports):
            receive(port, False, (0, n_nodes), (0, m), ports, messages, end)
    elif forward:
        _flags_handed_on(entry, ports.latency_ps, ports.units, m, end)
        send_to_nodes(entry, node_copies, ports, messages)
        if shared:
            pass_uplinks(1, ports, messages)
        for port in range(n_ports):
            receive(port, False, (1, n_nodes), (0, 1), ports, messages, end)
        hand_on(entry, copies, ports, messages)
        receive(ports.port[0], True, (0, n_nodes), (1, m), ports, messages, end)
    else:
        _flags_reduced(entry, ports.latency_ps, ports.units, m, end)
        send_to_reducers(entry, copies, ports, messages)
        receive(ports.port[0], True, (0, n_nodes), (1, m), ports, messages, end)
        send_reduced(entry, node_copies, ports, messages)
        if shared:
            pass_uplinks(1, ports, messages)
        for port in range(n_ports):
            receive(port, False, (1, n_nodes), (0, 1), ports, messages, end)


@njit
def _flags(entry: Times, latency: Times, units: Times, m: int, end: Times) -> None:
    """Direct: when each GPU has entered itself and the flags of all others have arrived."""
    n_gpus, n_levels = len(entry), len(latency)
    last = np.empty((n_levels, n_gpus // m), dtype=np.int64)  # when the last flag of each node is in the others
    for level in range(1, n_levels):
        for node in range(last.shape[1]):
            own = slice(node * m, (node + 1) * m)
            last[level, node] = (entry[own] + latency[level, own]).max()
    for d in range(n_gpus):
        end[d] = _last_within(entry, latency, m, d)
        for node in range(last.shape[1]):
            if node != d // m:
                end[d] = max(end[d], last[level_above(d, node * m, units), node])


@njit
def _flags_handed_on(entry: Times, latency: Times, units: Times, m: int, end: Times) -> None:
    """Two-hop dispatch: a flag goes to the GPU j of the same index, which hands it on once it has entered."""
    for d in range(len(entry)):
        end[d] = _last_within(entry, latency, m, d)
        for node in range(0, len(entry), m):
            if node == d // m * m:
                continue
            level = level_above(d, node, units)
            for s in range(node, node + m):
                j = d // m * m + s - node
                handed = max(entry[s] + latency[level, s], entry[j])
                end[d] = max(end[d], handed if j == d else handed + latency[0, j])


@njit
def _flags_reduced(entry: Times, latency: Times, units: Times, m: int, end: Times) -> None:
    """Two-hop combine: a node's flags for s meet at its GPU j of the index of s."""
    for s in range(len(entry)):
        end[s] = _last_within(entry, latency, m, s)
        for j in range(s % m, len(entry), m):
            if j != s:
                end[s] = max(end[s], _last_within(entry, latency, m, j) + latency[level_above(s, j, units), j])


@njit
def _last_within(entry: Times, latency: Times, m: int, d: int) -> int:
    """When GPU d has entered and has the flags of its node."""
    time: int = entry[d]
    for s in range(d // m * m, d // m * m + m):
        if s != d:
            time = max(time, entry[s] + latency[0, s])
    return time
