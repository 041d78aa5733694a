"""The shape of a scenario's model: its layers as they are made of its fields, and what these must agree on."""

from __future__ import annotations

from typing import Any

from moesim.scenario.presets import preset
from moesim.scenario.schema import LayersSpec, ModelSpec
from moesim.scenario.source import FieldPath
from moesim.types import STATES, LayerChange, LayerShape, ModelShape

Rule = tuple[bool, FieldPath, Any, str]
"""Whether it holds, the field, what it is and what it should be."""

_ESTIMATED = {
    "linear": "linear attention",
    "lightning": "lightning attention",
    "mamba2": "state spaces of Mamba-2",
    "mamba": "state spaces of Mamba-1",
    "conv": "short convolutions",
    "compressed": "compressed attention",
}
"""Kinds of attention that nothing was fitted for, in words."""


def model_shape(spec: ModelSpec) -> ModelShape:
    """The model of a scenario."""
    changes = tuple(
        LayerChange(first=each.first, every=each.every, indices=each.indices, fields=_changed(each))
        for each in spec.layers
    )
    return ModelShape(**spec.model_dump(exclude={"layers"}), changes=changes)


def preset_model(name: str) -> ModelShape:
    """The shape of a shipped model."""
    return model_shape(ModelSpec.model_validate({"name": name, **preset("models", name)}))


def first_layers(fields: dict[str, Any], n_layers: Any) -> dict[str, Any]:
    """The fields of a published model of which so many layers are wanted: without what they say of later ones."""
    if not isinstance(n_layers, int) or n_layers < 1:
        return fields
    changes = []
    for each in fields.get("layers", ()):
        indices = [i for i in each.get("indices", ()) if i < n_layers]
        if indices or ("indices" not in each and each.get("first", 0) < n_layers):
            changes.append({**each, "indices": indices} if indices else each)
    dense = [i for i in fields.get("dense_layers", ()) if i < n_layers]
    return {**fields, "dense_layers": dense, "layers": changes}


def _changed(spec: LayersSpec) -> dict[str, Any]:
    """The fields that layers have of their own; a router of their own has its own parameters alone."""
    fields = spec.model_dump(exclude={"first", "every", "indices"})
    return {**({"router_parameters": {}} if "router" in fields else {}), **fields}


def estimated_attention(spec: ModelSpec) -> dict[str, str]:
    """The parts of layers of which nothing was measured, with their label."""
    layers = [each.shape for each in model_shape(spec).layers]
    kinds = {
        words: any(layer.attention == attention for layer in layers) for attention, words in _ESTIMATED.items()
    } | {
        "indexers of sparse attention": any(layer.index_top_k for layer in layers),
        "cross-attention": any(layer.cross_attention for layer in layers),
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
    for i, each in enumerate(spec.layers):
        place = (*model, "layers", i)
        last, stepped = max(each.indices, default=0), (each.first, each.every) != (0, 1)
        rules += [
            (each.first < spec.n_layers, (*place, "first"), each.first, f"a layer below {spec.n_layers}"),
            (last < spec.n_layers, (*place, "indices"), last, f"layers below {spec.n_layers}"),
            (not (each.indices and stepped), (*place, "indices"), each.indices, "no first and every, or no indices"),
        ]
    experts = spec.part_dtypes.get("experts", spec.weights_dtype)
    rules.append(
        (
            experts == spec.weights_dtype,
            (*model, "part_dtypes"),
            experts,
            f"experts in {spec.weights_dtype}, which is model.weights_dtype",
        )
    )
    for own in model_shape(spec).layers:
        for holds, field, wanted in _layer_rules(own.shape, spec.name):
            rules.append((holds, _path(spec, field), getattr(own.shape, field), wanted))
    return rules


def _layer_rules(layer: LayerShape, name: str) -> list[tuple[bool, str, str]]:
    """(Whether it holds, field, what it should be) of the layers of a class."""
    latent = (layer.kv_lora_rank, layer.qk_nope_head_dim, layer.v_head_dim)
    state = (layer.linear_key_heads, layer.linear_value_heads, layer.linear_key_dim, layer.linear_value_dim)
    limits = sum(n > 0 for n in (layer.window, layer.chunk, layer.index_top_k))
    kind, compressed = layer.attention, layer.attention == "compressed"
    return [
        (layer.top_k <= layer.n_experts, "top_k", f"at most the {layer.n_experts} experts"),
        (
            layer.n_experts > 0 or layer.intermediate_size > 0 or not layer.feed_forward,
            "intermediate_size",
            "the size of the dense layers",
        ),
        (layer.feed_forward or not layer.n_experts, "feed_forward", "true in a layer with experts"),
        (layer.feed_forward or kind != "absent", "feed_forward", "true in a layer without attention"),
        (kind != "mla" or all(latent), "kv_lora_rank", "all sizes of MLA"),
        (kind not in STATES - {"conv"} or all(state), "linear_value_heads", f"all sizes of {_ESTIMATED.get(kind)}"),
        (kind != "mamba" or layer.dt_rank > 0, "dt_rank", "the rank of the time steps"),
        (kind != "conv" or layer.conv_kernel > 0, "conv_kernel", "the tokens of the convolution"),
        (not compressed or layer.window > 0, "window", "the tokens that compressed attention sees as they are"),
        (
            not compressed or all((layer.q_lora_rank, layer.o_groups, layer.o_lora_rank)),
            "q_lora_rank",
            "all sizes of compressed attention: q_lora_rank, o_groups and o_lora_rank",
        ),
        (compressed or not layer.compress_ratio, "compress_ratio", "0: only compressed attention has it"),
        (
            kind not in ("gqa", "compressed") or layer.n_heads % layer.n_kv_heads == 0,
            "n_kv_heads",
            f"a number that divides the {layer.n_heads} heads",
        ),
        (not layer.cross_attention or kind == "gqa", "cross_attention", "false where attention is not gqa"),
        (kind not in STATES or limits == 0, "attention", f"gqa or mla: {name} limits what a token sees"),
        (limits <= 1 or compressed, "window", "0 where a chunk or an indexer limits what a token sees"),
        (not compressed or not layer.chunk, "chunk", "0 in compressed attention"),
        (
            not layer.index_top_k or layer.index_head_dim > 0,  # a layer without heads takes another's selection
            "index_top_k",
            "0, or an indexer of index_heads and index_head_dim",
        ),
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
