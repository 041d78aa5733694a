"""Attention of one new token of each request over its cache, MHA and GQA, milliseconds; no projections.

Layout: NVIDIA aiconfigurator `generation_attention_perf`; `past_kv_tokens` are cached, the new token is read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.columns import (
    Array,
    bytes_of,
    cache_dtype,
    framework,
    numbers,
    optional,
)
from moesim.calibration.groups import Seconds
from moesim.calibration.layout import GroupedLayout, layer_columns
from moesim.calibration.layouts.attention import CURVE, fitted, many_heads, template
from moesim.hardware.constants.fitted import searches
from moesim.hardware.decode import DecodeConstants, decode_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

# Constants that a table does not tell apart stay near where their search begins, as those of dense products.
_PULL = 0.1
_MANY_HEADS_APART = "trtllm"


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    """A framework, a template, and the data type of the cache."""
    apart = framework(frame).eq(_MANY_HEADS_APART) & many_heads(frame) & frame["num_heads"].gt(1)
    return framework(frame) + "/" + template(frame).mask(apart, "mqa-128") + "/" + cache_dtype(frame)


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    elements = 2.0 * frame["batch_size"] * frame["past_kv_tokens"] * frame["num_key_value_heads"] * frame["head_dim"]
    large = elements * bytes_of(cache_dtype(frame)) > 2**25
    windowed = optional(frame, "window_size") > 0
    return large.map({True: "cache beyond 32 MiB", False: "smaller"}).mask(windowed, "window")


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return without_artefacts(frame, size="past_kv_tokens", curve=CURVE)


def _formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
    batch, cached, heads, kv_heads, width = numbers(
        frame, "batch_size", "past_kv_tokens", "num_heads", "num_key_value_heads", "head_dim"
    )
    cache_bytes, window = bytes_of(cache_dtype(frame)), optional(frame, "window_size")

    def seconds(constants: Mapping[str, float]) -> Array:
        return decode_seconds(
            DecodeConstants(**constants),
            gpu,
            requests=batch,
            context_tokens=cached + 1,
            heads=heads,
            kv_heads=kv_heads,
            head_width=width,
            cache_bytes=cache_bytes,
            window=window,
            replayed=True,
        )

    return seconds


def _fixed(name: str, rows: pd.DataFrame) -> dict[str, float]:
    template_name = name.split("/")[1]
    fixed = {"per_query_head": float(template_name.startswith("mqa"))}
    if template_name.startswith("mha"):
        fixed |= {"unit_head_s": 0.0, "token_head_s": 0.0}
    if not (optional(rows, "window_size") > 0).any():
        fixed["window_tokens"] = searches(DecodeConstants)["window_tokens"].start
    return fixed


LAYOUT = GroupedLayout(
    name="attention_generation",
    part="attention_generation",
    prefixes=("attention_generation", "generation_attention"),
    columns=layer_columns(
        batch_size="number",
        num_heads="number",
        num_key_value_heads="number",
        head_dim="number",
        past_kv_tokens="number",
    ),
    group=_group,
    regime=_regime,
    fitted=fitted,
    usable=_usable,
    formula=_formula,
    kernel=DecodeConstants,
    fixed=_fixed,
    pull=_PULL,
)
