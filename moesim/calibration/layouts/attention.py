"""What the layouts of attention share: templates of kernels, and what is held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


CURVE = ("attn_dtype", "kv_cache_dtype", "num_heads", "num_key_value_heads", "head_dim", "window_size", "batch_size")
"""Columns that a curve of latencies over lengths shares."""
