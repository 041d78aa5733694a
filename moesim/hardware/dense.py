"""Parts that are made of dense linear layers: feed-forward networks, router, head, and their sums over a node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.allreduce import allreduce_seconds
from moesim.hardware.constants.fitted import fitted
from moesim.hardware.elementwise import pass_seconds
from moesim.hardware.gemm import GemmConstants, product_seconds
from moesim.hardware.gpu import memory_bandwidth
from moesim.hardware.layer_kernels import DEFAULT, EVERY, LayerKernels
from moesim.types import DTYPE_BYTES, GpuSpec, LayerShape, ModelShape, Precision

Seconds = NDArray[np.float64]
Counts = NDArray[np.int64]

_WIDE_BYTES = 2.0


@dataclass(frozen=True, kw_only=True)
class FeedForwardConstants:
    """A gated network as one graph takes `launch_s` besides its products, and `passes` over what is between them."""

    launch_s: float = field(metadata=fitted(5e-6, 1e-7, 1e-3))
    passes: float = field(metadata=fitted(1.0, 0.01, 20.0))


def gemm_seconds(
    gpu: GpuSpec,
    rows: Counts,
    n: int,
    k: int,
    *,
    weights: str,
    activations: str,
    count: int = 1,
    kernels: LayerKernels = DEFAULT,
) -> Seconds:
    """Time of `count` products [rows, k] x [k, n] in one launch, one for each entry of `rows`; 0 rows take no time."""

    def formula(where: Any) -> Seconds:
        return product_seconds(
            kernels.linear(activations),
            gpu,
            np.asarray(rows)[where],
            float(n),
            float(k),
            weights=weights,
            activations=activations,
            count=float(count),
            sustained=kernels.throttled,
        )

    if count != 1:  # tables are of single products
        return formula(EVERY)
    return kernels.measured_or(formula, "gemm", kernels.linear_rows(weights, activations), (n, k), rows)


def elementwise_seconds(gpu: GpuSpec, rows: Counts, bytes_per_row: float, kernels: LayerKernels = DEFAULT) -> Seconds:
    """Seconds of one pass over `rows` rows of memory, for example of a norm or a residual sum."""
    return pass_seconds(kernels.elementwise(), gpu, rows, bytes_per_row)


def network_seconds(
    layer: LayerShape,
    gpu: GpuSpec,
    precision: Precision,
    rows: Counts,
    width: int,
    *,
    tensor_parallel: int = 1,
    kernels: LayerKernels = DEFAULT,
) -> Seconds:
    """Seconds of a feed-forward network of inner width `width`: up (and gate) as one product, the activation, down.

    Each of `tensor_parallel` GPUs has an equal part of the width; the sum over them takes `sum_seconds`.
    """
    weights, activations = precision.weights, precision.activations
    mine = -(-width // tensor_parallel)
    inputs = (2 if layer.gated else 1) * mine
    dtypes = {"weights": weights, "activations": activations, "kernels": kernels}
    up = gemm_seconds(gpu, rows, inputs, layer.hidden_size, **dtypes)  # type: ignore[arg-type]
    activation = elementwise_seconds(gpu, rows, 2.0 * inputs + DTYPE_BYTES[activations] * mine, kernels)
    down = gemm_seconds(gpu, rows, layer.hidden_size, mine, **dtypes)  # type: ignore[arg-type]
    return up + activation + down


def sum_seconds(
    layer: LayerShape, gpu: GpuSpec, rows: Counts, tensor_parallel: int, kernels: LayerKernels = DEFAULT
) -> Seconds:
    """Seconds of the bf16 all-reduce that adds up the parts of a tensor-parallel layer inside a node; 0 for one GPU."""
    elements = np.asarray(rows) * layer.hidden_size

    def formula(where: Any) -> Seconds:
        message = elements[where] * _WIDE_BYTES
        return allreduce_seconds(kernels.allreduce(), gpu, gpus=float(tensor_parallel), message=message)

    if tensor_parallel == 1:
        return formula(EVERY)
    return kernels.measured_or(formula, "allreduce", kernels.allreduce_rows(), (tensor_parallel,), elements)


def with_products(
    seconds: Seconds,
    gpu: GpuSpec,
    rows: Counts,
    products: Iterable[tuple[int, int]],
    precision: Precision,
    kernels: LayerKernels,
) -> Seconds:
    """`seconds` and the times of products [rows, k] x [k, n], each (n, k) a launch of its own."""
    for n, k in products:
        seconds = seconds + gemm_seconds(
            gpu, rows, n, k, weights=precision.weights, activations=precision.activations, kernels=kernels
        )
    return seconds


def feed_forward_seconds(
    constants: FeedForwardConstants,
    linear: GemmConstants,
    gpu: GpuSpec,
    rows: NDArray[np.float64],
    hidden: NDArray[np.float64],
    width: NDArray[np.float64],
    *,
    weights: str,
    activations: str,
) -> Seconds:
    """Seconds of a gated network as tables time it: two products, and passes over what is between them.

    All arguments that are arrays broadcast.
    """
    product = partial(product_seconds, linear, gpu, rows, weights=weights, activations=activations, sustained=False)
    moved = constants.passes * rows * (hidden + 3 * width) * _WIDE_BYTES
    seconds = constants.launch_s + product(2 * width, hidden) + product(hidden, width) + moved / memory_bandwidth(gpu)
    return np.asarray(np.where(rows > 0, seconds, 0.0))


def router_seconds(layer: LayerShape, gpu: GpuSpec, rows: Counts, kernels: LayerKernels = DEFAULT) -> Seconds:
    """Seconds of the gate's product, in bf16 as published, and of one pass that picks its float32 top k."""
    gate = gemm_seconds(
        gpu, rows, layer.n_experts, layer.hidden_size, weights="bf16", activations="bf16", kernels=kernels
    )
    return gate + elementwise_seconds(gpu, rows, 4.0 * layer.n_experts + 8.0 * layer.top_k, kernels)


def latent_projection_seconds(
    layer: LayerShape, gpu: GpuSpec, precision: Precision, rows: Counts, kernels: LayerKernels = DEFAULT
) -> Seconds:
    """Seconds of the products of every token into the width of the experts and back, 0 where that is the hidden size.

    Source: NVIDIA Nemotron 3 (2025), latent MoE.
    """
    seconds = np.zeros(len(rows))
    if not layer.moe_latent_size:
        return seconds
    for n, k in ((layer.moe_latent_size, layer.hidden_size), (layer.hidden_size, layer.moe_latent_size)):
        seconds = seconds + gemm_seconds(
            gpu, rows, n, k, weights=precision.weights, activations=precision.activations, kernels=kernels
        )
    return seconds


def head_seconds(model: ModelShape, gpu: GpuSpec, rows: Counts, kernels: LayerKernels = DEFAULT) -> Seconds:
    """Seconds of the last norm and the product with the vocabulary, in bf16, for rows whose next token is wanted."""
    norm = elementwise_seconds(gpu, rows, 4.0 * model.hidden_size, kernels)
    return norm + gemm_seconds(
        gpu, rows, model.vocab_size, model.hidden_size, weights="bf16", activations="bf16", kernels=kernels
    )
