"""What a layer stores: its weights, and what it keeps of every sequence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.indexer import index_key_bytes, index_projections
from moesim.hardware.linear import convolution, projected, state_bytes
from moesim.types import DTYPE_BYTES, AttentionWork, LayerShape, Precision


def projections(layer: LayerShape) -> tuple[tuple[int, int], ...]:
    """(Outputs, inputs) of the weight matrices of one layer's attention, in the order they are used.

    "mla": down to the latents, up from the query latent, the keys' and values'
    up-projection, output. "gqa": query with key, value and gate, output. "linear":
    the projection, the convolution, output. Those of an indexer come last.
    """
    return (*_projections(layer), *index_projections(layer))


def _projections(layer: LayerShape) -> tuple[tuple[int, int], ...]:
    hidden, heads = layer.hidden_size, layer.n_heads
    if layer.attention == "linear":
        out = (hidden, layer.linear_value_heads * layer.linear_value_dim)
        return (projected(layer), hidden), convolution(layer), out
    if layer.attention == "gqa":
        queries = heads * (2 if layer.attention_gate else 1)
        return ((queries + 2 * layer.n_kv_heads) * layer.head_dim, hidden), (hidden, heads * layer.head_dim)
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
    latent has no heads, so that all GPUs of a group keep the whole. Linear
    attention keeps a state of each sequence instead, whatever its length.
    """
    prompts, decodes = work.prompts, work.decodes
    count = np.concatenate([prompts.count, decodes.count])
    if layer.attention == "linear":
        return np.asarray(count.sum(axis=0) * state_bytes(layer, tensor_parallel))
    lengths = np.concatenate([prompts.new_tokens + prompts.cached_tokens, decodes.cached_tokens])
    kept = np.minimum(lengths, min((n for n in (layer.window, layer.chunk) if n), default=np.inf))
    if layer.attention == "mla":
        elements = layer.kv_lora_rank + layer.qk_rope_head_dim
    else:
        elements = 2 * -(-layer.n_kv_heads // tensor_parallel) * layer.head_dim
    cached = (count * kept).sum(axis=0) * elements * DTYPE_BYTES[precision.kv_cache]
    return np.asarray(cached + (count * lengths).sum(axis=0) * index_key_bytes(layer))
