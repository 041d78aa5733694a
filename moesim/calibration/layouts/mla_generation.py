"""Latent attention of one new token of each request, kernel or module of DeepSeek-V3, milliseconds.

Layout: NVIDIA aiconfigurator `generation_mla_perf`, `mla_generation_module_perf` and `wideep_generation_mla_perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.fitting import Array, Constant, numbers
from moesim.calibration.layouts.attention import bytes_of, cache_dtype
from moesim.calibration.layouts.layer import layer_kind
from moesim.calibration.layouts.mla import (
    CURVE,
    around_seconds,
    fit_modules,
    fitted,
    group,
    predict_by_scope,
    scope,
    scope_of,
)
from moesim.hardware.constants import Constants, load
from moesim.hardware.mla import MlaDecodeConstants, mla_decode_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

_SEARCH = {
    "launch_s": Constant(start=2e-5, low=1e-6, high=2e-4),
    "unit_s": Constant(start=5e-6, low=1e-8, high=5e-5),
    "token_s": Constant(start=5e-9, low=1e-10, high=5e-7),
    "alone_s": Constant(start=2e-6, low=1e-8, high=6e-5),
    "alone_token_s": Constant(start=1e-8, low=1e-10, high=5e-7),
    "split_s": Constant(start=3e-6, low=1e-8, high=5e-5),
    # an SM's own pace, `token_s`, has the share of the peak that its products reach: what is left is a bound
    "compute_share": Constant(start=1.0, low=1.0, high=1.0),
    "bandwidth_share": Constant(start=0.9, low=0.1, high=1.0),
    "cache_speedup": Constant(start=1.3, low=1.0, high=3.0),
    "query_passes": Constant(start=1.0, low=0.01, high=10.0),
    "norm": Constant(start=2.0, low=1.0, high=10.0),
    "linear_factor": Constant(start=1.1, low=1.0, high=2.0),
}


_OWN_KERNEL = "sglang/kernel-flash_attention/bfloat16"
"""Of the wide-EP modules, which were timed up to 262,144 cached tokens; the kernel has a table up to 16 million."""
_OF_MODULES = ("launch_s", "query_passes", "linear_factor")


def _fixed(name: str) -> Mapping[str, float]:
    """A kernel has no linear layers; that of the wide-EP modules has a table of its own."""
    bound = {"compute_share": 1.0}
    if scope_of(name) == "kernel":
        return {**bound, "linear_factor": 1.0}
    kernel = load("mla_generation")[_OWN_KERNEL]
    shared = [constant for constant in _SEARCH if constant not in _OF_MODULES]
    return {constant: kernel[constant] for constant in shared} if scope_of(name) == "wideep_module" else bound


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return without_artefacts(frame, size="past_kv_tokens", curve=CURVE)


def _module_seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame, around: Array) -> Array:
    batch, cached, heads = numbers(frame, "batch_size", "past_kv_tokens", "num_heads")
    kernel = mla_decode_seconds(
        MlaDecodeConstants(**c),
        gpu,
        requests=batch,
        context_tokens=cached + 1,
        heads=heads,
        cache_bytes=bytes_of(cache_dtype(frame)),
        replayed=True,
    )
    return np.asarray(c["linear_factor"] * around + kernel)


def _around(gpu: GpuSpec, frame: pd.DataFrame) -> Array:
    return around_seconds(gpu, frame, numbers(frame, "batch_size")[0], absorbed=True)


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame) -> Array:
    return _module_seconds(c, gpu, frame, _around(gpu, frame))


def _predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
    return predict_by_scope(frame, gpus, constants, _seconds)


def _fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    return fit_modules(frame[_usable(frame)], gpus, _SEARCH, _fixed, _around, _module_seconds)


LAYOUT = layer_kind(
    name="mla_generation",
    prefixes=("mla_generation", "generation_mla", "wideep_generation_mla"),
    columns={
        "num_heads": "number",
        "batch_size": "number",
        "past_kv_tokens": "number",
    },
    group=group,
    regime=scope,
    fitted=fitted,
    usable=_usable,
    predict=_predict,
    fit=_fit,
)
