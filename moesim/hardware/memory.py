"""Whether the model fits: parameters, and the bytes of one GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.errors import TooLargeError
from moesim.hardware.buffers import exchange_bytes
from moesim.hardware.constants import MEMORY_SHARE
from moesim.hardware.expert import matrices, weight_bytes
from moesim.hardware.gpu import wide_bytes
from moesim.hardware.indexer import index_projections
from moesim.hardware.kernel_dtypes import stored_bytes
from moesim.hardware.sizes import cache_bytes, projections
from moesim.types import AttentionWork, ClusterShape, LayerShape, ModelShape, Parallelism, Precision


def parameters(model: ModelShape) -> dict[str, int]:
    """Parameters of the whole model by part, and their total.

    Matrices only: norms and biases are left out (below 0.1 % of any preset).
    Embedding and head are counted apart, as untied.
    """
    parts = dict.fromkeys(("attention", "dense", "shared", "experts", "router"), 0)
    for each in model.layers:
        for part, count in _layer_parameters(each.shape).items():
            parts[part] += len(each.indices) * count
    parts["embedding"] = 2 * model.vocab_size * model.hidden_size
    return {**parts, "total": sum(parts.values())}


def _layer_parameters(layer: LayerShape) -> dict[str, int]:
    network = matrices(layer) * layer.hidden_size
    return {
        "attention": sum(n * k for n, k in projections(layer)),
        "dense": network * layer.intermediate_size,
        "shared": network * layer.shared_intermediate_size if layer.n_shared_experts else 0,
        "experts": layer.n_experts * network * layer.moe_intermediate_size,
        "router": layer.hidden_size * layer.n_experts,
    }


def memory_bytes(
    model: ModelShape,
    cluster: ClusterShape,
    precision: Precision,
    work: AttentionWork,
    *,
    slots_per_gpu: int,
    parallelism: Parallelism | None = None,
    n_slots: int | None = None,
    n_sources: int | None = None,
    source: bool = True,
) -> dict[str, int]:
    """Bytes that one GPU needs, by part, their total, and `available`.

    Everything but the routed experts is on every GPU that has tokens, or its
    part of the heads where they are shared; a latent cache, and the products
    down into latents, have none and are held by every GPU that shares, like an indexer.
    `experts` are all slots of the GPU, replicas included. `kv_cache` is
    what all layers keep of the sequences (`moesim.hardware.sizes`). `activations` are what is alive in one layer:
    the residual stream, the widest intermediate, the rows of the experts at
    their mean, the logits. `exchange` is what dispatch and combine keep
    (`moesim.hardware.buffers`).

    Args:
        model: its layers and widths.
        cluster: the GPU's memory, and the network.
        precision: data types of weights, activations and cache.
        work: the step of one attention group, whose GPUs have as many tokens as any.
        slots_per_gpu: slots of one MoE layer on the GPU.
        parallelism: who shares experts and heads; by default nobody.
        n_slots: slots of one MoE layer in an expert-parallel group; by default as many on every rank.
        n_sources: GPUs of a group that have tokens; by default all.
        source: whether this GPU is one of them, or has experts and nothing else.
    """
    parallel = parallelism or Parallelism(expert=cluster.n_gpus)
    tokens = int(work.tokens.max(initial=0))
    group_tokens = tokens * (parallel.group_gpus if n_sources is None else n_sources)
    n_slots = n_slots or max(1, slots_per_gpu * parallel.expert)
    here, shared = slots_per_gpu / n_slots, parallel.attention_tp
    moe = [each for each in model.layers if each.shape.n_experts]
    cached = sum(len(each.indices) * cache_bytes(each.shape, precision, work, shared) for each in model.layers)
    parts = {
        "weights": _weights(model, precision, shared) if source else 0,
        "experts": sum(
            len(each.indices) * slots_per_gpu * weight_bytes(each.shape, precision) / parallel.expert_tp for each in moe
        ),
        "kv_cache": float(np.max(cached)) if source else 0,
        "activations": _activation_bytes(
            model,
            tokens if source else 0,
            group_tokens,
            here,
            parallel.expert_tp,
            int(work.logit_rows.max(initial=0)) if source else 0,
        ),
        "exchange": max(
            exchange_bytes(
                cluster,
                precision,
                model.hidden_size,
                tokens_per_gpu=tokens,
                group_tokens=group_tokens,
                group_gpus=parallel.group_gpus,
                n_slots=n_slots,
                arriving=group_tokens * (1.0 - (1.0 - here) ** each.shape.top_k),
            )
            for each in moe
        ),
    }
    rounded = {name: round(value) for name, value in parts.items()}
    available = round(MEMORY_SHARE * cluster.gpu.memory_gb * 1e9)
    return {**rounded, "total": sum(rounded.values()), "available": available}


def check_memory(
    model: ModelShape,
    cluster: ClusterShape,
    precision: Precision,
    work: AttentionWork,
    *,
    slots_per_gpu: int,
    **others: Any,
) -> None:
    """Refuse what does not fit the memory of one GPU; arguments as of `memory_bytes`.

    Raises:
        TooLargeError: one sentence with the sums and the data types that they count.
    """
    need = memory_bytes(model, cluster, precision, work, slots_per_gpu=slots_per_gpu, **others)
    if need["total"] <= need["available"]:
        return
    gb = {name: f"{value / 1e9:,.1f} GB" for name, value in need.items()}
    weights = f"{(need['weights'] + need['experts']) / 1e9:,.1f} GB in {precision.weights}"
    gpus, each = ("1 GPU", "") if cluster.n_gpus == 1 else (f"{cluster.n_gpus} GPUs", " on each")
    raise TooLargeError(
        f"{model.name} does not fit in memory on {gpus}: needs {gb['total']}{each} (weights {weights} with "
        f"{slots_per_gpu} experts of each layer, KV cache {gb['kv_cache']} in {precision.kv_cache}, activations "
        f"{gb['activations']}, exchange buffers {gb['exchange']}), {gb['available']} are available "
        f"({100 * MEMORY_SHARE:.0f} % of the {cluster.gpu.memory_gb:.1f} GB of {cluster.gpu.name}); take more GPUs, "
        "fewer tokens, a shorter context, fewer redundant experts or narrower weights"
    )


def _weights(model: ModelShape, precision: Precision, shared: int) -> float:
    """Bytes of all weights but those of routed experts, where `shared` GPUs share the heads."""
    count, narrow = parameters(model), stored_bytes(precision.weights, precision.activations)
    whole = sum(len(each.indices) * _replicated(each.shape) for each in model.layers)
    attention = whole + (count["attention"] - whole) / shared
    others = count["router"] + count["embedding"]
    return (attention + count["dense"] + count["shared"]) * narrow + others * wide_bytes(precision)


def _replicated(layer: LayerShape) -> int:
    """Parameters of attention that every GPU holds that shares the heads: those of latents and of an indexer."""
    latent = layer.q_lora_rank + layer.kv_lora_rank + layer.qk_rope_head_dim if layer.attention == "mla" else 0
    return latent * layer.hidden_size + sum(n * k for n, k in index_projections(layer))


def _activation_bytes(
    model: ModelShape, tokens: int, group_tokens: int, here: float, expert_tp: int, logit_rows: int
) -> float:
    """Bytes of the layer that needs most, for the GPU's own tokens and the rows of its experts.

    The GPU has a share `here` of the slots, which the tokens of its group choose
    evenly; the width of each expert is cut into `expert_tp` parts.
    """
    inner = matrices(model) - 1
    widest = 0.0
    for each in model.layers:
        layer = each.shape
        columns = max(
            sum(n for n, _ in projections(layer)),
            (inner + 1) * layer.intermediate_size,
            (inner + 1) * layer.shared_intermediate_size,
        )
        width = -(-layer.moe_intermediate_size // expert_tp)
        routed = group_tokens * layer.top_k * here * (2 * layer.hidden_size + (inner + 1) * width)
        widest = max(widest, tokens * columns, routed)
    return 2.0 * (tokens * 2 * model.hidden_size + widest) + 4.0 * logit_rows * model.vocab_size
