"""One dense linear layer: tiles dealt to the SMs in waves, weights streamed from memory, activations quantised.

    launch + k x per_k + quantisation + norm(tiles, bytes / bandwidth)

The tiles are the best entry of a small menu, as libraries choose it: a tile's
rows and columns, and over how many SMs the sum over k is split. Rates are
shares of the published peaks, an SM has an equal part of the GPU's. All
arguments are arrays or numbers that broadcast, in SI units; constants are
fitted by `moesim.calibration.layouts.gemm`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.constants.fitted import POSITIVE, THROTTLE, Limits, fitted
from moesim.hardware.gpu import memory_bandwidth, peak_flops, sm_loads, stream_seconds, throttling, wide_sm_efficiency
from moesim.hardware.kernel_dtypes import is_narrow, stored_bytes
from moesim.hardware.p_norm import p_norm
from moesim.types import DTYPE_BYTES, GpuSpec

Array = NDArray[np.float64]
Numbers = NDArray[Any] | float

_TILES = ((64, 64), (64, 128), (128, 128), (128, 256))
# Libraries that look at the rows only: the tile of up to so many rows (vLLM's and SGLang's CUTLASS dispatch of FP8).
_BY_ROWS = ((64.0, (64, 64)), (128.0, (64, 128)), (np.inf, (128, 128)))
_OUTPUT_BYTES = 2.0
# A pass of the quantisation reads two bytes and writes one.
_QUANTISE_BYTES = 3.0


@dataclass(frozen=True, kw_only=True)
class GemmConstants:
    """Constants of one library and data type.

    The kernels take `launch_s` to launch, and the serial main loop `per_k_s` for
    each input element. Products run at `compute_share` of the published peak on an
    SM as wide as H100's, of which the power limit takes the part `throttle`;
    bytes move at `bandwidth_share` of the published bandwidth. The start and the
    end of a tile take `tile_s`. Up to `max_split` SMs share a tile, whose sums over
    the parts of k take `split_s` to add. Tiles have up to `widest_tile` columns, and
    follow from the rows alone where `by_rows` is 1.

    Inputs and outputs are moved `activation_passes` times. The kernel that narrows
    the input makes `quantise_passes` passes over it, takes `quantise_row_s` for
    each row, and is `cache_speedup` times faster while its data fit the L2 cache.
    Tiles and bytes overlap by the p-norm of `norm`.
    """

    launch_s: float = field(metadata=fitted(3e-6, 5e-7, 2e-5))
    per_k_s: float = field(metadata=fitted(3e-10, 1e-12, 1e-8))
    compute_share: float = field(metadata=fitted(0.8, 0.3, 1.0, POSITIVE))
    throttle: float = field(default=0.0, metadata=THROTTLE)
    bandwidth_share: float = field(metadata=fitted(0.9, 0.5, 1.0, POSITIVE))
    tile_s: float = field(metadata=fitted(3e-7, 1e-9, 1e-5))
    split_s: float = field(metadata=fitted(1e-6, 1e-8, 1e-4))
    max_split: float = field(metadata=fitted(1.0, 1.0, 8.0, Limits(minimum=1.0)))
    widest_tile: float = field(metadata=fitted(128.0, 64.0, 256.0, Limits(minimum=64.0)))
    by_rows: float = field(metadata=fitted(0.0, 0.0, 1.0))
    activation_passes: float = field(metadata=fitted(1.0, 0.3, 5.0))
    quantise_passes: float = field(metadata=fitted(1.0, 1e-3, 5.0))
    quantise_row_s: float = field(metadata=fitted(1e-9, 1e-13, 2e-8))
    cache_speedup: float = field(metadata=fitted(1.5, 1.0, 4.0, POSITIVE))
    norm: float = field(metadata=fitted(3.0, 1.0, 20.0, POSITIVE))


def product_seconds(
    constants: GemmConstants,
    gpu: GpuSpec,
    rows: Numbers,
    n: Numbers,
    k: Numbers,
    *,
    weights: str,
    activations: str,
    count: Numbers = 1.0,
    resident: NDArray[np.bool_] | bool = False,
    sustained: bool = True,
) -> Array:
    """Seconds of `count` products [rows, k] x [k, n] in one launch; no rows take no time. Outputs have two bytes.

    Args:
        constants: constants of the library.
        gpu: its peaks, SMs and L2 cache.
        rows: rows of the input.
        n: columns of the output.
        k: columns of the input.
        weights: data type that the weights are stored in, with the scales of its groups.
        activations: data type that is multiplied in.
        count: products of the same shape, each with weights of its own.
        resident: whether the weights stay in the L2 cache between calls.
        sustained: whether the GPU is under sustained load, at its power limit; else the product was timed alone.
    """
    rows, n, k, count = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (rows, n, k, count)))
    each = stored_bytes(weights, activations)
    inputs = DTYPE_BYTES[activations]
    streamed = np.where(resident, 0.0, n * k * each)
    moved = count * (streamed + constants.activation_passes * rows * (k * inputs + n * _OUTPUT_BYTES))
    stream = moved / (constants.bandwidth_share * memory_bandwidth(gpu))
    joined = _tiled_seconds(constants, gpu, rows, n, k, count, stream, activations, sustained)
    seconds = constants.launch_s + constants.per_k_s * k + joined
    if is_narrow(activations):
        seconds = seconds + _quantise_seconds(constants, gpu, count * rows, k)
    return np.asarray(np.where(rows > 0, seconds, 0.0), dtype=np.float64)


def _tiled_seconds(
    c: GemmConstants,
    gpu: GpuSpec,
    rows: Array,
    n: Array,
    k: Array,
    count: Array,
    stream: Array,
    dtype: str,
    sustained: bool,
) -> Array:
    """Seconds of the fastest tiles of the menu, overlapped with the stream of bytes.

    An SM computes its tiles one after the other, at least one. The weights of a
    tile come no faster than its SM loads them: this limit binds nowhere on Hopper,
    and for narrow tiles on Blackwell, whose tensor cores outgrew it. Rows beyond a
    whole tile count in proportion: all measured numbers of rows are powers of two,
    and libraries have more heights of tiles than the menu, so that nothing speaks
    for a second tile at the first row too many.
    """
    peak = peak_flops(gpu, dtype)
    rate = c.compute_share * wide_sm_efficiency(gpu, dtype) * peak / gpu.n_sms
    slower = throttling(2.0 * count * rows * n * k / peak, c.throttle, sustained=sustained)
    best = np.full(rows.shape, np.inf)
    for tile in _TILES:
        if tile[1] > c.widest_tile:
            continue
        height, width = tile
        tiles = count * np.maximum(rows / height, 1.0) * np.ceil(n / width)
        if c.by_rows:
            lowest, highest = _rows_of(tile)
            tiles = np.where((rows > lowest) & (rows <= highest), tiles, np.inf)
        multiplied = 2.0 * height * width / rate * slower
        loaded = np.minimum(width, n) * DTYPE_BYTES[dtype] / sm_loads(gpu)
        unsplit = np.maximum(multiplied, loaded) * k
        split = 1
        while split <= c.max_split:
            waves = np.maximum(tiles * split / gpu.n_sms, 1.0)
            alone = unsplit / split + c.tile_s
            joined = p_norm(waves * alone, stream, c.norm)
            best = np.minimum(best, joined + (c.split_s if split > 1 else 0.0))
            split *= 2
    return best


def _rows_of(tile: tuple[int, int]) -> tuple[float, float]:
    """Rows for which a library that looks at the rows only takes this tile: above the first, up to the second."""
    below = 0.0
    for highest, taken in _BY_ROWS:
        if taken == tile:
            return below, highest
        below = highest
    return np.inf, np.inf


def _quantise_seconds(c: GemmConstants, gpu: GpuSpec, rows: Array, k: Array) -> Array:
    moved = _QUANTISE_BYTES * rows * k
    return c.quantise_passes * stream_seconds(gpu, moved, 1.0, c.cache_speedup) + c.quantise_row_s * rows
