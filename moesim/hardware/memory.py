"""Whether the model fits: parameters, and the bytes of one GPU."""

from __future__ import annotations

from typing import Any

from moesim.errors import TooLargeError
from moesim.hardware.attention import cache_elements, projections
from moesim.hardware.buffers import exchange_bytes
from moesim.hardware.constants import MEMORY_SHARE
from moesim.hardware.dense import head_rows
from moesim.hardware.expert import matrices, weight_bytes
from moesim.hardware.gpu import wide_bytes
from moesim.hardware.kernel_dtypes import stored_bytes
from moesim.types import DTYPE_BYTES, ClusterShape, ModelShape, Parallelism, Precision


def parameters(model: ModelShape) -> dict[str, int]:
    """Parameters of the whole model by part, and their total.

    Matrices only: norms and biases are left out (below 0.1 % of any preset).
    Embedding and head are counted apart, as untied.
    """
    hidden, n_moe, factor = model.hidden_size, len(model.moe_layers), matrices(model)
    parts = {
        "attention": model.n_layers * sum(n * k for n, k in projections(model)),
        "dense": len(model.dense_layers) * factor * hidden * model.intermediate_size,
        "shared": n_moe * factor * hidden * model.shared_intermediate_size if model.n_shared_experts else 0,
        "experts": n_moe * model.n_experts * factor * hidden * model.moe_intermediate_size,
        "router": n_moe * hidden * model.n_experts,
        "embedding": 2 * model.vocab_size * hidden,
    }
    return {**parts, "total": sum(parts.values())}


def memory_bytes(
    model: ModelShape,
    cluster: ClusterShape,
    precision: Precision,
    *,
    slots_per_gpu: int,
    tokens_per_gpu: int,
    context_tokens: int,
    sequence_tokens: int,
    phase: str,
    parallelism: Parallelism | None = None,
    n_slots: int | None = None,
    n_sources: int | None = None,
    source: bool = True,
) -> dict[str, int]:
    """Bytes that one GPU needs, by part, their total, and `available`.

    Everything but the routed experts is on every GPU that has tokens, or its
    part of the heads where they are shared; a latent cache, and the products
    down into latents, have none and are held by all who share.
    `experts` are all slots of the GPU, replicas included. `kv_cache` is
    the context of every sequence in decode, else the tokens of the step.
    `activations` are what is alive in one layer: the residual stream, the
    widest intermediate, the rows of the experts at their mean, the logits.
    `exchange` is what dispatch and combine keep (`moesim.hardware.buffers`).

    Args:
        model: its widths.
        cluster: the GPU's memory, and the network.
        precision: data types of weights, activations and cache.
        slots_per_gpu: slots of one MoE layer on the GPU.
        tokens_per_gpu: tokens of one step on each GPU that has some; in decode one a sequence.
        context_tokens: cached tokens of a sequence in decode.
        sequence_tokens: tokens of a prompt in the other phases.
        phase: "decode", "prefill" or "train" (its forward pass).
        parallelism: who shares experts and heads; by default nobody.
        n_slots: slots of one MoE layer in an expert-parallel group; by default as many on every rank.
        n_sources: GPUs of a group that have tokens; by default all.
        source: whether this GPU is one of them, or has experts and nothing else.
    """
    parallel = parallelism or Parallelism(expert=cluster.n_gpus)
    shared = parallel.attention_tp
    own = tokens_per_gpu if source else 0
    group_tokens = tokens_per_gpu * (parallel.group_gpus if n_sources is None else n_sources)
    n_slots = n_slots or max(1, slots_per_gpu * parallel.expert)
    here = slots_per_gpu / n_slots
    held = cache_elements(model) if model.attention == "mla" else 2 * -(-model.n_kv_heads // shared) * model.head_dim
    count, narrow, wide = (
        parameters(model),
        stored_bytes(precision.weights, precision.activations),
        wide_bytes(precision),
    )
    cached = own * shared * (context_tokens if phase == "decode" else 1)
    parts = {
        "weights": _weights(model, count, shared, narrow, wide) if source else 0,
        "experts": len(model.moe_layers) * slots_per_gpu * weight_bytes(model, precision) / parallel.expert_tp,
        "kv_cache": model.n_layers * cached * held * DTYPE_BYTES[precision.kv_cache],
        "activations": _activation_bytes(
            model,
            own,
            group_tokens * model.top_k * here,
            -(-model.moe_intermediate_size // parallel.expert_tp),
            head_rows(own, sequence_tokens, phase),
        ),
        "exchange": exchange_bytes(
            cluster,
            precision,
            model.hidden_size,
            tokens_per_gpu=tokens_per_gpu,
            group_tokens=group_tokens,
            group_gpus=parallel.group_gpus,
            n_slots=n_slots,
            arriving=group_tokens * (1.0 - (1.0 - here) ** model.top_k),
        ),
    }
    rounded = {name: round(value) for name, value in parts.items()}
    available = round(MEMORY_SHARE * cluster.gpu.memory_gb * 1e9)
    return {**rounded, "total": sum(rounded.values()), "available": available}


def check_memory(
    model: ModelShape, cluster: ClusterShape, precision: Precision, *, slots_per_gpu: int, **workload: Any
) -> None:
    """Refuse what does not fit the memory of one GPU; arguments as of `memory_bytes`.

    Raises:
        TooLargeError: one sentence with the sums and the data types that they count.
    """
    need = memory_bytes(model, cluster, precision, slots_per_gpu=slots_per_gpu, **workload)
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


def _weights(model: ModelShape, count: dict[str, int], shared: int, narrow: float, wide: float) -> float:
    """Bytes of all weights but those of routed experts, where `shared` GPUs share the heads."""
    latent = model.q_lora_rank + model.kv_lora_rank + model.qk_rope_head_dim if model.attention == "mla" else 0
    down = model.n_layers * latent * model.hidden_size
    attention = down + (count["attention"] - down) / shared
    return (attention + count["dense"] + count["shared"]) * narrow + (count["router"] + count["embedding"]) * wide


def _activation_bytes(model: ModelShape, tokens: int, expert_rows: float, expert_width: int, logit_rows: int) -> float:
    """Bytes of one layer for the GPU's own tokens and the rows of its experts, each of a width."""
    inner = matrices(model) - 1
    widest = max(
        sum(n for n, _ in projections(model)),
        (inner + 1) * model.intermediate_size if model.dense_layers else 0,
        (inner + 1) * model.shared_intermediate_size,
    )
    routed = expert_rows * (2 * model.hidden_size + (inner + 1) * expert_width)
    return 2.0 * (tokens * 2 * model.hidden_size + max(tokens * widest, routed)) + 4.0 * logit_rows * model.vocab_size
