"""How long collectives take whose load is even: the exchanges of DeepEP and the operations of NCCL.

Closed forms of the published bandwidths, for tables of measurements and for
what no engine resolves. Bandwidths are shares of the links' published rates,
so that another generation of links needs no constants of its own; latencies
are of the software and stay. All arguments are arrays or numbers that
broadcast, in SI units; constants are fitted by `moesim.hardware.tables`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.types import GpuSpec

Array = NDArray[np.float64]

# Published bytes/s of one GPU and direction, within a node and across: datasheets of NVLink, PCIe and network cards.
_LINKS = {
    "nvlink3-ib200": (300e9, 25e9),
    "nvlink4-ib400": (450e9, 50e9),
    "nvlink5-ib400": (900e9, 50e9),
    "pcie4-ib200": (32e9, 25e9),
}
_LINKS_OTHERWISE = _LINKS["nvlink4-ib400"]

NCCL_LL_BYTES = 16384
"""Bytes for one peer up to which NCCL's send and receive use the LL protocol (NCCL_P2P_LL_THRESHOLD)."""

CONGESTED_NODES = 8
"""Nodes from which the exchanges of DeepEP normal were measured to share the network's core."""


@dataclass(frozen=True, kw_only=True)
class LowLatency:
    """DeepEP low latency, one direction (dispatch or combine).

    `launch_s`, `per_hidden_s` (each element of a token), `per_wave_s` (each
    round of the SMs over all experts): before the first byte; `link_share` of
    the published bandwidth; `round_s`: each token that one SM sends after
    another; `norm` joins start and transfer. Across nodes: `across_launch_s`,
    `across_hop_s` (times the share of remote peers) and `nic_share`.
    """

    launch_s: float
    per_hidden_s: float
    per_wave_s: float
    link_share: float
    round_s: float
    norm: float
    across_launch_s: float
    across_hop_s: float
    nic_share: float


@dataclass(frozen=True, kw_only=True)
class Normal:
    """DeepEP normal, one direction.

    `launch_s`, `per_hidden_s`: before the first byte; `sm_bytes_per_s` of each
    SM up to `link_share` of the published bandwidth, joined by `norm`;
    `per_token_s`: an SM's own work on a token; `fill_s`: filling the chunks of
    the pipeline. Across nodes likewise, with `across_hop_s` times the share of
    remote nodes, and `congestion` times the bytes from CONGESTED_NODES on.
    `notify_s` and `notify_hop_s` (each doubling of the nodes): the exchange of
    counts, which within a node is part of the launch.
    """

    launch_s: float
    per_hidden_s: float
    sm_bytes_per_s: float
    link_share: float
    norm: float
    per_token_s: float
    fill_s: float
    across_launch_s: float
    across_hop_s: float
    across_sm_bytes_per_s: float
    nic_share: float
    across_norm: float
    across_fill_s: float
    congestion: float
    notify_s: float
    notify_hop_s: float


@dataclass(frozen=True, kw_only=True)
class Nccl:
    """One operation of NCCL inside a node, the faster of its protocols.

    LL, LL128 and Simple each have a latency, a time for each further GPU
    (`hop`) and a share of the link. Simple fills its pipeline first, up to
    `fill_s` at `fill_share`. Bandwidths grow as GPUs^`width`.
    """

    ll_s: float
    ll_hop_s: float
    ll_share: float
    ll128_s: float
    ll128_hop_s: float
    ll128_share: float
    simple_s: float
    simple_hop_s: float
    simple_share: float
    fill_share: float
    fill_s: float
    norm: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Wrapper:
    """A framework's call of a DeepEP exchange: never below `floor_s` of its host, `link_share` as seen from outside."""

    floor_s: float
    link_share: float
    nic_share: float
    norm: float


def links(gpu: GpuSpec) -> tuple[float, float]:
    """Published bytes/s of a GPU's port and direction, (within a node, across nodes)."""
    return _LINKS.get(gpu.network.removesuffix("-two-hop"), _LINKS_OTHERWISE)


def low_latency_seconds(
    c: LowLatency,
    gpu: GpuSpec,
    *,
    tokens: Array,
    top_k: Array,
    experts: Array,
    nodes: Array,
    payload: Array,
    hidden: Array,
) -> Array:
    """DeepEP low latency: one copy of `payload` bytes for every selected expert, evenly over ranks.

    Every SM serves a group of experts, and sends one token at a time: with few
    experts there are few senders. `tokens` are of one rank.
    """
    within, across = links(gpu)
    waves = np.ceil(experts / gpu.n_sms)
    senders = np.ceil(experts / waves)
    sent = tokens * top_k * payload
    start = c.launch_s + c.per_hidden_s * hidden + c.per_wave_s * waves
    near = sent / (c.link_share * within)
    inside = join(start, near + c.round_s * np.ceil(tokens / senders), c.norm)
    remote = (nodes - 1) / nodes
    far = np.maximum(sent * remote / (c.nic_share * across), near / nodes)
    return np.where(nodes > 1, c.across_launch_s + c.across_hop_s * remote + far, inside)


def normal_seconds(
    c: Normal,
    gpu: GpuSpec,
    *,
    tokens: Array,
    top_k: Array,
    experts: Array,
    nodes: Array,
    payload: Array,
    hidden: Array,
    sms: Array,
    gpus_per_node: int = 8,
) -> Array:
    """DeepEP normal: one copy for every distinct rank, across nodes one for every distinct node; without the counts."""
    within, across = links(gpu)
    copies = tokens * distinct(experts, gpus_per_node * nodes, top_k) * payload
    body = join(copies / (sms * c.sm_bytes_per_s), copies / (c.link_share * within), c.norm)
    body = body + c.per_token_s * tokens / sms
    inside = c.launch_s + c.per_hidden_s * hidden + fill(body, c.fill_s)
    remote = (nodes - 1) / nodes
    sent = tokens * distinct(experts, nodes, top_k) * remote * payload
    far = sent * np.where(nodes >= CONGESTED_NODES, c.congestion, 1.0) / (c.nic_share * across)
    body = join(copies / (sms * c.across_sm_bytes_per_s), far, c.across_norm)
    return np.where(nodes > 1, c.across_launch_s + c.across_hop_s * remote + fill(body, c.across_fill_s), inside)


def notify_seconds(c: Normal, nodes: Array) -> Array:
    """The exchange of counts that comes before an exchange of DeepEP normal; 0 within a node."""
    return np.where(nodes > 1, c.notify_s + c.notify_hop_s * np.log2(nodes), 0.0)


def nccl_seconds(c: Nccl, gpu: GpuSpec, *, operation: str, gpus: Array, message: Array) -> Array:
    """A collective of NCCL on `gpus` GPUs of a node, buffers of `message` bytes a GPU.

    An all-to-all sends and receives, which chooses LL by the bytes for one
    peer; the other operations take the fastest protocol.
    """
    within, _ = links(gpu)
    width = np.float_power(gpus / 8.0, c.width)
    turns = 2.0 if operation == "all_reduce" else 1.0
    wire = turns * message * (gpus - 1) / gpus / (within * width)
    hops = gpus - 1
    low = c.ll_s + c.ll_hop_s * hops + wire / c.ll_share
    filling = np.minimum(wire / c.fill_share, c.fill_s)
    simple = join(c.simple_s + c.simple_hop_s * hops, wire / c.simple_share + filling, c.norm)
    if operation == "alltoall":
        switch = c.ll_s + c.ll_hop_s * hops + NCCL_LL_BYTES * hops / (within * width * c.ll_share)
        return np.where(message <= NCCL_LL_BYTES * gpus, low, np.maximum(simple, switch))
    middle = c.ll128_s + c.ll128_hop_s * hops + wire / c.ll128_share
    return np.minimum(np.minimum(low, middle), simple)


def wrapper_seconds(c: Wrapper, gpu: GpuSpec, *, sent: Array, nodes: Array) -> Array:
    """An exchange through a framework's wrapper that sends `sent` bytes a rank, evenly over ranks."""
    within, across = links(gpu)
    remote = (nodes - 1) / nodes
    wire = np.maximum(sent / nodes / (c.link_share * within), sent * remote / (c.nic_share * across))
    return join(np.asarray(c.floor_s), wire, c.norm)


def fp8_payload(hidden: Array) -> Array:
    """Bytes of a token in FP8 as DeepEP low latency sends it: a float32 scale a block of 128, and a header of 16."""
    return hidden + 4.0 * np.ceil(hidden / 128.0) + 16.0


def distinct(experts: Array, groups: Array, top_k: Array) -> Array:
    """Mean number of distinct groups that `top_k` different experts of `experts` in equal groups fall into."""
    miss = np.ones(np.broadcast_shapes(np.shape(experts), np.shape(groups), np.shape(top_k)))
    for i in range(int(np.max(top_k, initial=0))):
        left = np.maximum(experts - experts / groups - i, 0.0) / np.maximum(experts - i, 1.0)
        miss = np.where(i < top_k, miss * left, miss)
    return groups * (1.0 - miss)


def join(a: Array, b: Array, norm: float) -> Array:
    """(a^norm + b^norm)^(1/norm) of positive times: their sum at 1, the longer one at infinity."""
    longer, shorter = np.maximum(a, b), np.minimum(a, b)
    ratio = np.divide(shorter, longer, out=np.zeros(np.shape(longer)), where=longer > 0)
    return longer * np.float_power(1.0 + np.float_power(ratio, norm), 1.0 / norm)


def fill(body: Array, most_s: float) -> Array:
    """A transfer and the filling of its pipeline, which grows with it up to `most_s`."""
    return body + body * most_s / (body + most_s)
