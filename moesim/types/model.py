"""The shape of a Mixture-of-Experts transformer, as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of one model; every count is per layer, every width in elements.

    A layer in `dense_layers` has a dense feed-forward network of
    `intermediate_size`; every other layer is an MoE layer of `n_experts`
    experts of `moe_intermediate_size`, plus shared experts of together
    `shared_intermediate_size`. `gated` networks have three matrices (gate, up,
    down), others two.

    `attention` is "gqa" (`n_heads`, `n_kv_heads`, `head_dim`) or "mla"
    (`n_heads`, the lora ranks and head dimensions of DeepSeek-V2).
    """

    name: str
    hidden_size: int
    n_layers: int
    dense_layers: tuple[int, ...] = ()
    n_experts: int
    top_k: int
    moe_intermediate_size: int
    n_shared_experts: int = 0
    shared_intermediate_size: int = 0
    intermediate_size: int = 0
    gated: bool = True
    vocab_size: int
    attention: str = "gqa"
    n_heads: int
    n_kv_heads: int
    head_dim: int
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    router: str = "softmax-top-k"
    router_parameters: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    weights_dtype: str = "bf16"
    dispatch_dtype: str = "bf16"
    source: str = ""

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the layers that have experts, ascending."""
        dense = frozenset(self.dense_layers)
        return tuple(layer for layer in range(self.n_layers) if layer not in dense)
