"""Latent attention of one new token of each request, kernel or module of DeepSeek-V3, milliseconds.

Layout: NVIDIA aiconfigurator `generation_mla_perf`, `mla_generation_module_perf` and `wideep_generation_mla_perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.columns import (
    Array,
    bytes_of,
    cache_dtype,
    numbers,
)
from moesim.calibration.groups import Seconds
from moesim.calibration.layout import GroupedLayout, layer_columns
from moesim.calibration.layouts.mla import CURVE, around_seconds, fitted, group, same_scope, scope, scope_of
from moesim.hardware.constants import load
from moesim.hardware.constants.fitted import searches
from moesim.hardware.mla import MlaDecodeConstants, mla_decode_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd


_OWN_KERNEL = "sglang/kernel-flash_attention/bfloat16"
"""Of the wide-EP modules, which were timed up to 262,144 cached tokens; the kernel has a table up to 16 million."""
_OF_MODULES = ("launch_s", "query_passes", "linear_factor")


def _fixed(name: str, rows: pd.DataFrame) -> Mapping[str, float]:  # noqa: ARG001 - one of Fixed
    """A kernel has no linear layers; that of the wide-EP modules has a table of its own."""
    bound = {"compute_share": 1.0}
    if scope_of(name) == "kernel":
        return {**bound, "linear_factor": 1.0}
    kernel = load("mla_generation")[_OWN_KERNEL]
    shared = [constant for constant in searches(MlaDecodeConstants) if constant not in _OF_MODULES]
    return {constant: kernel[constant] for constant in shared} if scope_of(name) == "wideep_module" else bound


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return without_artefacts(frame, size="past_kv_tokens", curve=CURVE)


def _formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
    batch, cached, heads = numbers(frame, "batch_size", "past_kv_tokens", "num_heads")
    cache_bytes, around = bytes_of(cache_dtype(frame)), around_seconds(gpu, frame, batch, absorbed=True)

    def seconds(values: Mapping[str, float]) -> Array:
        constants = MlaDecodeConstants(**values)
        kernel = mla_decode_seconds(
            constants,
            gpu,
            requests=batch,
            context_tokens=cached + 1,
            heads=heads,
            cache_bytes=cache_bytes,
            replayed=True,
        )
        return np.asarray(constants.linear_factor * around + kernel)

    return seconds


LAYOUT = GroupedLayout(
    name="mla_generation",
    part="mla_generation",
    prefixes=("mla_generation", "generation_mla", "wideep_generation_mla"),
    columns=layer_columns(num_heads="number", batch_size="number", past_kv_tokens="number"),
    group=group,
    regime=scope,
    fitted=fitted,
    usable=_usable,
    formula=_formula,
    kernel=MlaDecodeConstants,
    fixed=_fixed,
    related=same_scope,
)
