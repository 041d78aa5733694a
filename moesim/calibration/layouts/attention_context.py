"""Attention over prompts, MHA and GQA, full or with a window, milliseconds; no projections.

Layout: NVIDIA aiconfigurator `context_attention_perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.columns import (
    Array,
    cache_dtype,
    framework,
    numbers,
    optional,
    text,
)
from moesim.calibration.groups import Seconds
from moesim.calibration.layout import GroupedLayout, layer_columns
from moesim.calibration.layouts.attention import CURVE, fitted, template
from moesim.hardware.constants.fitted import searches
from moesim.hardware.kernel_dtypes import dtype_of
from moesim.hardware.prefill import PrefillConstants, prefill_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

# Constants that a table does not tell apart stay near where their search begins, as those of dense products.
_PULL = 0.05
_DOES_NOT_PACK = "trtllm"


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    """A framework, a template, and the data types of queries and cache."""
    compute, cache = text(frame, "attn_dtype", "bfloat16"), cache_dtype(frame)
    types = compute.where(compute.eq(cache), compute + "-" + cache)
    return framework(frame) + "/" + template(frame) + "/" + types


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    long = frame["isl"].ge(1024).map({True: "full, 1,024 and more", False: "full, shorter"})
    return long.mask(optional(frame, "window_size") > 0, "window")


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return without_artefacts(frame, size="isl", curve=(*CURVE, "past_kv_tokens"))


def _formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
    batch, length, heads, kv_heads, width = numbers(
        frame, "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim"
    )
    window, cached = optional(frame, "window_size"), optional(frame, "past_kv_tokens")
    # over a cache in fp8 TensorRT-LLM and vLLM multiply in fp8 too, whatever the queries were
    compute = text(frame, "attn_dtype", "bfloat16").mask(cache_dtype(frame).eq("fp8"), "fp8")
    types = frame.groupby(compute.to_numpy()).indices

    def seconds(constants: Mapping[str, float]) -> Array:
        out = np.empty(len(frame))
        for name, rows in types.items():
            out[rows] = prefill_seconds(
                PrefillConstants(**constants),
                gpu,
                prompts=batch[rows],
                prompt_tokens=length[rows],
                heads=heads[rows],
                kv_heads=kv_heads[rows],
                key_width=width[rows],
                value_width=width[rows],
                compute=dtype_of(str(name)).compute,
                window=window[rows],
                cached_tokens=cached[rows],
                sustained=False,
            )
        return out

    return seconds


def _fixed(name: str, rows: pd.DataFrame) -> dict[str, float]:
    search = searches(PrefillConstants)
    fixed = {"score_s": search["score_s"].start, "packs": float(not name.startswith(_DOES_NOT_PACK))}
    if not (optional(rows, "window_size") > 0).any():
        fixed["window_blocks"] = search["window_blocks"].start
    return fixed


LAYOUT = GroupedLayout(
    name="attention_context",
    part="attention_context",
    prefixes=("attention_context", "context_attention"),
    columns=layer_columns(
        batch_size="number",
        isl="number",
        num_heads="number",
        num_key_value_heads="number",
        head_dim="number",
        attn_dtype="text",
    ),
    group=_group,
    regime=_regime,
    fitted=fitted,
    usable=_usable,
    formula=_formula,
    kernel=PrefillConstants,
    fixed=_fixed,
    pull=_PULL,
)
