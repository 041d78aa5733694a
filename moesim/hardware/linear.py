"""Linear attention and state-space layers: a state of fixed size instead of a cache, by bytes and FLOPs (estimated).

A head of values has a state of key x value elements. Every new token decays it,
adds an outer product to it and multiplies its query with it. A sequence reads
and writes its state once a step. New tokens of a prompt are computed in chunks,
within which they attend to each other as usual.

Source of the form: Yang et al., Gated Delta Networks (arXiv 2412.06464), section
3; Mamba-2 (arXiv 2405.21060) is the same with keys and queries of its groups.
Nothing is fitted: state and FLOPs take their time at the published peaks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.dense import elementwise_seconds, gemm_seconds
from moesim.hardware.gpu import memory_bandwidth, peak_flops
from moesim.hardware.layer_kernels import LayerKernels
from moesim.types import AttentionWork, GpuSpec, LayerShape, Precision

Seconds = NDArray[np.float64]

STATE_BYTES = 4.0
"""Of an element of the state, float32 as frameworks keep it; the window of the convolution has 2 bytes."""
_WIDE_BYTES = 2.0
_CHUNK_TOKENS = 64
_COMPUTE = "bf16"


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
    convolved = elementwise_seconds(gpu, tokens, 2 * _WIDE_BYTES * _convolved(layer, tensor_parallel), kernels)
    sequences = (work.prompts.count.sum(axis=0) + work.decodes.count.sum(axis=0)).astype(np.float64)
    moved = 2 * sequences * state_bytes(layer, tensor_parallel) / memory_bandwidth(gpu)
    flops = _flops(layer, tensor_parallel, work) / peak_flops(gpu, _COMPUTE)
    state = kernels.elementwise().launch_s + np.maximum(moved, flops)
    out = gemm_seconds(
        gpu,
        tokens,
        layer.hidden_size,
        _value_heads(layer, tensor_parallel) * layer.linear_value_dim,
        weights=precision.weights,
        activations=precision.activations,
        kernels=kernels,
    )
    before = linear_in_seconds(layer, gpu, precision, work, tensor_parallel, kernels)
    return before + convolved + np.where(tokens > 0, state, 0.0) + out


def linear_in_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    tensor_parallel: int,
    kernels: LayerKernels,
) -> Seconds:
    """The product that makes queries, keys, values, output gates and the two gates of each head of values, [A]."""
    return gemm_seconds(
        gpu,
        work.group_tokens,
        projected(layer, tensor_parallel),
        layer.hidden_size,
        weights=precision.weights,
        activations=precision.activations,
        kernels=kernels,
    )


def projected(layer: LayerShape, tensor_parallel: int = 1) -> int:
    """Outputs of the projection of a token: what is convolved, an output gate of each value, two gates of each head."""
    value_heads = _value_heads(layer, tensor_parallel)
    return _convolved(layer, tensor_parallel) + value_heads * (layer.linear_value_dim + 2)


def convolution(layer: LayerShape) -> tuple[int, int]:
    """(Channels, tokens) of the convolution's weights: queries, keys and values."""
    return _convolved(layer, 1), layer.conv_kernel


def state_bytes(layer: LayerShape, tensor_parallel: int = 1) -> float:
    """Bytes that one sequence keeps in one layer on one GPU: its state, and the tokens that the convolution sees."""
    state = _value_heads(layer, tensor_parallel) * layer.linear_key_dim * layer.linear_value_dim
    seen = max(layer.conv_kernel - 1, 0) * _convolved(layer, tensor_parallel)
    return STATE_BYTES * state + _WIDE_BYTES * seen


def _value_heads(layer: LayerShape, tensor_parallel: int) -> int:
    return -(-layer.linear_value_heads // tensor_parallel)


def _convolved(layer: LayerShape, tensor_parallel: int) -> int:
    keys = 2 * -(-layer.linear_key_heads // tensor_parallel) * layer.linear_key_dim
    return keys + _value_heads(layer, tensor_parallel) * layer.linear_value_dim


def _flops(layer: LayerShape, tensor_parallel: int, work: AttentionWork) -> Seconds:
    """Three products with the state for every token; of prompts also the products with the tokens of a chunk."""
    key, value = layer.linear_key_dim, layer.linear_value_dim
    with_state = 6.0 * key * value * work.group_tokens
    within_chunk = 4.0 * _CHUNK_TOKENS * (key + value) * work.prompts.tokens
    return np.asarray(_value_heads(layer, tensor_parallel) * (with_state + within_chunk))
