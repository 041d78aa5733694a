"""The shape of a scenario's model: its layers as they are made of its fields, and what these must agree on."""

from __future__ import annotations

from typing import Any

from moesim.scenario.schema import LayersSpec, ModelSpec
from moesim.scenario.source import FieldPath
from moesim.types import LayerChange, LayerShape, ModelShape

Rule = tuple[bool, FieldPath, Any, str]
"""Whether it holds, the field, what it is and what it should be."""


def model_shape(spec: ModelSpec) -> ModelShape:
    """The model of a scenario."""
    changes = tuple(LayerChange(first=each.first, every=each.every, fields=_changed(each)) for each in spec.layers)
    return ModelShape(**spec.model_dump(exclude={"layers"}), changes=changes)


def _changed(spec: LayersSpec) -> dict[str, Any]:
    """The fields that layers have of their own; a router of their own has its own parameters alone."""
    fields = spec.model_dump(exclude={"first", "every"})
    return {**({"router_parameters": {}} if "router" in fields else {}), **fields}


def estimated_attention(spec: ModelSpec) -> dict[str, str]:
    """The kinds of attention of which nothing was measured, with their label."""
    layers = [each.shape for each in model_shape(spec).layers]
    kinds = {
        "linear attention": any(layer.attention == "linear" for layer in layers),
        "indexers of sparse attention": any(layer.index_top_k for layer in layers),
    }
    label = "estimated: bytes and FLOPs at the published peaks"
    return {kind: label for kind, present in kinds.items() if present}


def model_rules(spec: ModelSpec) -> list[Rule]:
    """What the fields of a model must agree on, layer by layer where these differ."""
    dense, model = spec.dense_layers, ("model",)
    rules: list[Rule] = [
        (
            len(set(dense)) == len(dense) and all(i < spec.n_layers for i in dense),
            (*model, "dense_layers"),
            dense,
            f"distinct layers below {spec.n_layers}",
        ),
        (len(dense) < spec.n_layers, (*model, "dense_layers"), dense, "at least one layer with experts"),
    ]
    rules += [
        (each.first < spec.n_layers, (*model, "layers", i, "first"), each.first, f"a layer below {spec.n_layers}")
        for i, each in enumerate(spec.layers)
    ]
    for each in model_shape(spec).layers:
        for holds, field, wanted in _layer_rules(each.shape, spec.name):
            rules.append((holds, _path(spec, field), getattr(each.shape, field), wanted))
    return rules


def _layer_rules(layer: LayerShape, name: str) -> list[tuple[bool, str, str]]:
    """(Whether it holds, field, what it should be) of the layers of a class."""
    latent = (layer.kv_lora_rank, layer.qk_nope_head_dim, layer.qk_rope_head_dim, layer.v_head_dim)
    state = (layer.linear_key_heads, layer.linear_value_heads, layer.linear_key_dim, layer.linear_value_dim)
    indexer = (layer.index_heads, layer.index_head_dim)
    limits = sum(n > 0 for n in (layer.window, layer.chunk, layer.index_top_k))
    return [
        (layer.top_k <= layer.n_experts, "top_k", f"at most the {layer.n_experts} experts"),
        (layer.n_experts > 0 or layer.intermediate_size > 0, "intermediate_size", "the size of the dense layers"),
        (layer.attention != "mla" or all(latent), "kv_lora_rank", "all sizes of MLA"),
        (layer.attention != "linear" or all(state), "linear_value_heads", "all sizes of linear attention"),
        (
            layer.attention != "gqa" or layer.n_heads % layer.n_kv_heads == 0,
            "n_kv_heads",
            f"a number that divides the {layer.n_heads} heads",
        ),
        (layer.attention != "linear" or limits == 0, "attention", f"gqa or mla: {name} limits what a token sees"),
        (limits <= 1, "window", "0 where a chunk or an indexer limits what a token sees"),
        (not layer.index_top_k or all(indexer), "index_top_k", "0, or an indexer of index_heads and index_head_dim"),
        (
            (layer.n_shared_experts > 0) == (layer.shared_intermediate_size > 0),
            "shared_intermediate_size",
            "the size of all shared experts together, 0 where there are none",
        ),
    ]


def _path(spec: ModelSpec, field: str) -> FieldPath:
    """Where a field of a layer is written: in the last entry of `layers` that names it, or in the model."""
    for i in reversed(range(len(spec.layers))):
        if getattr(spec.layers[i], field, None) is not None:
            return ("model", "layers", i, field)
    return ("model", field)
