"""The fields of `model`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from moesim.scenario.schema.parts import Count, CountOrZero, Dtype, Part, described, list_to_tuple
from moesim.types import WEIGHT_PARTS

_Attention = Literal["gqa", "mla", "linear", "lightning", "mamba2", "mamba", "conv", "compressed", "absent"]
_PartName = Literal["attention", "experts", "shared", "dense", "router", "embeddings"]
assert set(_PartName.__args__) == set(WEIGHT_PARTS)  # type: ignore[attr-defined]
_Layers = Annotated[tuple[CountOrZero, ...], BeforeValidator(list_to_tuple)]


class LayersSpec(Part):
    """Some layers, by their indices or in equal steps, and the fields of the model that are others in them."""

    first: CountOrZero = described(0, "the first of these layers")
    every: Count = described(1, "from each of these layers to the next")
    indices: _Layers = described((), "these layers, where they are not in equal steps; then without first and every")
    attention: _Attention | None = None
    n_heads: Count | None = None
    n_kv_heads: Count | None = None
    head_dim: Count | None = None
    v_head_dim: CountOrZero | None = None
    attention_gate: bool | None = None
    k_eq_v: bool | None = None
    cross_attention: bool | None = None
    window: CountOrZero | None = None
    chunk: CountOrZero | None = None
    index_heads: CountOrZero | None = None
    index_top_k: CountOrZero | None = None
    compress_ratio: CountOrZero | None = None
    feed_forward: bool | None = None
    intermediate_size: CountOrZero | None = None
    top_k: Count | None = None
    router: str | None = None
    router_parameters: dict[str, Any] | None = None
    moe_intermediate_size: Count | None = None
    n_shared_experts: CountOrZero | None = None
    shared_intermediate_size: CountOrZero | None = None

    @model_serializer(mode="wrap")
    def _stated(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value not in (None, [], ())}


class ModelSpec(Part):
    """A model's shape; every width in elements, every count per layer."""

    name: str = described("inline", "shown in reports")
    hidden_size: Count
    n_layers: Annotated[int, Field(ge=1, le=10_000)]
    dense_layers: _Layers = described((), "indices of the layers without experts")
    n_experts: Annotated[int, Field(ge=1, le=100_000)]
    top_k: Count
    moe_intermediate_size: Count = described(..., "intermediate size of one expert")
    moe_latent_size: CountOrZero = described(0, "elements that an expert reads and writes, 0 = hidden_size")
    n_shared_experts: CountOrZero = 0
    shared_intermediate_size: CountOrZero = described(0, "of all shared experts together")
    intermediate_size: CountOrZero = described(0, "of the dense layers")
    feed_forward: bool = described(True, "false in layers of attention alone, which are among dense_layers")
    gated: bool = described(True, "gate, up and down matrices (else up and down)")
    residual_streams: Count = described(1, "copies of the residual (hyper-connections)")
    vocab_size: Count
    tied_embeddings: bool = described(False, "the head is the embedding")
    vision_parameters: CountOrZero = described(0, "of an encoder of images: they take memory, but no time")
    attention: _Attention = described("gqa", "heads with keys and values, latent, compressed, a state, or none")
    n_heads: Count
    n_kv_heads: Count
    head_dim: Count
    attention_gate: bool = described(False, "the queries' projection also makes a gate for the output")
    k_eq_v: bool = described(False, "one projection makes keys and values")
    cross_attention: bool = described(False, "attention to as many tokens of an encoder as well")
    window: CountOrZero = described(0, "tokens that a token attends to at most, the nearest ones; 0 = all")
    chunk: CountOrZero = described(0, "tokens of the chunks of a sequence that a token attends within; 0 = all")
    index_heads: CountOrZero = described(0, "heads of the indexer that selects tokens")
    index_head_dim: CountOrZero = 0
    index_top_k: CountOrZero = described(0, "tokens that it selects; 0 = all, without an indexer")
    compress_ratio: CountOrZero = described(0, "tokens of a vector of compressed attention beyond its window; 0 = none")
    linear_key_heads: CountOrZero = described(0, "heads of keys and queries of linear attention")
    linear_value_heads: CountOrZero = described(0, "its heads of values, each with a state")
    linear_key_dim: CountOrZero = 0
    linear_value_dim: CountOrZero = 0
    conv_kernel: CountOrZero = described(0, "tokens that its convolution sees")
    dt_rank: CountOrZero = described(0, "rank of the time steps of Mamba-1")
    q_lora_rank: CountOrZero = 0
    kv_lora_rank: CountOrZero = 0
    qk_nope_head_dim: CountOrZero = 0
    qk_rope_head_dim: CountOrZero = 0
    v_head_dim: CountOrZero = described(0, "elements of a value; 0 = head_dim, but in latent attention")
    o_groups: CountOrZero = described(0, "groups of heads that have outputs of their own")
    o_lora_rank: CountOrZero = described(0, "rank of these outputs")
    layers: Annotated[tuple[LayersSpec, ...], BeforeValidator(list_to_tuple)] = described(
        (), "layers that differ, by index, and the fields that are others in them; the last entry of a layer counts"
    )
    router: str = described("softmax-top-k", "the strategy that the model was trained with")
    router_parameters: dict[str, Any] = Field(default_factory=dict)
    weights_dtype: Dtype = "bf16"
    part_dtypes: dict[_PartName, Dtype] = Field(
        default_factory=dict, description="of parts whose weights are stored in another type"
    )
    dispatch_dtype: Dtype = "bf16"
    source: str = ""
