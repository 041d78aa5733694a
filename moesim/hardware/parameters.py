"""How many parameters a model has, and how many of them compute a token."""

from __future__ import annotations

from moesim.hardware.expert import matrices
from moesim.hardware.sizes import projections
from moesim.types import LayerShape, ModelShape


def parameter_count(model: ModelShape) -> dict[str, int]:
    """Parameters of the whole model by part (those of `WEIGHT_PARTS`, and "vision"), their total, and the active ones.

    Matrices only: norms and biases are left out (below 0.3 % of any preset).
    "shared" has the products into and out of the width of the experts where that
    is not the hidden size. "embeddings" are the embedding and the head, which are
    one matrix where they are tied.

    "active" is everything but the experts that a token does not choose, as
    publishers count it. Of a model with experts that compute nothing it is the
    mean where all experts are chosen equally often.
    """
    parts = dict.fromkeys(("attention", "dense", "shared", "experts", "router"), 0)
    idle = 0.0
    for each in model.layers:
        own, n = _layer_parameters(each.shape), len(each.indices)
        for part, count in own.items():
            parts[part] += n * count
        if each.shape.n_experts:
            all_scored = each.shape.n_experts + each.shape.n_zero_experts
            idle += n * own["experts"] * (1.0 - each.shape.top_k / all_scored)
    parts["embeddings"] = (1 if model.tied_embeddings else 2) * model.vocab_size * model.hidden_size
    parts["vision"] = model.vision_parameters
    total = sum(parts.values())
    return {**parts, "total": total, "active": round(total - idle)}


def _layer_parameters(layer: LayerShape) -> dict[str, int]:
    network = matrices(layer) * layer.hidden_size
    return {
        "attention": sum(n * k for n, k in projections(layer)),
        "dense": network * layer.intermediate_size,
        "shared": (network * layer.shared_intermediate_size if layer.n_shared_experts else 0)
        + 2 * layer.hidden_size * layer.moe_latent_size,
        "experts": layer.n_experts * matrices(layer) * layer.expert_hidden_size * layer.moe_intermediate_size,
        "router": layer.hidden_size * (layer.n_experts + layer.n_zero_experts),
    }
