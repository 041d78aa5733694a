"""What a model is and needs: its parameters, layers, bytes of weights and cache, and the GPUs that hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from moesim.hardware import cache_bytes, memory_bytes, parameter_count, part_bytes
from moesim.scenario import Scenario, canonical, presets
from moesim.scenario.model_shape import estimated_attention
from moesim.types import (
    DTYPE_BYTES,
    STATES,
    ClusterShape,
    LayerShape,
    ModelShape,
    Parallelism,
    Precision,
    equal_decodes,
)

_LONG = 1 << 30
"""Tokens of a sequence that is longer than any window."""
MAX_GPUS = 1024
"""The most GPUs that are tried."""
_ANY_GPU = "h100-sxm"
"""A scenario names one; what is told of the model does not depend on it."""
_ROUTER_GROUPS = ("n_group", "topk_group")


def describe_model(model: Any, *, gpus: Sequence[str] = (), context_tokens: int = 8192) -> dict[str, Any]:
    """What a model is and needs, as plain JSON types.

    Args:
        model: as `model` of a scenario: a preset, the path of a config.json or its folder, org/name, or fields.
        gpus: presets to tell of; by default all.
        context_tokens: length of the sequences whose cache is counted.

    Returns:
        `name`, `source`, `layers`, `hidden_size`, `vocab_size`;
        `parameters` by part with `total` and `active`;
        `moe_layers`, `dense_layers`, `experts`, `top_k`, `expert_width`, `shared_experts`, `zero_experts`, `groups`,
        `router`, `router_parameters` (a list where layers differ);
        `attention`, a list of kinds with their number of `layers`;
        `weights`: `dtype`, `part_dtypes`, and `bytes` as `stored` and in each data type;
        `kv_cache`: `dtype`, `bytes_per_token` that a sequence adds however long it is, `bytes_per_sequence` that it
        keeps once (windows that are full, states), and `context_tokens` with the `bytes` of such a sequence;
        `gpus`: for each preset how many are needed (`gpus`, null where MAX_GPUS do not do), how the model is cut over
        them (fields of `Parallelism`), bytes on each of weights and what is free, and `kv_tokens` of sequences of that
        length on all of them;
        `estimated`: parts that nothing was measured of, with the label of each.

    Raises:
        ScenarioError: there is no such model or GPU.
    """
    names = [canonical("gpus", name) for name in gpus] or list(presets("gpus"))
    read = Scenario.from_dict({"name": "describe", "model": model, "cluster": {"gpu": _ANY_GPU}})
    shape, stored = read.model, _stored(read)
    return {
        "name": shape.name,
        "source": shape.source,
        "layers": shape.n_layers,
        "hidden_size": shape.hidden_size,
        "vocab_size": shape.vocab_size,
        "parameters": parameter_count(shape),
        **_experts(shape),
        "attention": kinds_of_attention(shape),
        "weights": {
            "dtype": shape.weights_dtype,
            "part_dtypes": dict(shape.part_dtypes),
            "bytes": {
                "stored": _weight_bytes(shape, stored),
                **{dtype: _weight_bytes(replace(shape, part_dtypes={}), _in(stored, dtype)) for dtype in DTYPE_BYTES},
            },
        },
        "kv_cache": _cache(shape, stored, context_tokens),
        "gpus": {name: _on_gpu(model, name, context_tokens) for name in names},
        "estimated": _estimated(read),
    }


def _estimated(scenario: Scenario) -> dict[str, str]:
    """Parts that nothing was measured of, and the model itself where its configuration was read by guess."""
    found = estimated_attention(scenario.spec.model)
    return {"model": scenario.model.source, **found} if scenario.model.source.startswith("estimated") else found


def _stored(scenario: Scenario) -> Precision:
    return replace(scenario.precision, weights=scenario.model.weights_dtype)


def _in(precision: Precision, dtype: str) -> Precision:
    return replace(precision, weights=dtype)


def _experts(model: ModelShape) -> dict[str, Any]:
    """What is said of the experts; where MoE layers differ, a list of the values in the order of their layers."""
    layers = [each.shape for each in model.layers if each.shape.n_experts]
    groups = [
        {name: layer.router_parameters.get(name) for name in _ROUTER_GROUPS}
        if (layer.router_parameters.get("n_group") or 1) > 1
        else None
        for layer in layers
    ]
    return {
        "moe_layers": len(model.moe_layers),
        "dense_layers": list(model.dense_layers),
        "experts": model.n_experts,
        "top_k": _one_or_all(layer.top_k for layer in layers),
        "expert_width": _one_or_all(layer.moe_intermediate_size for layer in layers),
        "shared_experts": _one_or_all(layer.n_shared_experts for layer in layers),
        "zero_experts": _one_or_all(layer.n_zero_experts for layer in layers),
        "groups": _one_or_all(groups),
        "router": _one_or_all(layer.router for layer in layers),
        "router_parameters": _one_or_all(dict(layer.router_parameters) for layer in layers),
    }


def _one_or_all(values: Iterable[Any]) -> Any:
    """The value that all have, else the different ones in order."""
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return distinct[0] if len(distinct) == 1 else distinct


def kinds_of_attention(model: ModelShape) -> list[dict[str, Any]]:
    """Kinds of attention with the number of layers of each, and what limits the tokens that one sees."""
    kinds: dict[tuple[Any, ...], int] = {}
    for each in model.layers:
        layer = each.shape
        limits = (layer.window, layer.chunk, layer.index_top_k, layer.compress_ratio)
        heads = (layer.n_heads, layer.n_kv_heads) if layer.attention in ("gqa", "compressed") else (0, 0)
        key = (layer.attention, *limits, *heads)
        kinds[key] = kinds.get(key, 0) + len(each.indices)
    fields = ("kind", "window", "chunk", "index_top_k", "compress_ratio", "heads", "kv_heads")
    return [
        {"layers": n, **{name: value for name, value in zip(fields, key, strict=True) if value}}
        for key, n in kinds.items()
        if key[0] != "absent"
    ]


def _weight_bytes(model: ModelShape, precision: Precision) -> int:
    """Bytes of all weights once."""
    count, each = parameter_count(model), part_bytes(model, precision)
    return round(sum(count[part] * size for part, size in each.items()))


def _cache(model: ModelShape, precision: Precision, context_tokens: int) -> dict[str, Any]:
    """What a sequence keeps: what grows with its length, what does not, and all of a sequence of this length."""
    growing = sum(len(each.indices) * _growth(each.shape, precision) for each in model.layers)
    fixed = _sequence_bytes(model, precision, _LONG) - _LONG * growing
    return {
        "dtype": precision.kv_cache,
        "bytes_per_token": round(growing, 3),
        "bytes_per_sequence": round(fixed),
        "context_tokens": context_tokens,
        "bytes": round(_sequence_bytes(model, precision, context_tokens)),
    }


def _growth(layer: LayerShape, precision: Precision) -> float:
    """Bytes that a layer keeps of each token of a long sequence."""
    if layer.attention in STATES:
        return 0.0
    short, long = (float(cache_bytes(layer, precision, _one(n))[0]) for n in (_LONG // 2, _LONG))
    return (long - short) / (_LONG // 2)


def _sequence_bytes(model: ModelShape, precision: Precision, tokens: int, shared: int = 1) -> float:
    """What one GPU keeps of a sequence of this length, of which `shared` GPUs share the heads."""
    own = (cache_bytes(each.shape, precision, _one(tokens), shared) for each in model.layers)
    return sum(len(each.indices) * float(kept[0]) for each, kept in zip(model.layers, own, strict=True))


def _one(tokens: int) -> Any:
    """A sequence that decodes."""
    return equal_decodes(np.ones(1, dtype=np.int64), tokens)


def _on_gpu(model: Any, gpu: str, context_tokens: int) -> dict[str, Any]:
    """The fewest GPUs that hold the model with the cache of a sequence, and what is left of their memory."""
    read = Scenario.from_dict({"name": "describe", "model": model, "cluster": {"gpu": gpu}})
    row: dict[str, Any] = {"gpus": None, "memory_bytes": round(read.cluster.gpu.memory_gb * 1e9)}
    for n, parallelism in _layouts(read.cluster.gpus_per_node, read.model):
        a_node = min(n, read.cluster.gpus_per_node)
        cluster = replace(read.cluster, n_nodes=n // a_node, gpus_per_node=a_node)
        shared = parallelism.attention_tp
        sequence = _sequence_bytes(read.model, read.precision, context_tokens, shared)
        need = _needed(read.model, cluster, read.precision, parallelism)
        free = need["available"] - need["total"]
        if free >= sequence:
            return {
                **row,
                "gpus": n,
                **asdict(parallelism),
                "weight_bytes": need["weights"] + need["experts"],
                "free_bytes": free,
                "kv_tokens": n // shared * int(free / sequence * context_tokens) if sequence else None,
            }
    return row


def _layouts(a_node: int, model: ModelShape) -> Iterator[tuple[int, Parallelism]]:
    """Numbers of GPUs, and how the model is cut over them: as few as may be, then as few that share as may be.

    GPUs are powers of two in a node, then doubled numbers of nodes. Every GPU is a rank of experts; where there are
    more GPUs than experts, some share each expert. Every GPU has the attention of its own tokens, or all of a node
    share the heads.
    """
    within = [1 << i for i in range(a_node.bit_length()) if 1 << i < a_node]
    across = [a_node << i for i in range(MAX_GPUS.bit_length()) if a_node << i <= MAX_GPUS]
    for n in (*within, *across):
        sharing = [tp for tp in _powers(min(n, a_node)) if n % tp == 0 and n // tp <= model.n_experts]
        heads = [tp for tp in _powers(min(n, a_node, model.n_heads)) if a_node % tp == 0]
        if sharing:
            for shared in sorted({1, heads[-1]}):
                yield n, Parallelism(expert=n // sharing[0], expert_tp=sharing[0], attention_tp=shared)


def _powers(most: int) -> list[int]:
    """Powers of two, ascending."""
    return [1 << i for i in range(most.bit_length())]


def _needed(model: ModelShape, cluster: ClusterShape, precision: Precision, parallelism: Parallelism) -> dict[str, int]:
    """Bytes on the fullest GPU where each has one token, without its cache."""
    shared = parallelism.attention_tp
    need = memory_bytes(
        model,
        cluster,
        precision,
        equal_decodes(np.ones(shared, dtype=np.int64), 0, heads_shared=shared),
        slots_per_gpu=-(-model.n_experts // parallelism.expert),
        parallelism=parallelism,
    )
    return {**need, "total": need["total"] - need["kv_cache"]}
