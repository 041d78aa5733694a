"""The shape of a Mixture-of-Experts transformer, as published: its layers in classes of equal ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """Sizes of one layer; every width in elements.

    `attention` is "gqa" (`n_heads`, `n_kv_heads`, `head_dim`; with an
    `attention_gate` the queries' projection also makes a gate for each element of
    the output), "mla" (`n_heads`, the lora ranks and head dimensions of DeepSeek-V2) or "linear" (a state of
    fixed size: `linear_value_heads` matrices of `linear_key_dim` x
    `linear_value_dim`, whose keys and queries are of `linear_key_heads`, after a
    convolution over `conv_kernel` tokens).

    A token attends to all tokens before it, or to at most `window` of them, or to
    those of its own `chunk` of the sequence, or to the `index_top_k` that an
    indexer of `index_heads` heads of `index_head_dim` elements selects; 0 says
    that there is no such limit.

    A layer with `n_experts` experts of `moe_intermediate_size`, of which a token
    chooses `top_k`, is an MoE layer and may have shared experts of together
    `shared_intermediate_size`; another has a dense feed-forward network of
    `intermediate_size`. `gated` networks have three matrices (gate, up, down),
    others two.
    """

    hidden_size: int
    attention: str = "gqa"
    n_heads: int
    n_kv_heads: int
    head_dim: int
    attention_gate: bool = False
    window: int = 0
    chunk: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    index_heads: int = 0
    index_head_dim: int = 0
    index_top_k: int = 0
    linear_key_heads: int = 0
    linear_value_heads: int = 0
    linear_key_dim: int = 0
    linear_value_dim: int = 0
    conv_kernel: int = 0
    gated: bool = True
    intermediate_size: int = 0
    n_experts: int
    top_k: int
    moe_intermediate_size: int
    n_shared_experts: int = 0
    shared_intermediate_size: int = 0
    router: str = "softmax-top-k"
    router_parameters: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    def without_experts(self) -> LayerShape:
        """The same layer with its dense network alone."""
        return replace(
            self,
            n_experts=0,
            top_k=0,
            moe_intermediate_size=0,
            n_shared_experts=0,
            shared_intermediate_size=0,
            router="",
            router_parameters=EMPTY,
        )

    def attention_alone(self) -> LayerShape:
        """The same layer without a network."""
        return replace(self.without_experts(), intermediate_size=0)


@dataclass(frozen=True, kw_only=True)
class LayerClass:
    """Layers that are alike: the shape of each, and their indices in the model, ascending."""

    shape: LayerShape
    indices: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LayerChange:
    """What layers `first`, `first` + `every` and so on have instead of the model's own fields, by field."""

    first: int = 0
    every: int = 1
    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ModelShape(LayerShape):
    """Sizes of one model: those that all its layers have, and what differs.

    A field of a layer holds for every layer, unless one of `changes` names
    another value for it; where several do, the last counts. A layer in
    `dense_layers` has no experts, every other has no dense network. `layers`
    are the layers as these rules make them.
    """

    name: str
    n_layers: int
    dense_layers: tuple[int, ...] = ()
    changes: tuple[LayerChange, ...] = ()
    vocab_size: int
    weights_dtype: str = "bf16"
    dispatch_dtype: str = "bf16"
    source: str = ""

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the layers that have experts, ascending."""
        dense = frozenset(self.dense_layers)
        return tuple(layer for layer in range(self.n_layers) if layer not in dense)

    @property
    def shared_layers(self) -> tuple[int, ...]:
        """Indices of the layers that have shared experts, ascending."""
        return tuple(sorted(i for each in self.layers if each.shape.n_shared_experts for i in each.indices))

    @cached_property
    def layers(self) -> tuple[LayerClass, ...]:
        """The classes of equal layers, in the order of the first layer of each; every layer is in one class."""
        own = LayerShape(**{each.name: getattr(self, each.name) for each in fields(LayerShape)})
        dense, classes = frozenset(self.dense_layers), []
        for layer in range(self.n_layers):
            shape = own
            for change in self.changes:
                if layer >= change.first and (layer - change.first) % change.every == 0:
                    shape = replace(shape, **change.fields)
            classes.append(shape.without_experts() if layer in dense else replace(shape, intermediate_size=0))
        distinct: list[LayerShape] = []
        for shape in classes:
            if shape not in distinct:
                distinct.append(shape)
        return tuple(
            LayerClass(shape=shape, indices=tuple(i for i, each in enumerate(classes) if each == shape))
            for shape in distinct
        )

    @cached_property
    def attention_shapes(self) -> tuple[list[LayerShape], list[int]]:
        """Layers whose attention differs, without their networks, and the place among them of each of `layers`."""
        shapes: list[LayerShape] = []
        of_class = []
        for each in self.layers:
            shape = each.shape.attention_alone()
            if shape not in shapes:
                shapes.append(shape)
            of_class.append(shapes.index(shape))
        return shapes, of_class

    @cached_property
    def choices_of_layer(self) -> tuple[int, ...]:
        """Choices of a token, top-k, in each of `moe_layers`."""
        return tuple(self.layers[self.class_of_layer[layer]].shape.top_k for layer in self.moe_layers)

    @cached_property
    def class_of_layer(self) -> NDArray[np.int64]:
        """The index in `layers` of the class of each layer, [n_layers]."""
        classes = np.empty(self.n_layers, dtype=np.int64)
        for i, each in enumerate(self.layers):
            classes[list(each.indices)] = i
        return classes
