"""The sizes of an exchange: copies of tokens with random experts, bytes of a copy, and what each port carries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.types import DTYPE_BYTES

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """An exchange of tokens with random experts.

    Each of `gpus` GPUs in `nodes` nodes sends `tokens` tokens of `hidden` elements
    to some of `experts` experts. The kernels run on `sms` SMs, where these are
    few. `near` and `far` are the bytes that a GPU's ports within the node and
    across nodes carry, `peer` those for one peer, by which NCCL chooses.
    """

    tokens: Array
    experts: Array
    hidden: Array
    gpus: Array
    nodes: Array
    sms: Array
    near: Array
    far: Array
    peer: Array


def shape(
    rule: str,
    *,
    tokens: Any,
    top_k: Any,
    experts: Any,
    gpus: Any,
    nodes: Any,
    payload: Any,
    hidden: Any,
    sms: Any = 1.0,
) -> Shape:
    """The exchange whose copies of `payload` bytes a rule makes (NetworkSpec.copies)."""
    sizes = (tokens, top_k, experts, gpus, nodes, payload, hidden, sms)
    tokens, top_k, experts, gpus, nodes, payload, hidden, sms = np.broadcast_arrays(
        *(np.asarray(size, dtype=np.float64) for size in sizes)
    )
    near, far = port_copies(rule, tokens=tokens, top_k=top_k, experts=experts, gpus=gpus, nodes=nodes)
    return Shape(
        tokens=tokens,
        experts=experts,
        hidden=hidden,
        gpus=gpus,
        nodes=nodes,
        sms=sms,
        near=near * payload,
        far=far * payload,
        peer=(near + far) * payload / np.maximum(gpus - 1.0, 1.0),
    )


def port_copies(
    rule: str, *, tokens: Array, top_k: Array, experts: Array, gpus: Array, nodes: Array
) -> tuple[Array, Array]:
    """Mean copies at each port of a GPU, (within its node, across nodes), where choices are random."""
    a_node, remote = gpus / nodes, (nodes - 1.0) / nodes
    if rule == "all":
        return tokens * nodes * (a_node - 1.0), tokens * (nodes - 1.0)
    copies = tokens * (top_k if rule == "per-selection" else distinct(experts, gpus, top_k))
    if rule == "per-node":  # copies from other nodes are forwarded inside
        return copies * (a_node - 1.0) / a_node, tokens * distinct(experts, nodes, top_k) * remote
    return copies * (a_node - 1.0) / gpus, copies * remote


def busiest_ports(
    rule: str, *, tokens: Array, top_k: Array, experts: Array, gpus: Array, nodes: Array
) -> tuple[Array, Array]:
    """Mean copies at the busiest port of all GPUs, (within nodes, across nodes), where choices are random.

    Counts of a port are nearly normal, with the variance of choices that go
    there or do not; the largest of G such counts is about the (G - 3/8) / (G + 1/4)
    quantile of a normal distribution (Blom 1958).
    """
    near, far = port_copies(rule, tokens=tokens, top_k=top_k, experts=experts, gpus=gpus, nodes=nodes)
    if rule == "all":
        return near, far
    top = NormalDist().inv_cdf((float(gpus) - 0.375) / (float(gpus) + 0.25))
    to_gpu = 1.0 / gpus if rule == "per-selection" else distinct(experts, gpus, top_k) / gpus
    to_node = distinct(experts, nodes, top_k) / nodes if rule == "per-node" else to_gpu
    return near + top * np.sqrt(near * (1.0 - to_gpu)), far + top * np.sqrt(far * (1.0 - to_node))


def payload_bytes(hidden_size: int, dtype: str) -> int:
    """Bytes of one token copy on the wire.

    fp8 carries a float32 scale for each block of 128 elements and a 16-byte
    header, as DeepEP sends it, fp4 a scale of a byte for each block of 16; other
    types are the bare elements.
    """
    if dtype == "fp8":
        return hidden_size + 4 * math.ceil(hidden_size / 128) + 16
    scales = math.ceil(hidden_size / 16) if dtype == "fp4" else 0
    return math.ceil(hidden_size * DTYPE_BYTES[dtype]) + scales


def distinct(experts: Array, groups: Array, top_k: Array) -> Array:
    """Mean number of distinct groups that `top_k` different experts of `experts` in equal groups fall into."""
    miss = np.ones(np.broadcast_shapes(np.shape(experts), np.shape(groups), np.shape(top_k)))
    for i in range(int(np.max(top_k, initial=0))):
        left = np.maximum(experts - experts / groups - i, 0.0) / np.maximum(experts - i, 1.0)
        miss = np.where(i < top_k, miss * left, miss)
    return groups * (1.0 - miss)
