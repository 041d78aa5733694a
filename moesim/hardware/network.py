"""What a token copy costs at the ports of the network."""

from __future__ import annotations

import math

import numpy as np

from moesim.types import DTYPE_BYTES, ClusterShape, Exchange, Precision

PICO = 1e12


def exchange_rates(cluster: ClusterShape, precision: Precision, hidden_size: int) -> tuple[Exchange, Exchange]:
    """The ports' view of dispatch and of combine: integer picoseconds a token copy, at least 1.

    A port sends and receives at the bandwidth of its level; egress and ingress
    are equal, as published links are full duplex.
    """
    network = cluster.network
    dispatch = _exchange(
        cluster.n_gpus,
        payload_bytes(hidden_size, precision.dispatch),
        network.dispatch_bandwidth_gb_per_s,
        network.dispatch_latency_us,
    )
    combine = _exchange(
        cluster.n_gpus,
        payload_bytes(hidden_size, precision.combine),
        network.combine_bandwidth_gb_per_s,
        network.combine_latency_us,
    )
    return dispatch, combine


def payload_bytes(hidden_size: int, dtype: str) -> int:
    """Bytes of one token copy on the wire.

    fp8 carries a float32 scale for each block of 128 elements and a 16-byte
    header, as DeepEP sends it; other types are the bare elements.
    """
    if dtype == "fp8":
        return hidden_size + 4 * math.ceil(hidden_size / 128) + 16
    return math.ceil(hidden_size * DTYPE_BYTES[dtype])


def _exchange(
    n_gpus: int,
    payload: int,
    bandwidth_gb_per_s: tuple[float, float],
    latency_us: tuple[float, float],
) -> Exchange:
    copy_ps = [max(1, round(PICO * payload / (bandwidth * 1e9))) for bandwidth in bandwidth_gb_per_s]
    ports = np.repeat(np.array(copy_ps, dtype=np.int64)[:, None], n_gpus, axis=1)
    latency = np.array([max(1, round(us * 1e6)) for us in latency_us], dtype=np.int64)
    return Exchange(out_ps=ports, in_ps=ports.copy(), latency_ps=latency)
