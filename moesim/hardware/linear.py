"""Layers with a state of fixed size instead of a cache, by bytes and FLOPs (estimated).

A head of values has a state of key x value elements. Every new token decays it,
adds an outer product to it and multiplies its query with it; the delta rule also
takes from it what it had under the key. A sequence reads and writes its state
once a step. New tokens of a prompt are computed in chunks, within which they
attend to each other as usual. Mamba-1 updates the state of every channel element
by element instead, and a gated convolution has no state but the last tokens.

Source of the forms: Yang et al., Gated Delta Networks (arXiv 2412.06464), section
3; Qin et al., Lightning Attention-2 (arXiv 2401.04658); Mamba (arXiv 2312.00752),
Mamba-2 (arXiv 2405.21060), whose groups have keys and queries; LFM2 (Liquid AI
2025). Nothing is fitted: state and FLOPs take their time at the published peaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.dense import elementwise_seconds, gemm_seconds, with_products
from moesim.hardware.gpu import memory_bandwidth, peak_flops
from moesim.hardware.layer_kernels import LayerKernels
from moesim.types import AttentionWork, GpuSpec, LayerShape, Precision

Seconds = NDArray[np.float64]

STATE_BYTES = 4.0
"""Of an element of the state, float32 as frameworks keep it; the window of the convolution has 2 bytes."""
_WIDE_BYTES = 2.0
_CHUNK_TOKENS = 64
_COMPUTE = "bf16"


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What layers of a kind project and compute.

    The projection of a token makes its values, `beside` vectors as wide, and
    `gates` numbers of each head of values; with `keys` also keys and queries.
    What is convolved is values, keys and queries. Each element of the state takes
    `flops` operations a token.
    """

    keys: bool = True
    beside: int = 1
    gates: int = 0
    flops: float = 4.0


_KINDS: Mapping[str, _Kind] = {
    "linear": _Kind(gates=2, flops=6.0),
    "lightning": _Kind(),
    "mamba2": _Kind(gates=1),
    "mamba": _Kind(keys=False, flops=9.0),
    "conv": _Kind(keys=False, beside=2),
}


def linear_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    tensor_parallel: int,
    kernels: LayerKernels,
) -> Seconds:
    """Projections, convolution and state of one layer, [A]; arguments as of `attention.attention_seconds`."""
    tokens = work.group_tokens
    before = linear_in_seconds(layer, gpu, precision, work, tensor_parallel, kernels)
    convolved = np.zeros(work.n_groups)
    if layer.conv_kernel:
        convolved = elementwise_seconds(gpu, tokens, 2 * _WIDE_BYTES * _convolved(layer, tensor_parallel), kernels)
    state = np.zeros(work.n_groups)
    if layer.attention != "conv":  # a convolution has done all of its work
        sequences = (work.prompts.count.sum(axis=0) + work.decodes.count.sum(axis=0)).astype(np.float64)
        moved = 2 * sequences * state_bytes(layer, tensor_parallel) / memory_bandwidth(gpu)
        flops = _flops(layer, tensor_parallel, work) / peak_flops(gpu, _COMPUTE)
        state = kernels.elementwise().launch_s + np.maximum(moved, flops)
    *_, (n, k) = state_projections(layer, tensor_parallel)
    out = gemm_seconds(gpu, tokens, n, k, weights=precision.weights, activations=precision.activations, kernels=kernels)
    return before + convolved + np.where(tokens > 0, state, 0.0) + out


def linear_in_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    tensor_parallel: int,
    kernels: LayerKernels,
) -> Seconds:
    """The products before the state, [A]: values, keys, queries and gates; of Mamba-1 also those of its time steps."""
    products = state_projections(layer, tensor_parallel)[:-1]
    return with_products(np.zeros(work.n_groups), gpu, work.group_tokens, products, precision, kernels)


def state_projections(layer: LayerShape, tensor_parallel: int = 1) -> tuple[tuple[int, int], ...]:
    """(Outputs, inputs) of the products of one layer on one of the GPUs that share its heads, the last of its output.

    The first makes all that a token needs; of it Mamba-1 makes keys and queries
    of the state and, through their rank, time steps.
    """
    inner, hidden = _inner(layer, tensor_parallel), layer.hidden_size
    kind = _KINDS[layer.attention]
    gates = kind.gates * _value_heads(layer, tensor_parallel)
    first = (_convolved(layer, tensor_parallel) + kind.beside * inner + gates, hidden)
    if layer.attention != "mamba":
        return first, (hidden, inner)
    return first, (layer.dt_rank + 2 * layer.linear_key_dim, inner), (inner, layer.dt_rank), (hidden, inner)


def convolution(layer: LayerShape) -> tuple[int, int]:
    """(Channels, tokens) of the convolution's weights: values, and queries and keys if these are convolved."""
    return _convolved(layer, 1), layer.conv_kernel


def state_bytes(layer: LayerShape, tensor_parallel: int = 1) -> float:
    """Bytes that one sequence keeps in one layer on one GPU: its state, and the tokens that the convolution sees."""
    state = _value_heads(layer, tensor_parallel) * layer.linear_key_dim * layer.linear_value_dim
    if layer.attention == "conv":
        state = 0
    seen = max(layer.conv_kernel - 1, 0) * _convolved(layer, tensor_parallel)
    return STATE_BYTES * state + _WIDE_BYTES * seen


def _value_heads(layer: LayerShape, tensor_parallel: int) -> int:
    return -(-layer.linear_value_heads // tensor_parallel)


def _inner(layer: LayerShape, tensor_parallel: int) -> int:
    """Elements of the values of a token."""
    if layer.attention == "conv":
        return -(-layer.hidden_size // tensor_parallel)
    return _value_heads(layer, tensor_parallel) * layer.linear_value_dim


def _convolved(layer: LayerShape, tensor_parallel: int) -> int:
    keys = 2 * -(-layer.linear_key_heads // tensor_parallel) * layer.linear_key_dim
    return (keys if _KINDS[layer.attention].keys else 0) + _inner(layer, tensor_parallel)


def _flops(layer: LayerShape, tensor_parallel: int, work: AttentionWork) -> Seconds:
    """Operations with the state for every token; of prompts also the products with the tokens of a chunk."""
    key, value = layer.linear_key_dim, layer.linear_value_dim
    kind = _KINDS[layer.attention]
    with_state = kind.flops * key * value * work.group_tokens
    within_chunk = 4.0 * _CHUNK_TOKENS * (key + value) * work.prompts.tokens if kind.keys else 0.0
    return np.asarray(_value_heads(layer, tensor_parallel) * (with_state + within_chunk))
