"""How long collectives take: the exchanges of DeepEP and its wrappers, and the operations of NCCL.

Closed forms of the published bandwidths, for runs and for tables of
measurements alike. Bandwidths are shares of the links' published rates,
so that another generation of links needs no constants of its own; latencies
are of the software and stay. All arguments are arrays or numbers that
broadcast, in SI units; constants are fitted by `moesim.calibration.layout`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moesim.hardware.constants.fitted import POSITIVE, fitted
from moesim.hardware.p_norm import p_norm
from moesim.hardware.shape import Array, Shape
from moesim.types import GpuSpec

NCCL_LL_BYTES = 16384
"""Bytes for one peer up to which NCCL's send and receive use the LL protocol (NCCL_P2P_LL_THRESHOLD)."""

CONGESTED_NODES = 8
"""Nodes from which the exchanges of DeepEP normal were measured to share the network's core."""

NCCL_ACROSS_S, NCCL_NIC_SHARE = 15e-6, 0.8
"""Estimated, as no table has NCCL across nodes: what it starts later, and its share of the network card."""


@dataclass(frozen=True, kw_only=True)
class LowLatency:
    """DeepEP low latency, one direction (dispatch or combine).

    Before the first byte it takes `launch_s`, `per_hidden_s` for each element of a
    token and `per_wave_s` for each round of the SMs over all experts. Bytes reach
    `link_share` of the published bandwidth, and each token that one SM sends after
    another takes `round_s`; start and transfer overlap by the p-norm of `norm`.
    Across nodes it takes `across_launch_s` and `across_hop_s` times the share of
    remote peers, and bytes reach `nic_share` of the network card.
    """

    launch_s: float = field(metadata=fitted(8e-6, 1e-6, 5e-5))
    per_hidden_s: float = field(metadata=fitted(2e-10, 1e-12, 2e-9))
    per_wave_s: float = field(metadata=fitted(1e-6, 1e-8, 5e-6))
    link_share: float = field(metadata=fitted(0.65, 0.1, 1.0, POSITIVE))
    round_s: float = field(metadata=fitted(1e-6, 1e-8, 1e-5))
    norm: float = field(metadata=fitted(1.1, 1.0, 4.0, POSITIVE))
    across_launch_s: float = field(metadata=fitted(12e-6, 1e-6, 1e-4))
    across_hop_s: float = field(metadata=fitted(15e-6, 1e-7, 1e-4))
    nic_share: float = field(metadata=fitted(0.9, 0.1, 1.0, POSITIVE))


@dataclass(frozen=True, kw_only=True)
class Normal:
    """DeepEP normal, one direction.

    Before the first byte it takes `launch_s` and `per_hidden_s` for each element of
    a token. Each SM sends `sm_bytes_per_s`, all together up to `link_share` of the
    published bandwidth, combined by the p-norm of `norm`. An SM takes `per_token_s`
    for its own work on a token, and the chunks of the pipeline take `fill_s` to
    fill. Across nodes the same holds with constants of their own: the exchange of
    counts comes first (within a node it is part of the launch), each doubling of
    the nodes takes `across_hop_s`, and from CONGESTED_NODES on the bytes take
    `congestion` times as long.
    """

    launch_s: float = field(metadata=fitted(25e-6, 1e-6, 1e-4))
    per_hidden_s: float = field(metadata=fitted(1e-9, 1e-12, 1e-8))
    sm_bytes_per_s: float = field(metadata=fitted(15e9, 1e9, 1e11, POSITIVE))
    link_share: float = field(metadata=fitted(0.7, 0.1, 1.0, POSITIVE))
    norm: float = field(metadata=fitted(4.0, 1.0, 10.0, POSITIVE))
    per_token_s: float = field(metadata=fitted(1e-8, 1e-10, 1e-6))
    fill_s: float = field(metadata=fitted(2e-5, 1e-7, 1e-3))
    across_launch_s: float = field(metadata=fitted(2e-5, 1e-6, 1e-3))
    across_hop_s: float = field(metadata=fitted(2e-5, 1e-7, 1e-3))
    across_sm_bytes_per_s: float = field(metadata=fitted(15e9, 1e9, 1e11, POSITIVE))
    nic_share: float = field(metadata=fitted(0.95, 0.1, 1.0, POSITIVE))
    across_norm: float = field(metadata=fitted(4.0, 1.0, 10.0, POSITIVE))
    across_fill_s: float = field(metadata=fitted(2e-5, 1e-7, 1e-3))
    congestion: float = field(metadata=fitted(1.5, 1.0, 5.0))


@dataclass(frozen=True, kw_only=True)
class Nccl:
    """One operation of NCCL inside a node, the faster of its protocols.

    LL, LL128 and Simple each have a latency, a time for each other GPU
    (`hop`) and a share of the link. Simple fills its pipeline first, up to
    `fill_s` at `fill_share`. Bandwidths grow as GPUs^`width`.
    """

    ll_s: float = field(metadata=fitted(6e-6, 1e-6, 5e-5))
    ll_hop_s: float = field(metadata=fitted(3e-7, 1e-9, 5e-6))
    ll_share: float = field(metadata=fitted(0.08, 0.005, 1.0, POSITIVE))
    ll128_s: float = field(metadata=fitted(8e-6, 1e-6, 5e-5))
    ll128_hop_s: float = field(metadata=fitted(3e-7, 1e-9, 5e-6))
    ll128_share: float = field(metadata=fitted(0.3, 0.01, 1.0, POSITIVE))
    simple_s: float = field(metadata=fitted(13e-6, 1e-6, 1e-4))
    simple_hop_s: float = field(metadata=fitted(3e-7, 1e-9, 5e-6))
    simple_share: float = field(metadata=fitted(0.75, 0.1, 1.2, POSITIVE))
    fill_share: float = field(metadata=fitted(1.0, 0.1, 50.0, POSITIVE))
    fill_s: float = field(metadata=fitted(2e-5, 1e-7, 1e-4))
    norm: float = field(metadata=fitted(1.3, 1.0, 8.0, POSITIVE))
    width: float = field(metadata=fitted(0.1, 0.01, 0.5))


@dataclass(frozen=True, kw_only=True)
class Wrapper:
    """A framework's call of a DeepEP exchange.

    It takes at least `floor_s` of the host, and reaches `link_share` of the links
    and `nic_share` of the network card as seen from outside; they are combined by
    the p-norm of `norm`.
    """

    floor_s: float = field(metadata=fitted(5e-5, 1e-6, 1e-3))
    link_share: float = field(metadata=fitted(0.6, 0.02, 1.0, POSITIVE))
    nic_share: float = field(metadata=fitted(0.9, 0.02, 1.0, POSITIVE))
    norm: float = field(metadata=fitted(1.5, 1.0, 8.0, POSITIVE))


def low_latency_seconds(c: LowLatency, gpu: GpuSpec, x: Shape) -> Array:
    """DeepEP low latency: one copy for every selected expert.

    Every SM serves a group of experts, and sends one token at a time: with few
    experts there are few senders.
    """
    within, across = links(gpu)
    waves = np.ceil(x.experts / gpu.n_sms)
    senders = np.ceil(x.experts / waves)
    start = c.launch_s + c.per_hidden_s * x.hidden + c.per_wave_s * waves
    near = x.near / (c.link_share * within)
    inside = p_norm(start, near + c.round_s * np.maximum(x.tokens / senders, 1.0), c.norm)
    beyond_node = c.across_launch_s + c.across_hop_s * (x.nodes - 1) / x.nodes
    return np.where(x.nodes > 1, beyond_node + np.maximum(x.far / (c.nic_share * across), near), inside)


def normal_seconds(c: Normal, gpu: GpuSpec, x: Shape) -> Array:
    """DeepEP normal: one copy for every distinct GPU, across nodes one for every distinct node; with the counts."""
    within, across = links(gpu)
    body = p_norm(x.near / (x.sms * c.sm_bytes_per_s), x.near / (c.link_share * within), c.norm)
    inside = c.launch_s + c.per_hidden_s * x.hidden + fill(body + c.per_token_s * x.tokens / x.sms, c.fill_s)
    far = x.far * np.where(x.nodes >= CONGESTED_NODES, c.congestion, 1.0) / (c.nic_share * across)
    body = p_norm(x.near / (x.sms * c.across_sm_bytes_per_s), far, c.across_norm)
    beyond_node = c.across_launch_s + c.across_hop_s * np.log2(x.nodes)
    return np.where(x.nodes > 1, beyond_node + fill(body, c.across_fill_s), inside)


def nccl_seconds(c: Nccl, gpu: GpuSpec, x: Shape, *, chooses: bool = False) -> Array:
    """A collective of NCCL, within a node as measured; across nodes it begins later and the network card counts too.

    An all-to-all sends and receives, which chooses LL by the bytes for one
    peer; the other operations take the fastest protocol.
    """
    within, across = links(gpu)
    peers = x.gpus / x.nodes - 1.0
    width = np.float_power((peers + 1.0) / 8.0, c.width)
    wire = x.near / (within * width)
    low = c.ll_s + c.ll_hop_s * peers + wire / c.ll_share
    filling = np.minimum(wire / c.fill_share, c.fill_s)
    simple = p_norm(c.simple_s + c.simple_hop_s * peers, wire / c.simple_share + filling, c.norm)
    if chooses:
        switch = c.ll_s + c.ll_hop_s * peers + NCCL_LL_BYTES * peers / (within * width * c.ll_share)
        inside = np.where(x.peer <= NCCL_LL_BYTES, low, np.maximum(simple, switch))
    else:
        middle = c.ll128_s + c.ll128_hop_s * peers + wire / c.ll128_share
        inside = np.minimum(np.minimum(low, middle), simple)
    beyond_node = NCCL_ACROSS_S + np.maximum(inside, c.simple_s + x.far / (NCCL_NIC_SHARE * across))
    return np.where(x.nodes > 1, beyond_node, inside)


def wrapper_seconds(c: Wrapper, gpu: GpuSpec, x: Shape) -> Array:
    """An exchange through a framework's wrapper."""
    within, across = links(gpu)
    wire = np.maximum(x.near / (c.link_share * within), x.far / (c.nic_share * across))
    return p_norm(np.asarray(c.floor_s), wire, c.norm)


Seconds = Callable[[Any, GpuSpec, Shape], Array]

FORMS: Mapping[str, tuple[type[Any], Seconds]] = {
    "deepep-ll": (LowLatency, low_latency_seconds),
    "deepep-normal": (Normal, normal_seconds),
    "nccl": (Nccl, nccl_seconds),
    "moe-a2a": (Wrapper, wrapper_seconds),
}
"""Constants and closed form of the groups <framework>/<name>/..., by that name."""


def seconds(group: str, constants: Mapping[str, float], gpu: GpuSpec, x: Shape) -> Array:
    """Seconds of an exchange of random choices, by the constants of a group."""
    form, closed_form = FORMS[group.split("/")[1]]
    if group.endswith("/alltoall"):
        return nccl_seconds(form(**constants), gpu, x, chooses=True)
    return closed_form(form(**constants), gpu, x)


@dataclass(frozen=True, kw_only=True)
class Times:
    """An exchange as a start and what its ports take side by side, seconds: start + max(near, far) is its time.

    The start is what more or fewer bytes would not change: with a little more
    load a closed form grows as this sum does.
    """

    start_s: float
    near_s: float
    far_s: float

    def total(self) -> float:
        """Seconds of the exchange."""
        return self.start_s + max(self.near_s, self.far_s)


def times(group: str, constants: Mapping[str, float], gpu: GpuSpec, x: Shape) -> Times:
    """The tangent of a closed form at a load."""

    def grows(near: float, far: float) -> float:
        less, more = (
            float(seconds(group, constants, gpu, dataclasses.replace(x, near=by * near * x.near, far=by * far * x.far)))
            for by in (1.0 - _STEP, 1.0 + _STEP)
        )
        return (more - less) / (2.0 * _STEP)

    total, ports = float(seconds(group, constants, gpu, x)), grows(1.0, 1.0)
    near, far = grows(1.0, 0.0), grows(0.0, 1.0)
    longer = max(near, far)
    share = ports / longer if longer > 0 else 0.0
    return Times(start_s=total - ports, near_s=share * near, far_s=share * far)


_STEP = 1e-4


def links(gpu: GpuSpec) -> tuple[float, float]:
    """Published bytes/s of a GPU's port and direction, (within a node, across nodes)."""
    within, across = gpu.link_gb_per_s
    return 1e9 * within, 1e9 * across


def fill(body: Array, most_s: float) -> Array:
    """A transfer and the filling of its pipeline, which grows with it up to `most_s`."""
    return body + body * most_s / (body + most_s)
