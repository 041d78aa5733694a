"""The time that a copy of a token takes at the ports of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.hardware.collectives import Times, times
from moesim.hardware.constants import load as load_constants
from moesim.hardware.shape import busiest_ports, payload_bytes, shape
from moesim.types import ClusterShape, Exchange, Level, NetworkSpec, Precision
from moesim.types.picoseconds import picoseconds

_WORDS = {"bf16": "bfloat16", "fp4": "nvfp4"}
"""Data types as the groups of constants name them, where that is another word."""
DEFAULT_SMS = 20
"""SMs of kernels that hold none from others: DeepEP's `Buffer.num_sms`."""


@dataclass(frozen=True, kw_only=True)
class ExchangeLoad:
    """Each of the `gpus` GPUs of a group sends `tokens` tokens, each of them to `top_k` of `experts` experts."""

    tokens: float
    top_k: int
    experts: int
    gpus: int


def exchange_rates(
    cluster: ClusterShape,
    precision: Precision,
    hidden_size: int,
    load: ExchangeLoad | None = None,
) -> tuple[Exchange, Exchange]:
    """The rates of the ports in dispatch and in combine, in integer picoseconds a copy of a token, at least 1.

    A port sends and receives at the bandwidth of its level; egress and ingress
    are equal, as published links are full duplex. The uplink of a unit carries what the ports of its
    GPUs at the level above carry together, divided by the oversubscription. The times of a network whose
    constants are fitted follow from the load, so that random choices take what
    was fitted; latencies and bandwidths that the network states replace them.

    Args:
        cluster: its GPUs and network.
        precision: data types of the payloads.
        hidden_size: elements of a token.
        load: what each GPU sends; only a fitted network needs it.
    """
    network = cluster.network
    return (
        _exchange(cluster, 0, precision.dispatch, hidden_size, load, _stated(network, "dispatch")),
        _exchange(cluster, 1, precision.combine, hidden_size, load, _stated(network, "combine")),
    )


Stated = tuple[Sequence[float] | None, Sequence[float] | None]
"""Latency (us) and bandwidth (GB/s) by level that a network states, None where it does not."""


def _stated(network: NetworkSpec, direction: str) -> Stated:
    return getattr(network, f"{direction}_latency_us"), getattr(network, f"{direction}_bandwidth_gb_per_s")


def _exchange(
    cluster: ClusterShape,
    direction: int,
    dtype: str,
    hidden_size: int,
    load: ExchangeLoad | None,
    stated: Stated,
) -> Exchange:
    latency_us, bandwidth_gb_per_s = stated
    copy_s = latency_s = (0.0, 0.0)
    if cluster.network.fitted is not None and None in stated:
        assert load is not None
        copy_s, latency_s = _fitted(cluster, direction, dtype, hidden_size, load)
    if bandwidth_gb_per_s is not None:
        payload = payload_bytes(hidden_size, dtype)
        copy_s = (payload / (bandwidth_gb_per_s[0] * 1e9), payload / (bandwidth_gb_per_s[1] * 1e9))
    if latency_us is not None:
        latency_s = (latency_us[0] * 1e-6, latency_us[1] * 1e-6)
    copies_s, latencies_s = _by_level(cluster.network.levels, copy_s, latency_s, payload_bytes(hidden_size, dtype))
    levels = cluster.levels
    copy_ps = np.maximum(1, picoseconds([copies_s[levels.ports.index(port)] for port in range(levels.n_ports)]))
    ports = np.repeat(copy_ps[:, None], cluster.n_gpus, axis=1)
    return Exchange(
        out_ps=ports,
        in_ps=ports.copy(),
        latency_ps=np.maximum(1, picoseconds(latencies_s)),
        uplink_ps=_uplinks_ps(cluster.network.levels, copies_s),
    )


def _by_level(
    levels: Sequence[Level], copy_s: Sequence[float], latency_s: Sequence[float], payload: float
) -> tuple[list[float], list[float]]:
    """Seconds of a copy and of the latency of each level, from those within a node and across nodes."""
    if not levels:
        return [*copy_s], [*latency_s]
    copies: list[float] = []
    latencies: list[float] = []
    for i, level in enumerate(levels):
        known = i < len(copy_s)
        if level.shares_port:
            copies.append(copies[-1])
        elif level.bandwidth_gb_per_s is not None:
            copies.append(payload / (level.bandwidth_gb_per_s * 1e9))
        else:
            copies.append(copy_s[i])
        if level.latency_us is not None:
            latencies.append(level.latency_us * 1e-6)
        else:
            latencies.append(latency_s[i] if known else latencies[-1])
    return copies, latencies


def _uplinks_ps(levels: Sequence[Level], copies_s: Sequence[float]) -> NDArray[np.int64]:
    """Picoseconds of a copy at the uplink of a unit of each level but the last, 0 where it is never full."""
    if all(level.oversubscription == 1 for level in levels):
        return np.empty(0, dtype=np.int64)
    seconds = [above * own.oversubscription / own.size for own, above in zip(levels[:-1], copies_s[1:], strict=True)]
    full = [own.oversubscription > 1 for own in levels[:-1]]
    return np.where(full, np.maximum(1, picoseconds(seconds)), 0)


@lru_cache(maxsize=1024)
def _fitted(
    cluster: ClusterShape, direction: int, dtype: str, hidden_size: int, load: ExchangeLoad
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Seconds of a copy at the ports of each level, and of the latency, where choices are random as in the fit.

    A measured exchange ends with the busiest port, which carries more than the mean.
    The steps of a run have few loads that differ, so that each is worked out once.
    """
    network = cluster.network
    group, constants = fitted_group(network, direction, dtype)
    nodes = max(1, load.gpus // cluster.gpus_per_node)
    sizes = {
        "tokens": np.asarray(max(load.tokens, 1.0)),
        "top_k": np.asarray(load.top_k),
        "experts": np.asarray(load.experts),
        "gpus": np.asarray(load.gpus),
        "nodes": np.asarray(nodes),
    }
    payload = payload_bytes(hidden_size, dtype)
    x = shape(network.copies, **sizes, payload=payload, hidden=hidden_size, sms=network.comm_sms or DEFAULT_SMS)
    found = times(group, constants, cluster.gpu, x)
    kernel = _wrapped_kernel(group, direction)
    if nodes > 1 and kernel:
        found = max(found, times(kernel, load_constants("collectives")[kernel], cluster.gpu, x), key=Times.total)
    copies = [float(n) for n in busiest_ports(network.copies, **sizes)]
    near, far = (s / n if n > 0 else 0.0 for s, n in zip((found.near_s, found.far_s), copies, strict=True))
    in_turn = network.copies in ("per-node", "all") and nodes > 1  # levels one after the other, each with its latency
    latency = found.start_s / 2 if in_turn else found.start_s
    return (near, far), (latency, latency)


def _wrapped_kernel(group: str, direction: int) -> str:
    """The group of the DeepEP kernel that a framework's wrapper calls; "" if the group is no wrapper.

    No table has a wrapper across nodes, where it takes at least as long as its kernel.
    """
    backend = group.split("/")[2]
    kernel = next((name for ending, name in _WRAPPED.items() if backend.endswith(ending)), "")
    return f"sglang/{kernel}/0.5.12/{('dispatch', 'combine')[direction]}" if kernel else ""


_WRAPPED = {"deepep_ll": "deepep-ll", "deepep_ht": "deepep-normal"}


def fitted_group(network: NetworkSpec, direction: int, dtype: str) -> tuple[str, Mapping[str, float]]:
    """The group of constants of a fitted network for a payload's data type, else for bfloat16, and its constants.

    Raises:
        InputError: there is no such group.
    """
    assert network.fitted is not None
    groups, form = load_constants("collectives"), network.fitted[direction]
    for word in (_WORDS.get(dtype, dtype), "bfloat16"):
        name = form.replace("{dtype}", word)
        if name in groups:
            return name, groups[name]
    raise InputError(f"one of {', '.join(groups)}")
