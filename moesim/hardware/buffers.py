"""The memory that an exchange takes on each GPU: the tokens that an all-gather gathers, and the buffers of DeepEP."""

from __future__ import annotations

import math
from bisect import bisect_left

from moesim.hardware.network import DEFAULT_SMS
from moesim.hardware.shape import payload_bytes
from moesim.types import DTYPE_BYTES, ClusterShape, Precision

_ALIGNED = 128
_HEADER_BYTES = 16
_SCALED_BLOCK = 128
_MAX_CHOICES, _MAX_SCALES = 128, 128
_CHOICE_BYTES, _SCALE_BYTES, _SOURCE_BYTES = 8 + 4, 4, 8
# DeepEP's own settings: up to so many ranks, tokens that a channel keeps for each GPU of a node and for each node.
_CHUNKS = ((8, 256, 132), (16, 288, 140), (64, 288, 128), (96, 480, 132), (128, 560, 132), (160, 720, 132))


def exchange_bytes(
    cluster: ClusterShape,
    precision: Precision,
    hidden_size: int,
    *,
    tokens_per_gpu: int,
    group_tokens: int,
    group_gpus: int,
    n_slots: int,
    arriving: float,
) -> float:
    """Bytes that the exchanges of a layer keep on one GPU; 0 for networks whose buffers are not published.

    An all-gather leaves the tokens of the whole group on every GPU, and as many
    outputs for the reduce-scatter. DeepEP's normal kernels add what arrived to
    their buffers, the low-latency ones a row for each token that could arrive.

    Args:
        cluster: its network and the GPUs of a node.
        precision: data types of dispatch and combine.
        hidden_size: elements of a token.
        tokens_per_gpu: tokens of one step, which each GPU that has tokens sends.
        group_tokens: tokens of one step in the whole expert-parallel group.
        group_gpus: GPUs of the group.
        n_slots: slots of a layer in the group.
        arriving: distinct tokens that are sent to the GPU.
    """
    network, payload = cluster.network, payload_bytes(hidden_size, precision.dispatch)
    if group_gpus == 1:
        return 0.0
    if network.copies == "all":
        return group_tokens * (payload + hidden_size * DTYPE_BYTES[precision.combine])
    if network.deepep == "low-latency":
        rows = n_slots * tokens_per_gpu
        return low_latency_bytes(tokens_per_gpu, hidden_size, n_slots) + rows * payload
    if network.deepep == "normal":
        sms = network.comm_sms or DEFAULT_SMS
        return normal_bytes(hidden_size, group_gpus, sms, cluster.gpus_per_node) + arriving * payload
    return 0.0


def low_latency_bytes(tokens: int, hidden_size: int, n_experts: int) -> int:
    """Bytes that DeepEP reserves for its low-latency kernels: two send buffers, two receive buffers, two of counters.

    Source: DeepEP, `get_low_latency_rdma_size_hint`. A buffer has a message for
    every expert and token: bf16 with a header on the way there, with the range
    of each 128 elements on the way back.

    Args:
        tokens: tokens that a GPU dispatches at most (`num_max_dispatch_tokens_per_rank`).
        hidden_size: elements of a token.
        n_experts: experts of a layer, their copies included.
    """
    there = _HEADER_BYTES + 2 * hidden_size
    back = 2 * hidden_size + 4 * (hidden_size // _SCALED_BLOCK)
    sent = max(tokens * there, n_experts * tokens * back)
    received = n_experts * tokens * max(there, back)
    counters = math.ceil(4 * n_experts / _ALIGNED) * _ALIGNED
    return (2 * (sent + received + counters) // _ALIGNED + 1) * _ALIGNED


def normal_bytes(hidden_size: int, n_ranks: int, n_sms: int, gpus_per_node: int) -> int:
    """Bytes that DeepEP reserves for its normal kernels: queues over NVLink, and over RDMA between several nodes.

    Source: DeepEP, `Config.get_nvl_buffer_size_hint` and `get_rdma_buffer_size_hint`,
    with its recommended settings of the number of ranks. Every two SMs are a channel.

    Args:
        hidden_size: elements of a token, sent in bf16 at most.
        n_ranks: GPUs that exchange.
        n_sms: SMs that the kernels run on.
        gpus_per_node: GPUs of a node of the cluster.
    """
    channels, n_nodes = n_sms // 2, math.ceil(n_ranks / gpus_per_node)
    _, near, far = _CHUNKS[min(bisect_left(_CHUNKS, (n_ranks,)), len(_CHUNKS) - 1)]
    token = 2 * hidden_size + _SOURCE_BYTES + _MAX_CHOICES * _CHOICE_BYTES + _MAX_SCALES * _SCALE_BYTES
    peers = min(n_ranks, gpus_per_node)
    nvlink = channels * peers * (near * token + 4 * (2 * n_nodes + 3))
    rdma = channels * n_nodes * 2 * (far * (token + _HEADER_BYTES) + 4 * (2 * gpus_per_node + 2))
    return sum(math.ceil(size / _ALIGNED) * _ALIGNED for size in (nvlink, rdma if n_nodes > 1 else 0))
