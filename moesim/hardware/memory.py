"""Whether the model fits: parameters, and the bytes of one GPU."""

from __future__ import annotations

from moesim.errors import TooLargeError
from moesim.hardware.attention import cache_elements, projections
from moesim.hardware.constants import MEMORY_SHARE
from moesim.hardware.dense import head_rows
from moesim.hardware.expert import matrices, weight_bytes
from moesim.hardware.gpu import wide_bytes
from moesim.types import DTYPE_BYTES, ClusterShape, ModelShape, Parallelism, Precision


def parameters(model: ModelShape) -> dict[str, int]:
    """Parameters of the whole model by part, and their total.

    Matrices only: norms, biases and quantisation scales are left out (below
    0.1 % of any preset). Embedding and head are counted apart, as untied.
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
) -> dict[str, int]:
    """Bytes that one GPU needs, by part, their total, and `available`.

    Everything but the routed experts is on every GPU, or its part of the heads
    where they are shared; a latent cache, and the products down into latents,
    have none and are held by all who share.
    `experts` are all slots of the GPU, replicas included. `kv_cache` is
    the context of every sequence in decode, else the tokens of the step.
    `activations` are what is alive in one layer: the residual stream, the
    widest intermediate, the rows of the experts at their mean, the logits.

    Args:
        model: its widths.
        cluster: the GPU's memory.
        precision: data types of weights, activations and cache.
        slots_per_gpu: slots of one MoE layer on the fullest GPU.
        tokens_per_gpu: tokens of one step on a GPU; in decode one a sequence; 0 = it has experts and nothing else.
        context_tokens: cached tokens of a sequence in decode.
        sequence_tokens: tokens of a prompt in the other phases.
        phase: "decode", "prefill" or "train" (its forward pass).
        parallelism: who shares experts and heads; by default nobody.
    """
    parallel = parallelism or Parallelism(expert=cluster.n_gpus)
    shared = parallel.attention_tensor
    held = cache_elements(model) if model.attention == "mla" else 2 * -(-model.n_kv_heads // shared) * model.head_dim
    count, narrow, wide = (
        parameters(model),
        DTYPE_BYTES[precision.weights],
        wide_bytes(precision),
    )
    cached = tokens_per_gpu * shared * (context_tokens if phase == "decode" else 1)
    parts = {
        "weights": _weights(model, count, shared, narrow, wide) if tokens_per_gpu else 0,
        "experts": len(model.moe_layers) * slots_per_gpu * weight_bytes(model, precision) / parallel.expert_tensor,
        "kv_cache": model.n_layers * cached * held * DTYPE_BYTES[precision.kv_cache],
        "activations": _activation_bytes(model, tokens_per_gpu, head_rows(tokens_per_gpu, sequence_tokens, phase)),
    }
    rounded = {name: round(value) for name, value in parts.items()}
    available = round(MEMORY_SHARE * cluster.gpu.memory_gb * 1e9)
    return {**rounded, "total": sum(rounded.values()), "available": available}


def check_memory(
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
) -> None:
    """Refuse what does not fit the memory of one GPU; arguments as of `memory_bytes`.

    Raises:
        TooLargeError: one line with the sums.
    """
    need = memory_bytes(
        model,
        cluster,
        precision,
        slots_per_gpu=slots_per_gpu,
        tokens_per_gpu=tokens_per_gpu,
        context_tokens=context_tokens,
        sequence_tokens=sequence_tokens,
        phase=phase,
        parallelism=parallelism,
    )
    if need["total"] <= need["available"]:
        return
    gb = {name: f"{value / 1e9:,.1f}" for name, value in need.items()}
    raise TooLargeError(
        f"at most {gb['available']} GB a GPU ({MEMORY_SHARE:.0%} of the {cluster.gpu.memory_gb:g} GB of "
        f"{cluster.gpu.name}) where it needs {gb['total']} (weights {gb['weights']}, {slots_per_gpu} expert slots a "
        f"layer {gb['experts']}, KV cache {gb['kv_cache']}, activations {gb['activations']}): take more GPUs, fewer "
        "tokens, a shorter context or fewer redundant experts"
    )


def _weights(model: ModelShape, count: dict[str, int], shared: int, narrow: float, wide: float) -> float:
    """Bytes of all weights but those of routed experts, where `shared` GPUs share the heads."""
    latent = model.q_lora_rank + model.kv_lora_rank + model.qk_rope_head_dim if model.attention == "mla" else 0
    down = model.n_layers * latent * model.hidden_size
    attention = down + (count["attention"] - down) / shared
    return (attention + count["dense"] + count["shared"]) * narrow + (count["router"] + count["embedding"]) * wide


def _activation_bytes(model: ModelShape, tokens: int, logit_rows: int) -> float:
    inner = matrices(model) - 1
    widest = max(
        sum(n for n, _ in projections(model)),
        (inner + 1) * model.intermediate_size if model.dense_layers else 0,
        (inner + 1) * model.shared_intermediate_size,
    )
    routed = model.top_k * (2 * model.hidden_size + (inner + 1) * model.moe_intermediate_size)
    return 2.0 * tokens * (2 * model.hidden_size + max(widest, routed)) + 4.0 * logit_rows * model.vocab_size
