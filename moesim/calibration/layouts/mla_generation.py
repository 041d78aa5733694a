"""Latent attention of one new token of each request, kernel or module of DeepSeek-V3, milliseconds.

Layout: NVIDIA aiconfigurator `generation_mla_perf`, `mla_generation_module_perf` and `wideep_generation_mla_perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.fitting import Array, numbers
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
from moesim.hardware.constants.fitted import searches
from moesim.hardware.mla import MlaDecodeConstants, mla_decode_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

_SEARCH = searches(MlaDecodeConstants)


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
