"""Data types as measured tables spell them, and the groups that stand in for a type that was never fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moesim.hardware.tables.kind import Constants

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class TableDtype:
    """A spelling: bytes of a stored weight with its scales, moesim's type of weights and of what is multiplied."""

    weight_bytes: float
    weights: str
    activations: str


_WIDE = TableDtype(weight_bytes=2.0, weights="bf16", activations="bf16")
_FP8 = TableDtype(weight_bytes=1.0, weights="fp8", activations="fp8")
# sixteen weights of FP4 share a scale of one byte
_FP4 = TableDtype(weight_bytes=0.5 + 1 / 16, weights="fp4", activations="fp4")

DTYPES: Mapping[str, TableDtype] = {
    "bfloat16": _WIDE,
    "float16": _WIDE,
    "fp8": _FP8,
    "fp8_block": _FP8,
    "fp8_ootb": _FP8,
    "fp8_static": _FP8,
    "mxfp8": _FP8,
    "nvfp4": _FP4,
    "mxfp4": _FP4,
    "sq": TableDtype(weight_bytes=1.0, weights="int8", activations="int8"),
    "int8": TableDtype(weight_bytes=1.0, weights="int8", activations="int8"),
    "int8_wo": TableDtype(weight_bytes=1.0, weights="int8", activations="bf16"),
    "int4_wo": TableDtype(weight_bytes=0.5, weights="fp4", activations="bf16"),
}
"""By the words of NVIDIA aiconfigurator; `_wo`: weights only, `sq`: SmoothQuant."""

_STAND_INS: Mapping[str, tuple[str, ...]] = {
    "float16": ("bfloat16",),
    "int8_wo": ("bfloat16",),
    "int4_wo": ("bfloat16",),
    "mxfp8": ("fp8_block", "fp8"),
    "fp8_block": ("fp8",),
}
_OTHERWISE = ("fp8", "fp8_block", "bfloat16")


def dtype_of(name: str) -> TableDtype:
    """What a spelling stands for; bf16 where it is unknown."""
    return DTYPES.get(name, _WIDE)


def stand_in(groups: pd.Series[str], constants: Constants) -> pd.Series[str]:
    """Groups whose last word, a data type, no constants have: the same with the nearest type that some have."""
    known = {name.split("/")[-1] for name in constants}

    def nearest(group: str) -> str:
        *kernel, dtype = group.split("/")
        if dtype not in known:
            dtype = next((other for other in (*_STAND_INS.get(dtype, ()), *_OTHERWISE) if other in known), dtype)
        return "/".join((*kernel, dtype))

    return groups.map(nearest)
