"""Dense linear layers: one formula, and what is made of it: feed-forward networks, router, head."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.constants import (
    ELEMENTWISE_BANDWIDTH_SHARE,
    ELEMENTWISE_LAUNCH_S,
    GEMM,
)
from moesim.hardware.gpu import memory_bandwidth, peak_flops
from moesim.types import DTYPE_BYTES, GpuSpec, ModelShape, Precision

Seconds = NDArray[np.float64]
Counts = NDArray[np.int64]


def gemm_seconds(
    gpu: GpuSpec,
    rows: Counts,
    n: int,
    k: int,
    *,
    weights: str,
    activations: str,
    count: int = 1,
) -> Seconds:
    """Time of `count` products [rows, k] x [k, n] in one launch, one for each entry of `rows`; 0 rows take no time.

    launch + k x time of the main loop + norm(tiled FLOPs / peak, bytes / bandwidth).
    Outputs are written in two bytes, whatever the inputs are.
    """
    tiled = -(-rows // GEMM.tile_tokens) * GEMM.tile_tokens
    compute = 2.0 * count * n * k * tiled / (GEMM.compute_share * peak_flops(gpu, activations))
    moved = count * (n * k * DTYPE_BYTES[weights] + rows * (k * DTYPE_BYTES[activations] + 2.0 * n))
    stream = moved / (GEMM.bandwidth_share * memory_bandwidth(gpu))
    return np.where(
        rows > 0,
        GEMM.launch_s + GEMM.per_k_s * k + join(compute, stream, GEMM.norm),
        0.0,
    )


def join(compute: NDArray[np.floating[Any]], stream: NDArray[np.floating[Any]], norm: float) -> Seconds:
    """Computing and streaming together, both in seconds: between their maximum and their sum."""
    longer, shorter = np.maximum(compute, stream), np.minimum(compute, stream)
    ratio = np.divide(shorter, longer, out=np.zeros_like(longer), where=longer > 0)
    return np.asarray(longer * (1.0 + ratio**norm) ** (1.0 / norm), dtype=np.float64)


def elementwise_seconds(gpu: GpuSpec, rows: Counts, bytes_per_row: float) -> Seconds:
    """One pass over `rows` rows of memory, for example a norm or a residual sum."""
    bandwidth = ELEMENTWISE_BANDWIDTH_SHARE * memory_bandwidth(gpu)
    return np.where(rows > 0, ELEMENTWISE_LAUNCH_S + rows * bytes_per_row / bandwidth, 0.0)


def network_seconds(model: ModelShape, gpu: GpuSpec, precision: Precision, rows: Counts, width: int) -> Seconds:
    """A feed-forward network of inner width `width`: up (and gate) as one product, the activation, down."""
    weights, activations = precision.weights, precision.activations
    inputs = (2 if model.gated else 1) * width
    up = gemm_seconds(gpu, rows, inputs, model.hidden_size, weights=weights, activations=activations)
    activation = elementwise_seconds(gpu, rows, 2.0 * inputs + DTYPE_BYTES[precision.activations] * width)
    down = gemm_seconds(gpu, rows, model.hidden_size, width, weights=weights, activations=activations)
    return up + activation + down


def router_seconds(model: ModelShape, gpu: GpuSpec, rows: Counts) -> Seconds:
    """The gate's product, in bf16 as published, and one pass that picks the top k of its float32 scores."""
    gate = gemm_seconds(
        gpu,
        rows,
        model.n_experts,
        model.hidden_size,
        weights="bf16",
        activations="bf16",
    )
    return gate + elementwise_seconds(gpu, rows, 4.0 * model.n_experts + 8.0 * model.top_k)


def head_rows(tokens: int, sequence_tokens: int, phase: str) -> int:
    """Rows of the vocabulary product: every token in decode and training, the last of each prompt in prefill."""
    return -(-tokens // sequence_tokens) if phase == "prefill" else tokens


def head_seconds(model: ModelShape, gpu: GpuSpec, rows: Counts) -> Seconds:
    """The last norm and the product with the vocabulary, in bf16, for the rows whose next token is wanted."""
    norm = elementwise_seconds(gpu, rows, 4.0 * model.hidden_size)
    return norm + gemm_seconds(
        gpu,
        rows,
        model.vocab_size,
        model.hidden_size,
        weights="bf16",
        activations="bf16",
    )
