"""The shape of a Mixture-of-Experts transformer, as published: its layers in classes of equal ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

EMPTY: Mapping[str, Any] = MappingProxyType({})
STATES = frozenset({"linear", "lightning", "mamba2", "mamba", "conv"})
"""Kinds of attention that keep a state of fixed size of a sequence."""
WEIGHT_PARTS = ("attention", "experts", "shared", "dense", "router", "embeddings")
"""Parts of a model whose weights may be stored in data types of their own."""


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """Sizes of one layer; every width in elements.

    `attention` is one of

    - "gqa": `n_heads` heads of queries, `n_kv_heads` of keys and values, each of `head_dim` elements, values
      of `v_head_dim` where this is not 0. With an `attention_gate` the queries' projection also makes a gate
      for each element of the output. With `k_eq_v` one projection makes keys and values. A `q_lora_rank` makes
      queries through a latent. With `cross_attention` the layer attends once more, to as many tokens of an encoder.
    - "mla": `n_heads`, the lora ranks and head dimensions of DeepSeek-V2.
    - "linear", "lightning" or "mamba2": a state of fixed size, `linear_value_heads` matrices of `linear_key_dim` x
      `linear_value_dim`, whose keys and queries are of `linear_key_heads`, after a convolution over `conv_kernel`
      tokens. "linear" is the gated delta rule, "lightning" a fixed decay of each head (no gates).
    - "mamba": the state of Mamba-1, of `linear_key_dim` elements for each of `linear_value_heads` channels
      (`linear_value_dim` is 1), with time steps of rank `dt_rank`.
    - "conv": a gated convolution over `conv_kernel` tokens.
    - "compressed": DeepSeek-V4's. One vector of `head_dim` elements is key and value of a token for all heads.
      A token attends to the last `window` tokens and to one vector for each `compress_ratio` tokens (0: none), of
      which an indexer selects `index_top_k`. `o_groups` groups of heads have outputs of rank `o_lora_rank`.
    - "absent".

    A token attends to all tokens before it, or to at most `window` of them, or to
    those of its own `chunk` of the sequence, or to the `index_top_k` that an
    indexer of `index_heads` heads of `index_head_dim` elements selects; 0 says
    that there is no such limit. With 0 `index_heads` the layer takes the selection of a layer before it.

    A layer with `n_experts` experts of `moe_intermediate_size`, of which a token
    chooses `top_k`, is an MoE layer and may have shared experts of together
    `shared_intermediate_size`; another has a dense feed-forward network of
    `intermediate_size`, and without `feed_forward` none at all. `gated` networks
    have three matrices (gate, up, down), others two. Where `moe_latent_size` is
    not 0, experts read and write vectors of so many elements, into and out of which
    the layer projects; these are what is sent. The residual has `residual_streams`.
    """

    hidden_size: int
    attention: str = "gqa"
    n_heads: int
    n_kv_heads: int
    head_dim: int
    attention_gate: bool = False
    k_eq_v: bool = False
    cross_attention: bool = False
    window: int = 0
    chunk: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    o_groups: int = 0
    o_lora_rank: int = 0
    compress_ratio: int = 0
    index_heads: int = 0
    index_head_dim: int = 0
    index_top_k: int = 0
    linear_key_heads: int = 0
    linear_value_heads: int = 0
    linear_key_dim: int = 0
    linear_value_dim: int = 0
    conv_kernel: int = 0
    dt_rank: int = 0
    residual_streams: int = 1
    feed_forward: bool = True
    gated: bool = True
    intermediate_size: int = 0
    n_experts: int
    top_k: int
    moe_intermediate_size: int
    moe_latent_size: int = 0
    n_shared_experts: int = 0
    shared_intermediate_size: int = 0
    router: str = "softmax-top-k"
    router_parameters: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    @property
    def expert_hidden_size(self) -> int:
        """Elements of what an expert reads and writes, and of what is sent to it."""
        return self.moe_latent_size or self.hidden_size

    @property
    def value_dim(self) -> int:
        """Elements of a value of a head with keys and values."""
        return self.v_head_dim or self.head_dim

    @property
    def n_zero_experts(self) -> int:
        """Experts that compute nothing, which the router scores behind the others."""
        return int(self.router_parameters.get("n_zero_experts", 0))

    def without_experts(self) -> LayerShape:
        """The same layer with its dense network alone."""
        return replace(
            self,
            n_experts=0,
            top_k=0,
            moe_intermediate_size=0,
            moe_latent_size=0,
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
    """What some layers have instead of the model's own fields, by field.

    These are the layers of `indices`, or where this is empty `first`, `first` + `every` and so on.
    """

    first: int = 0
    every: int = 1
    indices: tuple[int, ...] = ()
    fields: Mapping[str, Any]

    def among(self, n_layers: int) -> Iterable[int]:
        """The layers of a model of `n_layers` that it is of."""
        return self.indices or range(self.first, n_layers, self.every)


@dataclass(frozen=True, kw_only=True)
class ModelShape(LayerShape):
    """Sizes of one model: those that all its layers have, and what differs.

    A field of a layer holds for every layer, unless one of `changes` names
    another value for it; where several do, the last counts. A layer in
    `dense_layers` has no experts, every other has no dense network. `layers`
    are the layers as these rules make them.

    `weights_dtype` is how the experts' weights are stored, and those of all
    matrices that `part_dtypes` names no other type for; its keys are WEIGHT_PARTS. With
    `tied_embeddings` the head is the embedding. `vision_parameters` are those of
    an encoder of images, which no token of text needs.
    """

    name: str
    n_layers: int
    dense_layers: tuple[int, ...] = ()
    changes: tuple[LayerChange, ...] = ()
    vocab_size: int
    tied_embeddings: bool = False
    vision_parameters: int = 0
    weights_dtype: str = "bf16"
    part_dtypes: Mapping[str, str] = field(default_factory=lambda: EMPTY)
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
        dense = frozenset(self.dense_layers)
        changes_of: list[tuple[int, ...]] = [() for _ in range(self.n_layers)]
        for i, change in enumerate(self.changes):
            for layer in change.among(self.n_layers):
                if layer < self.n_layers:
                    changes_of[layer] += (i,)
        found: dict[tuple[tuple[int, ...], bool], LayerShape] = {}
        classes: list[tuple[LayerShape, list[int]]] = []
        for layer, changes in enumerate(changes_of):
            kind = (changes, layer in dense)
            if kind not in found:
                found[kind] = _with_changes(own, [self.changes[i] for i in changes], dense=layer in dense)
            indices = next((its for shape, its in classes if shape == found[kind]), None)
            if indices is None:
                classes.append((found[kind], [layer]))
            else:
                indices.append(layer)
        return tuple(LayerClass(shape=shape, indices=tuple(indices)) for shape, indices in classes)

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


def _with_changes(own: LayerShape, changes: Iterable[LayerChange], *, dense: bool) -> LayerShape:
    """A layer with the fields that are others in it, and the network that it has."""
    shape = own
    for change in changes:
        shape = replace(shape, **change.fields)
    if not dense:
        return replace(shape, intermediate_size=0)
    shape = shape.without_experts()
    return shape if shape.feed_forward else shape.attention_alone()
