"""Columns of measured tables as arrays and text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.kernel_dtypes import dtype_of

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


def numbers(frame: pd.DataFrame, *columns: str) -> tuple[Array, ...]:
    """Columns as float64 arrays."""
    return tuple(frame[column].to_numpy(dtype=np.float64) for column in columns)


def optional(frame: pd.DataFrame, column: str) -> Array:
    """A column as a float64 array, zeros where the layout has no such column."""
    return frame[column].to_numpy(dtype=np.float64) if column in frame else np.zeros(len(frame))


def text(frame: pd.DataFrame, column: str, otherwise: str = "") -> pd.Series[str]:
    """A column as text, or the same text for all rows where the layout has no such column."""
    import pandas as pd

    if column in frame:
        return frame[column].astype(str)
    return pd.Series(otherwise, index=frame.index, dtype=str)


def framework(frame: pd.DataFrame) -> pd.Series[str]:
    """The name of each row's framework in small letters."""
    return text(frame, "framework").str.lower()


def cache_dtype(frame: pd.DataFrame) -> pd.Series[str]:
    """The data type of each row's KV cache; that of the attention where the layout has no such column."""
    return text(frame, "kv_cache_dtype") if "kv_cache_dtype" in frame else text(frame, "attn_dtype", "bfloat16")


def bytes_of(names: pd.Series[str]) -> Array:
    """Bytes of an element of each data type."""
    return names.map(lambda name: dtype_of(name).weight_bytes).to_numpy(dtype=np.float64)


def measured_seconds(frame: pd.DataFrame, column: str, unit_s: float) -> Array:
    """A column of latencies in seconds; `unit_s` is one of its units."""
    return np.asarray(unit_s * frame[column].to_numpy(dtype=np.float64))
