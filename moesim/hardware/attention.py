"""Attention of one layer: projections, the kernel over the cache or the prompt, and the layer's norms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.constants import DECODE_GQA, DECODE_MLA, PREFILL
from moesim.hardware.dense import elementwise_seconds, gemm_seconds, join
from moesim.hardware.gpu import memory_bandwidth, peak_flops
from moesim.types import DTYPE_BYTES, GpuSpec, ModelShape, Precision

Seconds = NDArray[np.float64]
Counts = NDArray[np.int64]

KERNEL_DTYPE = "bf16"
"""Scores and weighted sums are computed in bf16, also over a narrower cache."""


def attention_seconds(
    model: ModelShape,
    gpu: GpuSpec,
    precision: Precision,
    tokens: Counts,
    *,
    phase: str,
    context_tokens: int,
    sequence_tokens: int,
) -> Seconds:
    """Time of the attention of one layer with its projections and the two norms of the layer, seconds [G].

    Args:
        model: head counts and widths.
        gpu: its published peaks.
        precision: data types of weights, activations and cache.
        tokens: tokens of each GPU, [G]; in decode one per sequence.
        phase: "decode": every token reads `context_tokens` cached ones; else
            prompts of `sequence_tokens`, causal, the last one may be short.
        context_tokens: cached tokens of a sequence.
        sequence_tokens: tokens of a prompt.
    """
    if phase == "decode":
        kernel = _decode(model, gpu, precision, tokens, context_tokens)
    else:
        kernel = _prefill(model, gpu, tokens, sequence_tokens)
    # each norm reads the residual stream and the sum to add, and writes both back
    norms = 2 * elementwise_seconds(gpu, tokens, 8.0 * model.hidden_size)
    return kernel + _projections(model, gpu, precision, tokens, absorbed=phase == "decode") + norms


def cache_elements(model: ModelShape) -> int:
    """Elements of one token in the KV cache of one layer."""
    if model.attention == "mla":
        return model.kv_lora_rank + model.qk_rope_head_dim
    return 2 * model.n_kv_heads * model.head_dim


def projections(model: ModelShape) -> tuple[tuple[int, int], ...]:
    """(outputs, inputs) of the weight matrices of one layer's attention, in the order they are used.

    MLA: down to the latents, up from the query latent, the keys' and values'
    up-projection, output. Otherwise: query with key and value, output.
    """
    hidden, heads = model.hidden_size, model.n_heads
    if model.attention != "mla":
        return ((heads + 2 * model.n_kv_heads) * model.head_dim, hidden), (
            hidden,
            heads * model.head_dim,
        )
    query = heads * (model.qk_nope_head_dim + model.qk_rope_head_dim)
    latent = model.kv_lora_rank + model.qk_rope_head_dim
    up = (heads * (model.qk_nope_head_dim + model.v_head_dim), model.kv_lora_rank)
    out = (hidden, heads * model.v_head_dim)
    if model.q_lora_rank:
        return (model.q_lora_rank + latent, hidden), (query, model.q_lora_rank), up, out
    return (query + latent, hidden), up, out


def _projections(
    model: ModelShape,
    gpu: GpuSpec,
    precision: Precision,
    tokens: Counts,
    *,
    absorbed: bool,
) -> Seconds:
    shapes = list(projections(model))
    seconds = np.zeros(len(tokens))
    if model.attention == "mla" and absorbed:
        # decode works in the latent: keys' and values' up-projection become two products per head, in bf16
        shapes.pop(-2)
        for n, k in (
            (model.kv_lora_rank, model.qk_nope_head_dim),
            (model.v_head_dim, model.kv_lora_rank),
        ):
            seconds = seconds + gemm_seconds(
                gpu,
                tokens,
                n,
                k,
                weights=KERNEL_DTYPE,
                activations=KERNEL_DTYPE,
                count=model.n_heads,
            )
    for n, k in shapes:
        product = gemm_seconds(gpu, tokens, n, k, weights=precision.weights, activations=precision.activations)
        seconds = seconds + product
    return seconds


def _decode(model: ModelShape, gpu: GpuSpec, precision: Precision, tokens: Counts, context: int) -> Seconds:
    mla = model.attention == "mla"
    constants = DECODE_MLA if mla else DECODE_GQA
    # per head and cached token: the score over the key's width and the sum over the value's
    widths = 2 * model.kv_lora_rank + model.qk_rope_head_dim if mla else 2 * model.head_dim
    flops = 2.0 * widths * model.n_heads * context
    cache = cache_elements(model) * DTYPE_BYTES[precision.kv_cache] * context
    compute = tokens * flops / (constants.compute_share * peak_flops(gpu, KERNEL_DTYPE))
    stream = tokens * cache / (constants.bandwidth_share * memory_bandwidth(gpu))
    heads = tokens * (1 if mla else model.n_kv_heads)
    seconds = constants.launch_s + constants.per_head_s * heads + join(compute, stream, constants.norm)
    return np.where(tokens > 0, seconds, 0.0)


def _prefill(model: ModelShape, gpu: GpuSpec, tokens: Counts, sequence_tokens: int) -> Seconds:
    """Causal blocks spread over the SMs, of which the longest row cannot be split, plus inputs and outputs once."""
    if model.attention == "mla":
        widths, kv_heads = model.qk_nope_head_dim + model.qk_rope_head_dim + model.v_head_dim, model.n_heads
    else:
        widths, kv_heads = 2 * model.head_dim, model.n_kv_heads
    block = PREFILL.block_tokens
    full = -(-np.minimum(sequence_tokens, tokens) // block)
    last = -(-(tokens % sequence_tokens) // block)
    blocks = (tokens // sequence_tokens) * _triangle(full) + _triangle(last)
    longest = np.maximum(np.where(tokens >= sequence_tokens, full, 0), last)
    rate = PREFILL.compute_share * peak_flops(gpu, KERNEL_DTYPE) / gpu.n_sms
    seconds_per_block = 2.0 * widths * block * block / rate
    seconds = np.maximum(blocks * model.n_heads / gpu.n_sms, longest) * seconds_per_block
    # queries and outputs of every head, keys and values of every KV head
    moved = tokens * widths * (model.n_heads + kv_heads) * DTYPE_BYTES[KERNEL_DTYPE]
    stream = moved / (PREFILL.bandwidth_share * memory_bandwidth(gpu))
    return np.where(tokens > 0, PREFILL.launch_s + seconds + stream, 0.0)


def _triangle(n: Counts) -> Counts:
    return n * (n + 1) // 2
