"""The peaks of one GPU in the units of the formulas: FLOP/s, bytes/s, bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.types import DTYPE_BYTES, GpuSpec, Precision

# Wider types that can stand in for one that a GPU has no units for, nearest first.
_WIDER = {
    "fp4": ("fp8", "bf16", "fp16"),
    "int4": ("int8", "bf16", "fp16"),
    "int8": ("bf16", "fp16"),
    "fp8": ("bf16", "fp16"),
    "bf16": ("fp16", "fp32"),
    "fp16": ("bf16", "fp32"),
}

_CACHE_KEEPS = 0.6
_LOADED_BYTES_PER_CLOCK = 64
# Seconds of computing after which half of the loss is reached: fits of products, attention and experts agree best.
_HEATING_S = 1e-3
# FLOP a clock of an SM of H100 (4,096 and 8,192) by bytes of an element: there the shares of the peak were fitted.
_FITTED_FLOPS_PER_CLOCK = {2.0: 989.4e12 / 132 / 1.83e9, 1.0: 1978.9e12 / 132 / 1.83e9}
# FP8 has twice as many as BF16, and libraries reach 0.91 of the share in it: log2(1 / 0.91).
_FADING = 0.13


def peak_flops(gpu: GpuSpec, dtype: str) -> float:
    """The published dense peak for a data type, FLOP/s, or for the next wider type where the GPU lacks it.

    Raises:
        InputError: the GPU has no peak for the type nor for a wider one.
    """
    for candidate in (dtype, *_WIDER.get(dtype, ("fp32",))):
        if candidate in gpu.peak_tflops:
            return gpu.peak_tflops[candidate] * 1e12
    raise InputError(f"{gpu.name} has no peak for {dtype}; it has {', '.join(gpu.peak_tflops)}")


def without_sms(gpu: GpuSpec, held: int) -> GpuSpec:
    """The GPU while `held` of its SMs run other kernels: with lower peaks in proportion, and the same memory."""
    left = gpu.n_sms - held
    peaks = {dtype: peak * left / gpu.n_sms for dtype, peak in gpu.peak_tflops.items()}
    return replace(gpu, n_sms=left, peak_tflops=peaks) if held else gpu


def memory_bandwidth(gpu: GpuSpec) -> float:
    """Published memory bandwidth, bytes/s."""
    return gpu.memory_bandwidth_gb_per_s * 1e9


def sm_loads(gpu: GpuSpec) -> float:
    """Bytes/s that one SM loads from the L2 cache: 64 a clock since Volta."""
    return _LOADED_BYTES_PER_CLOCK * gpu.clock_ghz * 1e9


def wide_sm_efficiency(gpu: GpuSpec, dtype: str) -> float:
    """Factor (<= 1) on the achieved share of the peak for SMs that compute more a clock than those of H100.

    The rest of a tile's time does not shrink with faster tensor cores: with twice
    the FLOP a clock, products are 1.8 times as fast (FP8 against BF16 in H100's
    tables, `tests/validation/peak_scaling.py`). These tables say nothing of
    narrower SMs, whose factor is 1.
    """
    per_clock = peak_flops(gpu, dtype) / gpu.n_sms / (gpu.clock_ghz * 1e9)
    fitted = _FITTED_FLOPS_PER_CLOCK[min(max(DTYPE_BYTES[dtype], 1.0), 2.0)]
    return float(max(1.0, per_clock / fitted) ** -_FADING)


def throttling(peak_s: NDArray[np.float64], loss: float, *, sustained: bool) -> NDArray[np.float64] | float:
    """How many times longer tensor cores take at the clock that the power limit leaves than at their full clock.

    Busy tensor cores draw more than the limit allows, so that the clock falls
    by up to `loss`. On a GPU that computes all the time it has fallen. While a
    kernel is timed alone it falls gradually: the longer the kernel computes, the more.

    Args:
        peak_s: seconds that the kernel computes at the published peak.
        loss: part of the rate that is lost under sustained load.
        sustained: whether the GPU is under sustained load; else the kernel is timed alone.
    """
    reached = 1.0 if sustained else peak_s / (peak_s + _HEATING_S)
    return 1.0 / (1.0 - loss * reached)


def stream_seconds(
    gpu: GpuSpec,
    moved: NDArray[np.float64],
    share: float,
    cache_speedup: float,
    cold: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Seconds to move bytes at a share of the bandwidth, or `cache_speedup` times faster from the L2 cache.

    Bytes that fill up to 0.6 of the cache stay in it, of bytes that exceed it none do, and in between a part does.
    `cold` is the part of `moved` that comes from the memory in any case, as other layers ran since its last use.
    """
    cache = gpu.l2_cache_mb * 2.0**20
    missed = np.clip((moved / cache - _CACHE_KEEPS) / (1.0 - _CACHE_KEEPS), 0.0, 1.0)
    warm = (moved - cold) * (missed + (1.0 - missed) / cache_speedup)
    return np.asarray((cold + warm) / (share * memory_bandwidth(gpu)))


def wide_bytes(precision: Precision) -> float:
    """Bytes of an element of embeddings, router, head or residual stream, which is never narrower than two bytes."""
    return max(2.0, DTYPE_BYTES[precision.weights])
