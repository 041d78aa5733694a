"""What the tables of attention share: templates of kernels and data types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.fitting import Array, text
from moesim.hardware.kernel_dtypes import dtype_of

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT_HEADS = 16
"""Query heads whose rows no shipped constant saw."""

_NARROW_HEAD = 64
_MANY_HEADS = 64


def template(frame: pd.DataFrame) -> pd.Series[str]:
    """Grouped (gqa) or not (mha), of heads up to 64 wide or wider: kernels have different templates for these."""
    mha = frame["num_heads"].eq(frame["num_key_value_heads"])
    narrow = frame["head_dim"].le(_NARROW_HEAD)
    return mha.map({True: "mha", False: "gqa"}) + narrow.map({True: "-64", False: "-128"})


def many_heads(frame: pd.DataFrame) -> pd.Series[bool]:
    """At least 64 query heads for each KV head, more than TensorRT-LLM's grouped kernel takes."""
    return frame["num_heads"].ge(_MANY_HEADS * frame["num_key_value_heads"])


def fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on H100; held out: 16 query heads."""
    return frame["system"].eq("h100_sxm") & frame["num_heads"].ne(HELD_OUT_HEADS)


def framework(frame: pd.DataFrame) -> pd.Series[str]:
    """Name of the framework in small letters."""
    return text(frame, "framework").str.lower()


def cache_dtype(frame: pd.DataFrame) -> pd.Series[str]:
    """Data type of the KV cache, that of the attention where the layout has none."""
    return text(frame, "kv_cache_dtype") if "kv_cache_dtype" in frame else text(frame, "attn_dtype", "bfloat16")


def bytes_of(names: pd.Series[str]) -> Array:
    """Bytes of an element of each data type."""
    return names.map(lambda name: dtype_of(name).weight_bytes).to_numpy(dtype=np.float64)


def column(frame: pd.DataFrame, name: str) -> Array:
    """A column as float64, zeros where the layout has none."""
    return frame[name].to_numpy(dtype=np.float64) if name in frame else np.zeros(len(frame))


CURVE = ("attn_dtype", "kv_cache_dtype", "num_heads", "num_key_value_heads", "head_dim", "window_size", "batch_size")
"""Columns that a curve of latencies over lengths shares."""
