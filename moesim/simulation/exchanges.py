"""How long the ports of a network take for the exchanges of a step."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moesim.engine import Ports, exchange, free_ports
from moesim.hardware import ExchangeLoad, exchange_rates
from moesim.hardware.shape import port_copies
from moesim.simulation.plan import RunPlan
from moesim.types import Exchange
from moesim.types.picoseconds import whole_ps


def exchanges(plan: RunPlan, tokens: Sequence[NDArray[np.int64]]) -> tuple[Exchange, Exchange]:
    """The times of a copy at the ports, and the latencies, in dispatch and in combine of a step.

    Args:
        plan: of the run.
        tokens: counts of each GPU, [G], for each micro-batch.
    """
    sources = np.concatenate(tokens)
    load = ExchangeLoad(
        tokens=float(sources[sources > 0].mean()) if sources.any() else 0.0,
        top_k=round(statistics.mean(plan.model.choices_of_layer)),
        experts=plan.model.n_experts,
        gpus=plan.parallelism.group_gpus,
    )
    dispatch, combine = exchange_rates(plan.cluster, plan.precision, plan.model.expert_hidden_size, load)
    if plan.network == "port" and plan.cluster.network.fitted is not None and plan.ports_rule == "per-node":
        return _chunkwise(plan, load, dispatch, forward=True), _chunkwise(plan, load, combine, forward=False)
    return dispatch, combine


def _chunkwise(plan: RunPlan, load: ExchangeLoad, ports: Exchange, *, forward: bool) -> Exchange:
    """Ports whose times are shortened by what forwarding whole messages costs an even load.

    The simulated ports forward a message when all of it has arrived. The
    measured kernels forward it chunk by chunk, so that both levels are busy at
    the same time.
    """
    m = min(plan.cluster.gpus_per_node, load.gpus)
    near, far = port_copies(
        plan.copy_rule,
        tokens=np.asarray(load.tokens),
        top_k=np.asarray(load.top_k),
        experts=np.asarray(load.experts),
        gpus=np.asarray(load.gpus),
        nodes=np.asarray(load.gpus // m),
    )
    within, across = plan.cluster.levels.ports[:2]  # the levels that were measured
    near_ps, far_ps = (
        int(whole_ps(float(n) * int(ports.out_ps[port, 0]))) for n, port in ((near, within), (far, across))
    )
    factor = _slowdown_of_whole_messages(near_ps, far_ps, *ports.latency_ps[:2].tolist(), load.gpus, m, forward)
    times = [np.maximum(1, whole_ps(ps / factor)) for ps in (ports.out_ps, ports.in_ps)]
    return dataclasses.replace(ports, out_ps=times[0], in_ps=times[1])


@lru_cache(maxsize=256)
def _slowdown_of_whole_messages(
    near_ps: int, far_ps: int, within_ps: int, across_ps: int, n_gpus: int, m: int, forward: bool
) -> float:
    """Factor by which an even load takes longer where whole messages are forwarded."""
    longer, factor = max(near_ps, far_ps), 1.0
    if n_gpus == m or longer == 0:
        return factor
    for _ in range(_ROUNDS):  # what waits for what depends on latencies, which the factor leaves as they are
        took = _even_ps(
            int(whole_ps(near_ps / factor)), int(whole_ps(far_ps / factor)), within_ps, across_ps, n_gpus, m, forward
        )
        factor *= max(took - within_ps - across_ps, 1.0) / longer
    return factor


_ROUNDS = 4


def _even_ps(near_ps: int, far_ps: int, within_ps: int, across_ps: int, n_gpus: int, m: int, forward: bool) -> float:
    """Mean time of the GPUs in a two-hop exchange whose ports are busy for so long with an even load, picoseconds."""
    n_nodes, gpu = n_gpus // m, np.arange(n_gpus)
    near, far = near_ps // max(1, (m - 1) * n_nodes), far_ps // (n_nodes - 1)
    copies = np.where(gpu[:, None] % m != gpu % m, near, 0)
    node_copies = np.where(gpu[:, None] // m != np.arange(n_nodes), far, 0)
    one = np.ones((2, n_gpus), dtype=np.int64)
    latency = np.repeat(np.array([[within_ps], [across_ps]], dtype=np.int64), n_gpus, axis=1)
    entry, end, arrival = np.zeros(n_gpus, np.int64), np.zeros(n_gpus, np.int64), np.zeros((n_gpus, n_gpus), np.int64)
    ports = Ports(one, one, latency, np.empty((0, 5)), m, free_ports(n_gpus))
    exchange(forward, True, entry, copies, node_copies, ports, end, arrival)
    return float(end.mean())
