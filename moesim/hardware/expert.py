"""The grouped GEMMs of the experts that live on one rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.constants import EXPERT, EXPERT_OTHERWISE, ExpertConstants
from moesim.hardware.gemm import join
from moesim.hardware.gpu import memory_bandwidth, peak_flops
from moesim.types import DTYPE_BYTES, GpuSpec, ModelShape, Precision


def expert_seconds(
    model: ModelShape,
    gpu: GpuSpec,
    precision: Precision,
    slot_tokens: NDArray[np.int64],
    slot_rank: NDArray[np.int32],
    n_ranks: int,
    *,
    constants: ExpertConstants | None = None,
) -> NDArray[np.float64]:
    """Time of the experts of each layer and rank, seconds [L, G]; a rank without tokens takes none.

    launch + time per active expert + activations / bandwidth + norm(tiled
    FLOPs / peak, weights of the active experts / bandwidth). An expert is
    active with its first token: weights nobody asks for are not read, which
    is why imbalance can be cheap where weights dominate.

    Args:
        model: widths of the experts.
        gpu: its published peaks.
        precision: data types of weights and activations.
        slot_tokens: assignments processed by each slot, [L, S].
        slot_rank: GPU of each slot, [S].
        n_ranks: G.
        constants: instead of the shipped ones, to fit them.
    """
    c = constants or EXPERT.get(precision.activations, EXPERT_OTHERWISE)
    tiles = -(-slot_tokens // c.tile_tokens)
    active = _by_rank(slot_tokens > 0, slot_rank, n_ranks)
    tokens = _by_rank(slot_tokens, slot_rank, n_ranks)
    rows = _by_rank(tiles, slot_rank, n_ranks) * c.tile_tokens

    bandwidth = memory_bandwidth(gpu)
    compute = rows * flops_per_assignment(model) / (c.compute_share * peak_flops(gpu, precision.activations))
    stream = active * weight_bytes(model, precision) / (c.bandwidth_share * bandwidth)
    traffic = tokens * traffic_bytes(model, precision) / (c.traffic_share * bandwidth)
    seconds = c.launch_s + c.per_expert_s * active + traffic + join(compute, stream, c.norm)
    return np.where(tokens > 0, seconds, 0.0)


def matrices(model: ModelShape) -> int:
    """Matrices of one network: gate, up and down, or up and down."""
    return 3 if model.gated else 2


def flops_per_assignment(model: ModelShape) -> float:
    """FLOPs of one token in one expert."""
    return 2.0 * matrices(model) * model.hidden_size * model.moe_intermediate_size


def weight_bytes(model: ModelShape, precision: Precision) -> float:
    """Bytes of one expert's weights."""
    return matrices(model) * model.hidden_size * model.moe_intermediate_size * DTYPE_BYTES[precision.weights]


def traffic_bytes(model: ModelShape, precision: Precision) -> float:
    """Bytes that one assignment moves beside the weights.

    Read the token, write the inner products in two bytes, read them and write
    the activation, read that, write the output in two bytes.
    """
    narrow = DTYPE_BYTES[precision.activations]
    inner = model.moe_intermediate_size
    return model.hidden_size * (narrow + 2.0) + (matrices(model) - 1) * inner * 4.0 + 2.0 * narrow * inner


def _by_rank(
    slots: NDArray[np.int64] | NDArray[np.bool_],
    slot_rank: NDArray[np.int32],
    n_ranks: int,
) -> NDArray[np.float64]:
    """Sum over the slots of each rank, [L, S] -> [L, G]; whole numbers stay exact in float64 below 2^53."""
    n_layers = slots.shape[0]
    key = np.arange(n_layers)[:, None] * n_ranks + slot_rank
    sums = np.bincount(key.ravel(), weights=slots.ravel(), minlength=n_layers * n_ranks)
    return sums.astype(np.float64, copy=False).reshape(n_layers, n_ranks)
