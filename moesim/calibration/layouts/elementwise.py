"""Quantisation of activations to FP8, the one elementwise kernel with a table, milliseconds.

Layout: NVIDIA aiconfigurator `scale_matrix_perf` and `computescale_perf`: `m` x `k` elements of two bytes read, one
byte each written. The latter is a difference of two timings and flagged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from moesim.calibration.artefacts import unflagged
from moesim.calibration.columns import (
    Array,
    framework,
    numbers,
    text,
)
from moesim.calibration.groups import Seconds
from moesim.calibration.layout import GroupedLayout, layer_columns
from moesim.hardware.elementwise import ElementwiseConstants, pass_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

_READ_AND_WRITTEN_BYTES = 3.0
_HELD_OUT = (2048, 7168)
_SMALL_BYTES = 2**20


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    return framework(frame) + "/" + text(frame, "op_name") + "/" + text(frame, "quant_dtype", "fp8")


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    small = frame["m"] * frame["k"] * _READ_AND_WRITTEN_BYTES < _SMALL_BYTES
    return text(frame, "op_name") + small.map({True: ", below 1 MiB", False: ", above"})


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on H100; held out: rows of 2,048 and 7,168 elements."""
    return frame["system"].eq("h100_sxm") & ~frame["k"].isin(_HELD_OUT) & text(frame, "op_name").eq("scale_matrix")


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return unflagged(frame) & text(frame, "op_name").eq("scale_matrix") & (frame["latency_ms"] > 0)


def _formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
    m, k = numbers(frame, "m", "k")

    def seconds(constants: Mapping[str, float]) -> Array:
        return pass_seconds(ElementwiseConstants(**constants), gpu, m, _READ_AND_WRITTEN_BYTES * k)

    return seconds


LAYOUT = GroupedLayout(
    name="elementwise",
    part="elementwise",
    prefixes=("elementwise", "scale_matrix", "computescale"),
    columns=layer_columns(op_name="text", m="number", k="number"),
    group=_group,
    regime=_regime,
    fitted=_fitted,
    usable=_usable,
    formula=_formula,
    kernel=ElementwiseConstants,
)
