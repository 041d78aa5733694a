"""Attention over prompts, MHA and GQA, full or with a window, milliseconds; no projections.

Layout: NVIDIA aiconfigurator `context_attention_perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.fitting import Array, numbers, text
from moesim.calibration.layouts.attention import CURVE, cache_dtype, column, fitted, framework, template
from moesim.calibration.layouts.layer import fit_groups, layer_kind, predict_groups
from moesim.hardware.constants.fitted import searches
from moesim.hardware.kernel_dtypes import dtype_of
from moesim.hardware.prefill import PrefillConstants, prefill_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

_SEARCH = searches(PrefillConstants)
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
    return long.mask(column(frame, "window_size") > 0, "window")


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return without_artefacts(frame, size="isl", curve=(*CURVE, "past_kv_tokens"))


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame) -> Array:
    batch, length, heads, kv_heads, width = numbers(
        frame, "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim"
    )
    window, cached = column(frame, "window_size"), column(frame, "past_kv_tokens")
    # over a cache in fp8 TensorRT-LLM and vLLM multiply in fp8 too, whatever the queries were
    compute = text(frame, "attn_dtype", "bfloat16").mask(cache_dtype(frame).eq("fp8"), "fp8")
    seconds = np.empty(len(frame))
    for name, rows in frame.groupby(compute.to_numpy()).indices.items():
        seconds[rows] = prefill_seconds(
            PrefillConstants(**c),
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
    return seconds


def _fixed(name: str, rows: pd.DataFrame) -> dict[str, float]:
    fixed = {"score_s": _SEARCH["score_s"].start, "packs": float(not name.startswith(_DOES_NOT_PACK))}
    if not (column(rows, "window_size") > 0).any():
        fixed["window_blocks"] = _SEARCH["window_blocks"].start
    return fixed


LAYOUT = layer_kind(
    name="attention_context",
    prefixes=("attention_context", "context_attention"),
    columns={
        "batch_size": "number",
        "isl": "number",
        "num_heads": "number",
        "num_key_value_heads": "number",
        "head_dim": "number",
        "attn_dtype": "text",
    },
    group=_group,
    regime=_regime,
    fitted=fitted,
    usable=_usable,
    predict=predict_groups(_group, _seconds),
    fit=fit_groups(_SEARCH, _group, _usable, _seconds, _fixed, pull=_PULL),
)
