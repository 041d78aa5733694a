"""What a layer stores: its weights, and what it keeps of every sequence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.compressed import kept_vectors
from moesim.hardware.heads import products_in, products_out
from moesim.hardware.indexer import index_key_bytes, index_projections
from moesim.hardware.linear import convolution, state_bytes, state_projections
from moesim.types import DTYPE_BYTES, STATES, AttentionWork, LayerShape, Precision


def projections(layer: LayerShape) -> tuple[tuple[int, int], ...]:
    """(Outputs, inputs) of the weight matrices of one layer's attention, in the order they are used.

    "mla": down to the latents, up from the query latent, the keys' and values'
    up-projection, output. "gqa" and "compressed": `moesim.hardware.heads`, twice
    with cross-attention. Those with a state: the projections, the convolution,
    output. Those of an indexer come last.
    """
    own = _projections(layer)
    return (*own, *(own if layer.cross_attention else ()), *index_projections(layer))


def _projections(layer: LayerShape) -> tuple[tuple[int, int], ...]:
    hidden, heads = layer.hidden_size, layer.n_heads
    if layer.attention == "absent":
        return ()
    if layer.attention in STATES:
        *before, out = state_projections(layer)
        return (*before, convolution(layer), out)
    if layer.attention in ("gqa", "compressed"):
        return (*products_in(layer), *products_out(layer))
    query = heads * (layer.qk_nope_head_dim + layer.qk_rope_head_dim)
    latent = layer.kv_lora_rank + layer.qk_rope_head_dim
    up = (heads * (layer.qk_nope_head_dim + layer.v_head_dim), layer.kv_lora_rank)
    out = (hidden, heads * layer.v_head_dim)
    if layer.q_lora_rank:
        return (layer.q_lora_rank + latent, hidden), (query, layer.q_lora_rank), up, out
    return (query + latent, hidden), up, out


def cache_bytes(
    layer: LayerShape, precision: Precision, work: AttentionWork, tensor_parallel: int = 1
) -> NDArray[np.float64]:
    """Bytes that each GPU of an attention group keeps of its sequences in one layer, [A].

    Of a sequence that decodes these are the tokens of its context, of a prompt
    those cached with its new ones; at most a window or a chunk of them. A
    latent has no heads, so that all GPUs of a group keep the whole. Some layers
    keep a state of each sequence instead, whatever its length, or nothing.
    """
    prompts, decodes = work.prompts, work.decodes
    count = np.concatenate([prompts.count, decodes.count])
    if layer.attention == "absent":
        return np.zeros(work.n_groups)
    if layer.attention in STATES:
        return np.asarray(count.sum(axis=0) * state_bytes(layer, tensor_parallel))
    lengths = np.concatenate([prompts.new_tokens + prompts.cached_tokens, decodes.cached_tokens])
    vectors, elements = lengths.astype(np.float64), 0
    if layer.attention == "mla":
        elements = layer.kv_lora_rank + layer.qk_rope_head_dim
    elif layer.attention == "compressed":
        vectors, elements = kept_vectors(layer, lengths), layer.head_dim
    else:
        elements = -(-layer.n_kv_heads // tensor_parallel) * (layer.head_dim + layer.value_dim)
    if layer.attention != "compressed":
        vectors = np.minimum(lengths, min((n for n in (layer.window, layer.chunk) if n), default=np.inf))
    times = 2 if layer.cross_attention else 1
    cached = times * (count * vectors).sum(axis=0) * elements * DTYPE_BYTES[precision.kv_cache]
    indexed = (count * lengths).sum(axis=0) / (layer.compress_ratio or 1) * index_key_bytes(layer)
    return np.asarray(cached + indexed)
