"""Attention of one layer: projections, the kernel over the cache or the prompt, and the layer's norms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.decode import decode_seconds
from moesim.hardware.dense import elementwise_seconds, gemm_seconds
from moesim.hardware.layer_kernels import DEFAULT, LayerKernels
from moesim.hardware.mla import (
    absorbed_seconds,
    down_shape,
    mla_decode_seconds,
    mla_prefill_seconds,
    projection_shapes,
    widths_of,
)
from moesim.hardware.prefill import prefill_seconds
from moesim.types import DTYPE_BYTES, GpuSpec, ModelShape, Precision

_WITHOUT_DOWN = "/wideep_module-"

Seconds = NDArray[np.float64]
Counts = NDArray[np.int64]


def attention_seconds(
    model: ModelShape,
    gpu: GpuSpec,
    precision: Precision,
    tokens: Counts,
    *,
    phase: str,
    context_tokens: int,
    sequence_tokens: int,
    tensor_parallel: int = 1,
    kernels: LayerKernels = DEFAULT,
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
        tensor_parallel: GPUs that share the heads of each token; the sum of
            their outputs is `dense.sum_seconds`.
        kernels: constants of all parts.
    """
    attend = _latent if model.attention == "mla" else _heads
    decodes = phase == "decode"
    context = max(1, context_tokens) if decodes else 0  # a token reads itself at least
    seconds = attend(model, gpu, precision, tokens, context, sequence_tokens, tensor_parallel, kernels)
    # each norm reads the residual stream and the sum to add, and writes both back, of a GPU's own tokens
    return seconds + 2 * elementwise_seconds(gpu, -(-tokens // tensor_parallel), 8.0 * model.hidden_size, kernels)


def attention_in_seconds(
    model: ModelShape,
    gpu: GpuSpec,
    precision: Precision,
    tokens: Counts,
    *,
    decodes: bool,
    tensor_parallel: int = 1,
    kernels: LayerKernels = DEFAULT,
) -> Seconds:
    """The part of `attention_seconds` before its kernel, seconds [G]: a norm, the products that make queries and keys.

    In decode of latent attention also the product into the latent, by formula:
    measured modules are one. Arguments are those of `attention_seconds`.
    """
    if model.attention == "mla":
        kernels = replace(kernels, measured=None)
    heads, kv_heads = (-(-n // tensor_parallel) for n in (model.n_heads, model.n_kv_heads))
    norm = elementwise_seconds(gpu, -(-tokens // tensor_parallel), 8.0 * model.hidden_size, kernels)
    part = replace(model, n_heads=heads, n_kv_heads=kv_heads)
    before = projections(part)[:-1]  # all but the output
    factor = 1.0
    if model.attention == "mla" and decodes:
        before, factor = before[:-1], kernels.mla_decode(precision).linear_factor
    seconds = np.zeros(len(tokens))
    for n, k in before:
        seconds = seconds + gemm_seconds(
            gpu, tokens, n, k, weights=precision.weights, activations=precision.activations, kernels=kernels
        )
    if model.attention == "mla" and decodes:
        n, k = widths_of(model).absorbed[0]
        seconds = seconds + absorbed_seconds(kernels.absorbed(), gpu, tokens, float(heads), float(n), float(k))
    return norm + factor * seconds


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


def _heads(
    model: ModelShape,
    gpu: GpuSpec,
    precision: Precision,
    tokens: Counts,
    context: int,
    sequence_tokens: int,
    tensor_parallel: int,
    kernels: LayerKernels,
) -> Seconds:
    """Attention with keys and values a head: projections and kernel; a context means decode."""
    heads, kv_heads = (float(-(-n // tensor_parallel)) for n in (model.n_heads, model.n_kv_heads))
    width = float(model.head_dim)
    shape = (heads, kv_heads, width)

    def decode(where: Any) -> Seconds:
        return decode_seconds(
            kernels.decode(model, precision),
            gpu,
            requests=tokens[where],
            context_tokens=float(context),
            heads=heads,
            kv_heads=kv_heads,
            head_width=width,
            cache_bytes=DTYPE_BYTES[precision.kv_cache],
        )

    def prefill(where: Any) -> Seconds:
        return prefill_seconds(
            kernels.prefill(model, precision),
            gpu,
            prompts=tokens[where] // sequence_tokens,
            prompt_tokens=float(sequence_tokens),
            short_tokens=tokens[where] % sequence_tokens,
            heads=heads,
            kv_heads=kv_heads,
            key_width=width,
            value_width=width,
            compute=kernels.prefill_compute(precision),
            sustained=kernels.throttled,
        )

    if context:
        group = kernels.decode_rows(model, precision)
        kernel = kernels.measured_or(decode, "attention_generation", group, shape, tokens, float(context))
    else:
        group = kernels.prefill_rows(model, precision)
        kernel = kernels.measured_or(prefill, "attention_context", group, shape, *_prompts(tokens, sequence_tokens))
    inputs, inner = model.hidden_size, int(heads * width)
    for n, k in ((inner + 2 * int(kv_heads * width), inputs), (inputs, inner)):
        kernel = kernel + gemm_seconds(
            gpu, tokens, n, k, weights=precision.weights, activations=precision.activations, kernels=kernels
        )
    return kernel


def _latent(
    model: ModelShape,
    gpu: GpuSpec,
    precision: Precision,
    tokens: Counts,
    context: int,
    sequence_tokens: int,
    tensor_parallel: int,
    kernels: LayerKernels,
) -> Seconds:
    """Latent attention: linear layers, in decode the absorbed products, and the kernel; a context means decode."""
    widths, heads = widths_of(model), float(-(-model.n_heads // tensor_parallel))
    shape = (heads, *astuple(widths))
    parts = kernels.scaled(kernels.mla_decode(precision).linear_factor) if context else kernels

    def product(where: Any, size: tuple[Any, Any]) -> Seconds:
        weights, activations, (n, k) = precision.weights, precision.activations, size
        return gemm_seconds(gpu, tokens[where], n, k, weights=weights, activations=activations, kernels=parts)

    def linear(where: Any) -> Seconds:
        shapes = projection_shapes(widths, heads, absorbed=context > 0)
        return np.asarray(sum(product(where, size) for size in shapes))

    def prefill(where: Any) -> Seconds:
        return mla_prefill_seconds(
            kernels.mla_prefill(precision),
            gpu,
            prompts=tokens[where] // sequence_tokens,
            prompt_tokens=float(sequence_tokens),
            short_tokens=tokens[where] % sequence_tokens,
            heads=heads,
            widths=widths,
            around_s=linear(where),
            sustained=kernels.throttled,
        )

    def absorbed(own: Counts, n: int, k: int) -> Callable[[Any], Seconds]:
        return lambda where: absorbed_seconds(kernels.absorbed(), gpu, own[where], heads, float(n), float(k))

    def decode(where: Any) -> Seconds:
        around = linear(where)
        for name, (n, k) in zip(("mla_gen_pre", "mla_gen_post"), widths.absorbed, strict=True):
            group = f"{kernels.absorbed_rows()}/{name}"
            around = around + parts.measured_or(absorbed(tokens[where], n, k), "mla_bmm", group, shape, tokens[where])
        constants = kernels.mla_decode(precision)
        kernel = mla_decode_seconds(
            constants,
            gpu,
            requests=tokens[where],
            context_tokens=float(context),
            heads=heads,
            cache_bytes=DTYPE_BYTES[precision.kv_cache],
            widths=widths,
        )
        return constants.linear_factor * around + kernel

    def down(where: Any) -> Seconds:
        factor = kernels.mla_decode(precision).linear_factor if context else 1.0
        return factor * product(where, down_shape(widths, heads))

    kind, formula = ("mla_generation", decode) if context else ("mla_context", prefill)
    sizes, along = (tokens, float(context)) if context else _prompts(tokens, sequence_tokens)
    group = kernels.mla_rows(kind, precision)
    # modules of wide expert parallelism were timed without the product down to the latents
    beside = down if _WITHOUT_DOWN in group else None
    return kernels.measured_or(formula, kind, group, shape, sizes, along, beside)


def _prompts(tokens: Counts, sequence_tokens: int) -> tuple[Seconds, Counts]:
    """How many prompts, [G], of how many tokens, [G], where all have the same length; else NaN prompts."""
    whole, short = np.divmod(tokens, sequence_tokens)
    alike = np.where(short == 0, whole, np.where(whole == 0, 1.0, np.nan))
    return alike, np.where(short == 0, sequence_tokens, short)
