"""Whether the model fits: the bytes of one GPU."""

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
from moesim.hardware.parameters import parameter_count
from moesim.hardware.sizes import cache_bytes, projections
from moesim.types import WEIGHT_PARTS, AttentionWork, ClusterShape, LayerShape, ModelShape, Parallelism, Precision


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
                model.expert_hidden_size,
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
    narrower = sorted(set(model.part_dtypes.values()) - {precision.weights})
    weights = f"{(need['weights'] + need['experts']) / 1e9:,.1f} GB in {' and '.join([precision.weights, *narrower])}"
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
    count: dict[str, float] = {**parameter_count(model)}
    each = part_bytes(model, precision)
    whole = sum(len(own.indices) * _replicated(own.shape) for own in model.layers)
    count["attention"] = whole + (count["attention"] - whole) / shared
    return sum(count[part] * each[part] for part in each if part != "experts")


def part_bytes(model: ModelShape, precision: Precision) -> dict[str, float]:
    """Bytes of a stored weight of each part, with its share of the scales, as `parameter_count` names the parts.

    Router, embeddings and encoders of images are not quantised, unless the model says so.
    """
    narrow, wide = stored_bytes(precision.weights, precision.activations), wide_bytes(precision)
    usual = {**dict.fromkeys(WEIGHT_PARTS, narrow), "router": wide, "embeddings": wide, "vision": wide}
    return {**usual, **{part: stored_bytes(own, precision.activations) for part, own in model.part_dtypes.items()}}


def _replicated(layer: LayerShape) -> int:
    """Parameters of attention that every GPU holds that shares the heads: those of latents and of an indexer."""
    latent = 0
    if layer.attention in ("mla", "gqa", "compressed"):
        latent = layer.q_lora_rank
    if layer.attention == "mla":
        latent += layer.kv_lora_rank + layer.qk_rope_head_dim
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
            sum(n for n, _ in projections(layer)),  # 0 of a layer without attention
            (inner + 1) * layer.intermediate_size,
            (inner + 1) * layer.shared_intermediate_size,
        )
        width = -(-layer.moe_intermediate_size // expert_tp)
        routed = group_tokens * layer.top_k * here * (2 * layer.expert_hidden_size + (inner + 1) * width)
        widest = max(widest, tokens * columns, routed)
    return (
        2.0 * (tokens * 2 * model.residual_streams * model.hidden_size + widest) + 4.0 * logit_rows * model.vocab_size
    )
