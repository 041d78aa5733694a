"""The absorbed products of latent attention, a product for each head, milliseconds.

Layout: NVIDIA aiconfigurator `mla_bmm_perf`: `mla_gen_pre` into the latent, `mla_gen_post` out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.columns import (
    Array,
    framework,
    numbers,
    text,
)
from moesim.calibration.groups import Seconds
from moesim.calibration.layout import GroupedLayout, layer_columns
from moesim.calibration.layouts.mla import fitted
from moesim.hardware.kernel_dtypes import dtype_of, is_narrow
from moesim.hardware.mla import DEEPSEEK_V3
from moesim.hardware.mla_linear import AbsorbedConstants, absorbed_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

# Constants that a table does not tell apart stay near where their search begins, as those of dense products.
_PULL = 0.05
_AFTER = "mla_gen_post"


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    """Narrow types have a kernel for each of the two products, which quantise differently."""
    dtype = text(frame, "bmm_dtype", "bfloat16")
    wide = dtype.map(lambda name: not is_narrow(dtype_of(name).compute))
    product = ("bmm-" + text(frame, "op_name")).mask(wide, "bmm")
    return framework(frame) + "/" + product + "/" + dtype


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    return text(frame, "op_name")


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return without_artefacts(frame, size="num_tokens", curve=("bmm_dtype", "num_heads"))


def _formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
    rows, heads = numbers(frame, "num_tokens", "num_heads")
    after = text(frame, "op_name").eq(_AFTER).to_numpy(dtype=np.bool_)
    before_shape, after_shape = DEEPSEEK_V3.absorbed
    n, k = (np.where(after, second, first) for first, second in zip(before_shape, after_shape, strict=True))
    types = frame.groupby(text(frame, "bmm_dtype", "bfloat16").to_numpy()).indices

    def seconds(constants: Mapping[str, float]) -> Array:
        out = np.empty(len(frame))
        for name, here in types.items():
            out[here] = absorbed_seconds(
                AbsorbedConstants(**constants),
                gpu,
                rows[here],
                heads[here],
                n[here],
                k[here],
                dtype=dtype_of(str(name)).compute,
                replayed=True,
            )
        return out

    return seconds


LAYOUT = GroupedLayout(
    name="mla_bmm",
    part="mla_bmm",
    prefixes=("mla_bmm",),
    columns=layer_columns(op_name="text", num_tokens="number", num_heads="number"),
    group=_group,
    regime=_regime,
    fitted=fitted,
    usable=_usable,
    formula=_formula,
    kernel=AbsorbedConstants,
    pull=_PULL,
)
