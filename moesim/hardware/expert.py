"""How long the experts of one rank take: grouped GEMMs, and what their kernels do around these.

Source of the form: chosen on part of the measured layers of H100 (moesim.calibration.fit_experts).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.hardware.constants import document
from moesim.hardware.constants.fitted import POSITIVE, TILE, fitted, given
from moesim.hardware.gpu import memory_bandwidth, peak_flops, throttling
from moesim.hardware.kernel_dtypes import KernelDtype, stored_bytes
from moesim.hardware.p_norm import p_norm
from moesim.types import GpuSpec, LayerShape, Precision

Seconds = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ExpertConstants:
    """The constants of one kernel; effective, not physical: a share may absorb what the formula leaves out.

    Seconds: `launch_s` of a layer, `ranks_launch_s` in addition if experts are
    spread over ranks, `serial_s` for each element of the hidden size (loops that
    overlap with nothing), `per_expert_s` for each active expert, `scan_s` for each
    expert of the rank (the search for active ones, which overlaps with the work by
    the p-norm `scan_norm`), `per_choice_s` for each choice of a token that the
    rank received.

    Traffic, in bytes at the memory bandwidth: `token_hidden` for each token that
    the rank received and element of the hidden size; `choice_hidden` and
    `choice_inner` for each of its choices, wherever they go, and hidden or inner
    element; `row_hidden` and `row_inner` for each row that the rank computes. Bytes
    beyond MOVED_BYTES an element, which the memory does not see, are work of the
    SMs at `sm_bytes_per_s` each: faster memory does not speed it up.

    Products: `bandwidth_share` and `compute_share` of the peaks; `throttle`, the
    part of the latter that the power limit takes; `hottest_share`, how far the most
    loaded expert's computing waits for its own weights instead of running while
    other weights are read; `restream`, the part of an expert's weights that each
    tile of rows after its first reads again; `norm`, the p-norm of computing and
    streaming; `tile_low` and `tile_high`, rows of the smallest and largest tile.
    """

    launch_s: float = field(metadata=fitted(17e-6, 1e-6, 2e-4))
    ranks_launch_s: float = field(metadata=fitted(2e-6, 1e-9, 3e-5))
    serial_s: float = field(metadata=fitted(1.8e-9, 1e-12, 1e-8))
    per_expert_s: float = field(metadata=fitted(0.08e-6, 1e-10, 1e-5))
    scan_s: float = field(metadata=fitted(0.1e-6, 1e-10, 2e-6))
    scan_norm: float = field(metadata=fitted(1.5, 1.0, 8.0, POSITIVE))
    per_choice_s: float = field(metadata=fitted(3e-10, 1e-14, 1e-7))
    token_hidden: float = field(metadata=fitted(1.0, 1e-3, 50.0))
    choice_hidden: float = field(metadata=fitted(0.5, 1e-3, 50.0))
    choice_inner: float = field(metadata=fitted(0.5, 1e-3, 50.0))
    row_hidden: float = field(metadata=fitted(8.0, 1e-2, 80.0))
    row_inner: float = field(metadata=fitted(8.0, 1e-2, 80.0))
    bandwidth_share: float = field(metadata=fitted(0.9, 0.05, 1.0, POSITIVE))
    compute_share: float = field(metadata=fitted(0.8, 0.1, 1.0, POSITIVE))
    throttle: float = 0.0
    hottest_share: float = field(metadata=fitted(0.05, 1e-4, 10.0))
    restream: float = field(metadata=fitted(0.15, 1e-4, 1.0))
    norm: float = field(metadata=fitted(3.0, 1.0, 12.0, POSITIVE))
    tile_low: float = field(default=16.0, metadata=given(TILE))
    tile_high: float = field(default=128.0, metadata=given(TILE))
    sm_bytes_per_s: float = field(default=3352e9 / 132, metadata=given(POSITIVE))


GATED = 3
"""Matrices of a gated network. The constants were fitted on such networks."""

MAX_TOKENS = 2**40
"""The largest load of an expert: int64 holds the sum over all experts."""

MOVED_BYTES = 12.0
"""Bytes of each element of a row that pass through memory: permute 2 + 2, quantise 2 + 1, read 1, write 2, sum 2."""


@dataclass(frozen=True, kw_only=True)
class ExpertShape:
    """The part of an MoE layer that one rank holds, in numbers or arrays that broadcast to the rows of a table.

    `inner_size` is that of one expert after tensor-parallel slicing,
    `n_experts` and `top_k` are of the whole layer, `n_ranks` share its experts
    evenly, `matrices` is 3 for gated networks, else 2.
    """

    hidden_size: Any
    inner_size: Any
    n_experts: Any
    top_k: Any
    n_ranks: Any = 1
    matrices: Any = GATED

    @classmethod
    def of(cls, layer: LayerShape, *, n_ranks: int = 1, tensor_parallel: int = 1) -> ExpertShape:
        """The experts of a layer spread over `n_ranks`, each sliced over `tensor_parallel` GPUs."""
        return cls(
            hidden_size=layer.expert_hidden_size,
            inner_size=-(-layer.moe_intermediate_size // tensor_parallel),
            n_experts=layer.n_experts,
            top_k=layer.top_k,
            n_ranks=n_ranks,
            matrices=matrices(layer),
        )


@dataclass(frozen=True, kw_only=True)
class Load:
    """Sums over the experts of a rank, arrays of one shape.

    `active` is the number of experts with a token, `rows` that of assignments,
    `padded` that of rows that are computed, for each active expert at least one
    tile; `extra_tiles` are those after the first of each expert, `max_load` is the
    largest load.
    """

    active: Any
    rows: Any
    padded: Any
    extra_tiles: Any
    max_load: Any


def summarize(tokens_per_expert: NDArray[np.int64], mean_load: ArrayLike | None, tiles_of: tuple[float, float]) -> Load:
    """The sums of the loads [N, E] of N ranks for a kernel with this smallest and largest tile.

    Libraries choose one tile for all experts by the mean load of the batch, [N]
    or one number. Without a mean load every expert has the tile that suits it.
    """
    from moesim.compiled import tiles

    n = len(tokens_per_expert)
    if mean_load is None:
        row_tile, weight_tile = (np.full(n, tile) for tile in tiles_of)
    else:
        row_tile = weight_tile = np.ascontiguousarray(np.broadcast_to(tile_of(mean_load, tiles_of), (n,)))
    out = np.empty((5, n))
    tiles.summarize(tokens_per_expert, row_tile, weight_tile, out)
    return Load(active=out[0], rows=out[1], padded=out[2], extra_tiles=out[3], max_load=out[4])


def tile_of(mean_load: ArrayLike, tiles: tuple[float, float]) -> NDArray[np.float64]:
    """The tile that suits the mean load: as many rows, from the smallest to the largest that the kernel has.

    Libraries have a few tiles, mostly powers of two, and switch among them at
    token counts that differ by library, version and tuning. Measured layers
    whose mean loads lie between powers of two show no step where one is
    passed, so the tile follows the mean load without steps.
    """
    return np.asarray(np.clip(np.asarray(mean_load, dtype=np.float64), *tiles))


def expert_time(
    load: Load,
    shape: ExpertShape,
    tokens: ArrayLike,
    gpu: GpuSpec,
    dtype: KernelDtype,
    constants: ExpertConstants,
    *,
    sustained: bool = True,
) -> Seconds:
    """Seconds of the experts of one rank and layer, in the shape of the load; 0 if there is no row.

    launch + serial + time per active expert and choice + traffic / bandwidth
    + norm(norm(FLOPs of the padded rows / peak, weights of the active experts / bandwidth) + wait, search for them).
    Computing hides behind the reading of other experts' weights; an expert's
    own must come first. So the most loaded expert adds a wait, a share of the
    shorter of its two times (half their harmonic mean, which has no corner).
    Every term grows at most in proportion to the load, so that a batch is
    never slower than the parts that it is split into.

    Args:
        load: of each rank.
        shape: of the experts; numbers or arrays that broadcast to the load.
        tokens: that the rank received, each of which makes `top_k` choices.
        gpu: its published peaks.
        dtype: of the operands.
        constants: of the kernel.
        sustained: whether the GPU is at its power limit; else the layer was timed alone.
    """
    c, bandwidth = constants, memory_bandwidth(gpu)
    hidden, inner = shape.hidden_size, shape.inner_size
    between = inner * (np.asarray(shape.matrices) / GATED)  # without a gate one width less is written and read
    choices = np.asarray(tokens) * shape.top_k
    fixed = c.launch_s + c.ranks_launch_s * (np.asarray(shape.n_ranks) > 1) + c.serial_s * hidden
    traffic = (
        _moved(c.token_hidden, hidden * np.asarray(tokens), gpu, c)
        + _moved(c.choice_hidden, hidden * choices, gpu, c)
        + _moved(c.row_hidden, hidden * load.rows, gpu, c)
        + _moved(c.choice_inner, between * choices, gpu, c)
        + _moved(c.row_inner, between * load.rows, gpu, c)
    )
    weights = shape.matrices * hidden * inner
    peak = peak_flops(gpu, dtype.compute)
    slower = throttling(load.rows * (2.0 * weights) / peak, c.throttle, sustained=sustained)
    row_s = (2.0 * weights) / (c.compute_share * peak) * slower
    weights_s = weights * dtype.weight_bytes / (c.bandwidth_share * bandwidth)
    products = p_norm(load.padded * row_s, (load.active + c.restream * load.extra_tiles) * weights_s, c.norm)
    hottest_s = load.max_load * row_s
    products = products + c.hottest_share * hottest_s * weights_s / (hottest_s + weights_s)
    search = c.scan_s * np.asarray(shape.n_experts / shape.n_ranks) + np.zeros_like(products)
    seconds = fixed + c.per_expert_s * load.active + c.per_choice_s * choices + traffic
    return np.where(load.rows > 0, seconds + p_norm(products, search, c.scan_norm), 0.0)


def _moved(bytes_each: float, elements: Any, gpu: GpuSpec, constants: ExpertConstants) -> Any:
    """Seconds of moving elements: the memory's part and that of the SMs."""
    memory = min(bytes_each, MOVED_BYTES) / memory_bandwidth(gpu)
    return elements * (memory + max(0.0, bytes_each - MOVED_BYTES) / (constants.sm_bytes_per_s * gpu.n_sms))


def tokens_per_row(shape: ExpertShape) -> Any:
    """Distinct tokens for each row of a rank if choices are spread evenly: T (1 - (1 - 1/R)^K) of T K / R rows."""
    ranks, top_k = shape.n_ranks, shape.top_k
    return ranks / top_k * (1.0 - (1.0 - 1.0 / ranks) ** top_k)


def calibrated_gpu() -> GpuSpec:
    """The GPU that the constants of the experts were fitted on."""
    return GpuSpec(**document("experts")["gpu"])


def matrices(layer: LayerShape) -> int:
    """Matrices of one network: gate, up and down, or up and down."""
    return GATED if layer.gated else GATED - 1


def weight_bytes(layer: LayerShape, precision: Precision) -> float:
    """Bytes of one expert's weights, with their scales."""
    each = stored_bytes(precision.weights, precision.activations)
    return matrices(layer) * layer.expert_hidden_size * layer.moe_intermediate_size * each
