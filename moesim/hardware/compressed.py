"""Compressed attention: the tokens of a window as they are, and one vector for several tokens before (estimated).

Source of the form: DeepSeek-V4 (2026), section 2; HF `DeepseekV4Attention`. All
heads share one vector of a token, which is key and value. Beyond the window a
token attends to vectors that stand for `compress_ratio` tokens each, all of them
or those that an indexer selects. Nothing is fitted: the vectors that are read and
the products with them take their time at the published peaks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.dense import with_products
from moesim.hardware.gpu import memory_bandwidth, peak_flops
from moesim.hardware.heads import products_in, products_out
from moesim.hardware.layer_kernels import LayerKernels
from moesim.types import DTYPE_BYTES, AttentionWork, GpuSpec, LayerShape, Precision, Sequences

Seconds = NDArray[np.float64]

_COMPUTE = "bf16"


def compressed_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    tensor_parallel: int,
    kernels: LayerKernels,
) -> Seconds:
    """Projections and kernels of one layer, [A]; arguments as of `attention.attention_seconds`."""
    heads = -(-layer.n_heads // tensor_parallel)
    seconds = _products(layer, gpu, precision, work, tensor_parallel, kernels, out=True)
    for own, is_prompt in ((work.prompts, True), (work.decodes, False)):
        if not own.any:
            continue
        seen = attended(layer, own)
        flops = 4.0 * heads * layer.head_dim * (own.count * own.new_tokens * seen).sum(axis=0)
        # a kernel over a prompt reads a vector once for the tokens of a tile, one over caches once for each token
        read = kept_vectors(layer, own.new_tokens + own.cached_tokens) if is_prompt else seen
        moved = (own.count * read).sum(axis=0) * layer.head_dim * DTYPE_BYTES[precision.kv_cache]
        kernel = kernels.elementwise().launch_s + np.maximum(
            moved / memory_bandwidth(gpu), flops / peak_flops(gpu, _COMPUTE)
        )
        seconds = seconds + np.where(own.tokens > 0, kernel, 0.0)
    return seconds


def compressed_in_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    tensor_parallel: int,
    kernels: LayerKernels,
) -> Seconds:
    """The products that make queries, vectors and what is compressed, [A]."""
    return _products(layer, gpu, precision, work, tensor_parallel, kernels, out=False)


def attended(layer: LayerShape, own: Sequences) -> Seconds:
    """Vectors that a new token of each kind of sequence attends to, in the mean, [W, A]."""
    before = own.cached_tokens + (own.new_tokens + 1.0) / 2.0
    return np.asarray(np.minimum(before, layer.window) + np.minimum(_compressed(layer, before), _selected(layer)))


def kept_vectors(layer: LayerShape, lengths: NDArray[np.int64]) -> Seconds:
    """Vectors that a layer keeps of sequences of these lengths: those of a window, and the compressed ones."""
    return np.asarray(np.minimum(lengths, layer.window) + _compressed(layer, lengths.astype(np.float64)))


def _compressed(layer: LayerShape, tokens: Seconds) -> Seconds:
    return np.floor(tokens / layer.compress_ratio) if layer.compress_ratio else np.zeros_like(tokens)


def _selected(layer: LayerShape) -> float:
    return float(layer.index_top_k or np.inf)


def _products(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    work: AttentionWork,
    tensor_parallel: int,
    kernels: LayerKernels,
    *,
    out: bool,
) -> Seconds:
    last = products_out(layer, tensor_parallel) if out else ()
    products = (*products_in(layer, tensor_parallel), *last)
    return with_products(np.zeros(work.n_groups), gpu, work.group_tokens, products, precision, kernels)
