"""Attention of one layer: projections, the kernels over prompts and over caches, and the layer's norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.compressed import compressed_in_seconds, compressed_seconds
from moesim.hardware.decode import decode_seconds
from moesim.hardware.dense import elementwise_seconds, with_products
from moesim.hardware.heads import products_in, products_out
from moesim.hardware.indexer import indexer_seconds
from moesim.hardware.latent import latent_in_seconds, latent_seconds
from moesim.hardware.layer_kernels import BOUNDED, DEFAULT, LayerKernels
from moesim.hardware.linear import linear_in_seconds, linear_seconds
from moesim.hardware.prefill import mixed_seconds
from moesim.hardware.sequences import lengths_of, limit_of, requests_of, seen_by
from moesim.types import DTYPE_BYTES, STATES, AttentionWork, GpuSpec, LayerShape, Precision, Sequences

Seconds = NDArray[np.float64]
_Attend = Callable[[LayerShape, GpuSpec, Precision, AttentionWork, int, LayerKernels], Seconds]


def attention_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    *,
    tensor_parallel: int = 1,
    kernels: LayerKernels = DEFAULT,
) -> Seconds:
    """Time of the attention of one layer with its projections and the two norms of the layer, seconds [A].

    In a step with prompts and sequences that decode, one kernel attends over
    all prompts of an attention group and one over all its caches; the
    projections take the tokens of both at once.

    Args:
        layer: head counts and widths.
        gpu: its published peaks.
        precision: data types of weights, activations and cache.
        work: the sequences of each of A attention groups.
        tensor_parallel: GPUs that share the heads of each token; the sum of
            their outputs is `dense.sum_seconds`.
        kernels: constants of all parts.
    """
    attend, _ = _KINDS[layer.attention]
    seconds = attend(layer, gpu, precision, seen_by(layer, work), tensor_parallel, kernels)
    if layer.cross_attention:
        seconds = 2 * seconds
    if layer.index_top_k:
        seconds = seconds + indexer_seconds(layer, gpu, precision, work, kernels)
    norms = (layer.attention != "absent") + layer.feed_forward
    return seconds + norms * _norm_seconds(layer, gpu, work, tensor_parallel, kernels)


def attention_in_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    *,
    tensor_parallel: int = 1,
    kernels: LayerKernels = DEFAULT,
) -> Seconds:
    """The part of `attention_seconds` before its kernels, seconds [A]: a norm, and what makes queries, keys and values.

    Arguments are those of `attention_seconds`. Of latent attention it is by
    formula: what was measured is a whole module.
    """
    if layer.attention == "mla":
        kernels = replace(kernels, measured=None)
    if layer.attention == "absent":
        return np.zeros(work.n_groups)
    _, before = _KINDS[layer.attention]
    norm = _norm_seconds(layer, gpu, work, tensor_parallel, kernels)
    return norm + before(layer, gpu, precision, seen_by(layer, work), tensor_parallel, kernels)


def _norm_seconds(
    layer: LayerShape, gpu: GpuSpec, work: AttentionWork, tensor_parallel: int, kernels: LayerKernels
) -> Seconds:
    """A norm reads the residual and the sum to add, and writes both back, of a GPU's own tokens."""
    own = -(-work.group_tokens // tensor_parallel)
    return elementwise_seconds(gpu, own, 8.0 * layer.residual_streams * layer.hidden_size, kernels)


def _nothing(*arguments: Any) -> Seconds:
    """A layer without attention takes no time, [A]."""
    work: AttentionWork = arguments[3]
    return np.zeros(work.n_groups)


def _heads_in_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    tensor_parallel: int,
    kernels: LayerKernels,
) -> Seconds:
    """The products that make queries, keys and values of every head."""
    products = products_in(layer, tensor_parallel)
    return with_products(np.zeros(work.n_groups), gpu, work.group_tokens, products, precision, kernels)


def _heads_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    tensor_parallel: int,
    kernels: LayerKernels,
) -> Seconds:
    """Attention with keys and values a head: the kernels, and the products around them."""
    heads, kv_heads = (-(-n // tensor_parallel) for n in (layer.n_heads, layer.n_kv_heads))
    # kernels whose keys and values differ in width were not timed: one of their mean width moves as much
    shape = (float(heads), float(kv_heads), (layer.head_dim + layer.value_dim) / 2)
    seconds = np.zeros(work.n_groups)
    if work.decodes.any:
        seconds = seconds + _decode_seconds(layer, gpu, precision, work.decodes, shape, kernels)
    if work.prompts.any:
        seconds = seconds + _prompt_seconds(layer, gpu, precision, work.prompts, shape, kernels)
    products = (*products_in(layer, tensor_parallel), *products_out(layer, tensor_parallel))
    return with_products(seconds, gpu, work.group_tokens, products, precision, kernels)


def _decode_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    decodes: Sequences,
    shape: tuple[float, float, float],
    kernels: LayerKernels,
) -> Seconds:
    """The kernel over the caches of all sequences that decode, [A]; `shape`: heads, KV heads, width of a head."""
    heads, kv_heads, width = shape
    constants = kernels.decode(layer, precision)
    limit = limit_of(layer, requests_of(decodes).longest)
    # the kernel reads whole blocks of a window, and of selected tokens no more than these
    requests = requests_of(decodes, limit + (constants.window_tokens if layer.window else 0.0) if limit else np.inf)

    def formula(where: Any) -> Seconds:
        return decode_seconds(
            constants,
            gpu,
            requests=requests.number[where],
            context_tokens=requests.mean[where],
            longest_tokens=requests.longest[where],
            heads=heads,
            kv_heads=kv_heads,
            head_width=width,
            cache_bytes=DTYPE_BYTES[precision.kv_cache],
        )

    group = kernels.decode_rows(layer, precision) + (BOUNDED if limit else "")
    return kernels.measured_or(formula, "attention_generation", group, shape, requests.alike, requests.mean)


def _prompt_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    prompts: Sequences,
    shape: tuple[float, float, float],
    kernels: LayerKernels,
) -> Seconds:
    """The kernel over all prompts, [A]; `shape`: heads, KV heads, width of a head."""
    heads, kv_heads, _ = shape
    limit = limit_of(layer, prompts.new_tokens + prompts.cached_tokens)

    def formula(where: Any) -> Seconds:
        return mixed_seconds(
            kernels.prefill(layer, precision),
            gpu,
            prompts=prompts.count[:, where],
            prompt_tokens=prompts.new_tokens[:, where],
            cached_tokens=prompts.cached_tokens[:, where],
            heads=heads,
            kv_heads=kv_heads,
            key_width=float(layer.head_dim),
            value_width=float(layer.value_dim),
            compute=kernels.prefill_compute(precision),
            window=limit,
            sustained=kernels.throttled,
        )

    group = kernels.prefill_rows(layer, precision) + (BOUNDED if limit else "")
    return kernels.measured_or(formula, "attention_context", group, shape, *lengths_of(prompts))


_KINDS: Mapping[str, tuple[_Attend, _Attend]] = {
    "gqa": (_heads_seconds, _heads_in_seconds),
    "mla": (latent_seconds, latent_in_seconds),
    **dict.fromkeys(STATES, (linear_seconds, linear_in_seconds)),
    "compressed": (compressed_seconds, compressed_in_seconds),
    "absent": (_nothing, _nothing),
}
"""By the name of an attention: its time, and the part before its kernels."""
