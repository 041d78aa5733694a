"""Attention over prompts, MHA and GQA, full or with a window, milliseconds; no projections.

Layout: NVIDIA aiconfigurator `context_attention_perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.hardware.prefill import PrefillConstants, prefill_seconds
from moesim.hardware.tables.artefacts import sound
from moesim.hardware.tables.attention import (
    CURVE,
    HELD_OUT_HEADS,
    cache_dtype,
    column,
    framework,
    measured_s,
    template,
)
from moesim.hardware.tables.dtypes import dtype_of, stand_in
from moesim.hardware.tables.groups import Array, Constant, by_group, fit_rows, numbers, text
from moesim.hardware.tables.kind import Constants, TableKind
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

_SEARCH = {
    "launch_s": Constant(start=1e-5, low=1e-6, high=5e-5),
    "unit_s": Constant(start=1e-6, low=1e-9, high=2e-5),
    "compute_share": Constant(start=0.65, low=0.2, high=1.5),
    "bandwidth_share": Constant(start=0.5, low=0.1, high=1.5),
    # an SM of Hopper has 16 exponentials a clock, which the products hide in part
    "score_s": Constant(start=3e-11, low=3e-11, high=3e-11),
    "longest_units": Constant(start=1.0, low=0.05, high=10.0),
    "kv_passes": Constant(start=1.0, low=0.01, high=10.0),
    "cache_speedup": Constant(start=1.2, low=1.0, high=5.0),
    "window_blocks": Constant(start=0.3, low=0.01, high=8.0),
    "packs": Constant(start=1.0, low=0.0, high=1.0),
}
_DOES_NOT_PACK = "trtllm"


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    """A framework, a template, and the data types of products and cache."""
    compute, cache = text(frame, "attn_dtype", "bfloat16"), cache_dtype(frame)
    types = compute.where(compute.eq(cache), compute + "-" + cache)
    return framework(frame) + "/" + template(frame) + "/" + types


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    long = frame["isl"].ge(1024).map({True: "full, 1,024 and more", False: "full, shorter"})
    return long.mask(column(frame, "window_size") > 0, "window")


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on H100; held out: 16 query heads."""
    return frame["system"].eq("h100_sxm") & frame["num_heads"].ne(HELD_OUT_HEADS)


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return sound(frame, size="isl", curve=(*CURVE, "past_kv_tokens"))


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame) -> Array:
    batch, length, heads, kv_heads, width = numbers(
        frame, "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim"
    )
    window, cached = column(frame, "window_size"), column(frame, "past_kv_tokens")
    seconds = np.empty(len(frame))
    for name, rows in frame.groupby(text(frame, "attn_dtype", "bfloat16").to_numpy()).indices.items():
        seconds[rows] = prefill_seconds(
            PrefillConstants(**c),
            gpu,
            prompts=batch[rows],
            prompt_tokens=length[rows],
            heads=heads[rows],
            kv_heads=kv_heads[rows],
            key_width=width[rows],
            value_width=width[rows],
            compute=dtype_of(str(name)).activations,
            window=window[rows],
            cached_tokens=cached[rows],
        )
    return seconds


def _predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
    seconds = np.full((len(frame), 1), np.nan)
    for rows, gpu, c in by_group(frame, stand_in(_group(frame), constants), gpus, constants):
        seconds[rows, 0] = _seconds(c, gpu, frame.iloc[rows])
    return seconds


def _fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    fitted, rows_usable = {}, frame[_usable(frame)]
    for name, rows in rows_usable.groupby(_group(rows_usable).to_numpy()):
        fixed = {"score_s": _SEARCH["score_s"].start, "packs": float(not str(name).startswith(_DOES_NOT_PACK))}
        if not (column(rows, "window_size") > 0).any():
            fixed["window_blocks"] = _SEARCH["window_blocks"].start
        free = [constant for constant in _SEARCH if constant not in fixed]
        if len(rows) > len(free):
            fitted[str(name)] = fit_rows(_SEARCH, free, fixed, rows, gpus, _seconds, measured_s)
    return fitted


KIND = TableKind(
    name="attention_context",
    prefixes=("attention_context", "context_attention"),
    columns={
        "system": "text",
        "framework": "text",
        "batch_size": "number",
        "isl": "number",
        "num_heads": "number",
        "num_key_value_heads": "number",
        "head_dim": "number",
        "attn_dtype": "text",
        "latency_ms": "number",
    },
    measured=("latency_ms",),
    unit_s=1e-3,
    group=_group,
    regime=_regime,
    fitted=_fitted,
    usable=_usable,
    predict=_predict,
    fit=_fit,
)
