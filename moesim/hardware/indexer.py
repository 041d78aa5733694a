"""The indexer of sparse attention, which scores the tokens before a new one and selects some (estimated).

Source of the form: DeepSeek-V3.2 (2025), section 2.1: few heads in fp8, one key
a token, whose projections come from the query latent and the residual stream.
Nothing is fitted: scores take their time at the published peaks. Every GPU that
shares the heads of attention computes the whole indexer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.dense import with_products
from moesim.hardware.gpu import memory_bandwidth, peak_flops
from moesim.hardware.layer_kernels import LayerKernels
from moesim.hardware.sequences import pairs_of
from moesim.types import AttentionWork, GpuSpec, LayerShape, Precision

Seconds = NDArray[np.float64]

_COMPUTE = "fp8"
_SCALE_BYTES = 4


def index_key_bytes(layer: LayerShape) -> int:
    """Bytes of the indexer's key of a cached token, or of a compressed one: fp8 with a float32 scale."""
    return layer.index_head_dim + _SCALE_BYTES if _is_there(layer) else 0


def index_projections(layer: LayerShape) -> tuple[tuple[int, int], ...]:
    """(Outputs, inputs) of the indexer's weights: queries, the key, and a weight of each head.

    In compressed attention the key of a few tokens is a gated sum over twice as many, which has four parts of a token.
    """
    if not _is_there(layer):
        return ()
    hidden, heads, width = layer.hidden_size, layer.index_heads, layer.index_head_dim
    keys = 4 * width if layer.compress_ratio else width
    return (heads * width, layer.q_lora_rank or hidden), (keys, hidden), (heads, hidden)


def _is_there(layer: LayerShape) -> bool:
    """Whether a layer has an indexer of its own."""
    return bool(layer.index_top_k and layer.index_heads)


def indexer_seconds(
    layer: LayerShape, gpu: GpuSpec, precision: Precision, work: AttentionWork, kernels: LayerKernels
) -> Seconds:
    """Projections and scores of the indexer of one layer, seconds [A]."""
    products = index_projections(layer)
    seconds = with_products(np.zeros(work.n_groups), gpu, work.group_tokens, products, precision, kernels)
    ratio = layer.compress_ratio or 1
    pairs = (pairs_of(work.prompts) + pairs_of(work.decodes)) / ratio
    flops = 2.0 * layer.index_heads * layer.index_head_dim * pairs
    lengths = (own.count * (own.new_tokens + own.cached_tokens) for own in (work.prompts, work.decodes))
    read = index_key_bytes(layer) / ratio * sum(each.sum(axis=0) for each in lengths) / memory_bandwidth(gpu)
    return np.asarray(seconds + np.maximum(read, flops / peak_flops(gpu, _COMPUTE)))
