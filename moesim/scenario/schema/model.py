"""The fields of `model`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from moesim.scenario.schema.parts import Count, CountOrZero, Dtype, Part, described, list_to_tuple

_Attention = Literal["gqa", "mla", "linear"]


class LayersSpec(Part):
    """Layers `first`, `first` + `every` and so on, and the fields of the model that are others in them."""

    first: CountOrZero = described(0, "the first of these layers")
    every: Count = described(1, "from each of these layers to the next")
    attention: _Attention | None = None
    n_heads: Count | None = None
    n_kv_heads: Count | None = None
    head_dim: Count | None = None
    window: CountOrZero | None = None
    chunk: CountOrZero | None = None
    index_top_k: CountOrZero | None = None
    intermediate_size: CountOrZero | None = None
    top_k: Count | None = None
    router: str | None = None
    router_parameters: dict[str, Any] | None = None
    moe_intermediate_size: Count | None = None
    n_shared_experts: CountOrZero | None = None
    shared_intermediate_size: CountOrZero | None = None

    @model_serializer(mode="wrap")
    def _stated(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class ModelSpec(Part):
    """A model's shape; every width in elements, every count per layer."""

    name: str = described("inline", "shown in reports")
    hidden_size: Count
    n_layers: Annotated[int, Field(ge=1, le=10_000)]
    dense_layers: Annotated[tuple[CountOrZero, ...], BeforeValidator(list_to_tuple)] = described(
        (), "indices of the layers without experts"
    )
    n_experts: Annotated[int, Field(ge=1, le=100_000)]
    top_k: Count
    moe_intermediate_size: Count = described(..., "intermediate size of one expert")
    n_shared_experts: CountOrZero = 0
    shared_intermediate_size: CountOrZero = described(0, "of all shared experts together")
    intermediate_size: CountOrZero = described(0, "of the dense layers")
    gated: bool = described(True, "gate, up and down matrices (else up and down)")
    vocab_size: Count
    attention: _Attention = described("gqa", "heads with keys and values, latent, or a state of fixed size")
    n_heads: Count
    n_kv_heads: Count
    head_dim: Count
    attention_gate: bool = described(False, "the queries' projection also makes a gate for the output")
    window: CountOrZero = described(0, "tokens that a token attends to at most, the nearest ones; 0 = all")
    chunk: CountOrZero = described(0, "tokens of the chunks of a sequence that a token attends within; 0 = all")
    index_heads: CountOrZero = described(0, "heads of the indexer that selects tokens")
    index_head_dim: CountOrZero = 0
    index_top_k: CountOrZero = described(0, "tokens that it selects; 0 = all, without an indexer")
    linear_key_heads: CountOrZero = described(0, "heads of keys and queries of linear attention")
    linear_value_heads: CountOrZero = described(0, "its heads of values, each with a state")
    linear_key_dim: CountOrZero = 0
    linear_value_dim: CountOrZero = 0
    conv_kernel: CountOrZero = described(0, "tokens that its convolution sees")
    q_lora_rank: CountOrZero = 0
    kv_lora_rank: CountOrZero = 0
    qk_nope_head_dim: CountOrZero = 0
    qk_rope_head_dim: CountOrZero = 0
    v_head_dim: CountOrZero = 0
    layers: Annotated[tuple[LayersSpec, ...], BeforeValidator(list_to_tuple)] = described(
        (), "layers that differ, by index, and the fields that are others in them; the last entry of a layer counts"
    )
    router: str = described("softmax-top-k", "the strategy that the model was trained with")
    router_parameters: dict[str, Any] = Field(default_factory=dict)
    weights_dtype: Dtype = "bf16"
    dispatch_dtype: Dtype = "bf16"
    source: str = ""
