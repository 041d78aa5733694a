"""Attention of one new token of each request over its cache, MHA and GQA, milliseconds; no projections.

Layout: NVIDIA aiconfigurator `generation_attention_perf`; `past_kv_tokens` are cached, the new token is read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.fitting import Array, Constant, numbers
from moesim.calibration.layouts.attention import (
    CURVE,
    bytes_of,
    cache_dtype,
    column,
    fitted,
    framework,
    many_heads,
    template,
)
from moesim.calibration.layouts.layer import fit_groups, layer_kind, predict_groups
from moesim.hardware.decode import DecodeConstants, decode_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

_SEARCH = {
    "launch_s": Constant(start=8e-6, low=2e-6, high=3e-5),
    "unit_s": Constant(start=2e-6, low=1e-8, high=5e-5),
    "unit_head_s": Constant(start=2e-8, low=1e-10, high=5e-6),
    "byte_s": Constant(start=4e-11, low=1e-13, high=5e-9),
    "token_head_s": Constant(start=5e-11, low=1e-13, high=2e-8),
    "alone_s": Constant(start=1e-6, low=1e-8, high=3e-5),
    "alone_byte_s": Constant(start=4e-11, low=1e-13, high=5e-9),
    "split_s": Constant(start=3e-6, low=1e-8, high=5e-5),
    # further tokens of the largest caches, 1.5 GB and more, come at 0.91 to 0.96 of the published bandwidth
    "bandwidth_share": Constant(start=0.92, low=0.3, high=0.95),
    "cache_speedup": Constant(start=1.5, low=1.0, high=4.0),
    "window_tokens": Constant(start=32.0, low=1.0, high=1e5),
    "query_passes": Constant(start=1.0, low=0.01, high=20.0),
    "per_query_head": Constant(start=0.0, low=0.0, high=1.0),
    "norm": Constant(start=3.0, low=1.0, high=10.0),
    "exposed_units": Constant(start=4.0, low=0.01, high=100.0),
}
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
    windowed = column(frame, "window_size") > 0
    return large.map({True: "cache beyond 32 MiB", False: "smaller"}).mask(windowed, "window")


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return without_artefacts(frame, size="past_kv_tokens", curve=CURVE)


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame) -> Array:
    batch, cached, heads, kv_heads, width = numbers(
        frame, "batch_size", "past_kv_tokens", "num_heads", "num_key_value_heads", "head_dim"
    )
    return decode_seconds(
        DecodeConstants(**c),
        gpu,
        requests=batch,
        context_tokens=cached + 1,
        heads=heads,
        kv_heads=kv_heads,
        head_width=width,
        cache_bytes=bytes_of(cache_dtype(frame)),
        window=column(frame, "window_size"),
        replayed=True,
    )


def _fixed(name: str, rows: pd.DataFrame) -> dict[str, float]:
    template_name = name.split("/")[1]
    fixed = {"per_query_head": float(template_name.startswith("mqa"))}
    if template_name.startswith("mha"):
        fixed |= {"unit_head_s": 0.0, "token_head_s": 0.0}
    if not (column(rows, "window_size") > 0).any():
        fixed["window_tokens"] = _SEARCH["window_tokens"].start
    return fixed


LAYOUT = layer_kind(
    name="attention_generation",
    prefixes=("attention_generation", "generation_attention"),
    columns={
        "batch_size": "number",
        "num_heads": "number",
        "num_key_value_heads": "number",
        "head_dim": "number",
        "past_kv_tokens": "number",
    },
    group=_group,
    regime=_regime,
    fitted=fitted,
    usable=_usable,
    predict=predict_groups(_group, _seconds),
    fit=fit_groups(_SEARCH, _group, _usable, _seconds, _fixed, pull=_PULL),
)
