"""The products around attention with heads: what makes queries, keys and values, and what takes the outputs."""

from __future__ import annotations

from moesim.types import LayerShape

Product = tuple[int, int]
"""(Outputs, inputs) of a product with weights."""


def products_in(layer: LayerShape, tensor_parallel: int = 1) -> tuple[Product, ...]:
    """The products before the kernels, on one of the GPUs that share the heads of "gqa" or "compressed" attention.

    Queries (with a gate for each element of the output, if there is one), keys and
    values are one product; queries of a `q_lora_rank` are made of their latent by
    a second. Every GPU makes the latent and the vectors of compressed attention.
    """
    heads, kv_heads = (-(-n // tensor_parallel) for n in (layer.n_heads, layer.n_kv_heads))
    queries = heads * (layer.head_dim + (layer.value_dim if layer.attention_gate else 0))
    one = layer.k_eq_v or layer.attention == "compressed"
    keys = kv_heads * (layer.head_dim + (0 if one else layer.value_dim)) + _compressors(layer)
    if not layer.q_lora_rank:
        return ((queries + keys, layer.hidden_size),)
    return (layer.q_lora_rank + keys, layer.hidden_size), (queries, layer.q_lora_rank)


def products_out(layer: LayerShape, tensor_parallel: int = 1) -> tuple[Product, ...]:
    """The products after the kernels: the output, or those of groups of heads to their rank and of all ranks."""
    inner = -(-layer.n_heads // tensor_parallel) * layer.value_dim
    if not layer.o_lora_rank:
        return ((layer.hidden_size, inner),)
    groups = -(-layer.o_groups // tensor_parallel)
    # each group multiplies its own part of the heads: together as much as one product of this size
    return (layer.o_lora_rank, inner), (layer.hidden_size, groups * layer.o_lora_rank)


def _compressors(layer: LayerShape) -> int:
    """Elements of a token that its compressed vectors are made of.

    A vector is a gated sum over its tokens; where an indexer selects, over these and those of the vector before.
    """
    if not layer.compress_ratio:
        return 0
    return (4 if layer.index_top_k else 2) * layer.head_dim
