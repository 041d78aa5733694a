"""The groups of constants that stand in for a data type of measured tables that was never fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from moesim.hardware.constants import Constants

if TYPE_CHECKING:
    import pandas as pd

_STAND_INS: Mapping[str, tuple[str, ...]] = {
    "float16": ("bfloat16",),
    "int8_wo": ("bfloat16",),
    "int4_wo": ("bfloat16",),
    "mxfp8": ("fp8_block", "fp8"),
    "fp8_block": ("fp8",),
}
_OTHERWISE = ("fp8", "fp8_block", "bfloat16")


def stand_in(groups: pd.Series[str], constants: Constants) -> pd.Series[str]:
    """Groups whose last word, a data type, no constants have: the same with the nearest type that some have."""
    known = {name.split("/")[-1] for name in constants}

    def nearest(group: str) -> str:
        *kernel, dtype = group.split("/")
        if dtype not in known:
            dtype = next((other for other in (*_STAND_INS.get(dtype, ()), *_OTHERWISE) if other in known), dtype)
        return "/".join((*kernel, dtype))

    return groups.map(nearest)
