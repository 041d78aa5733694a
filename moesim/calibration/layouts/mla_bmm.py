"""The absorbed products of latent attention, a product for each head, milliseconds.

Layout: NVIDIA aiconfigurator `mla_bmm_perf`: `mla_gen_pre` into the latent, `mla_gen_post` out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.artefacts import without_artefacts
from moesim.calibration.fitting import Array, numbers, text
from moesim.calibration.layouts.attention import framework
from moesim.calibration.layouts.layer import fit_groups, layer_kind, predict_groups
from moesim.calibration.layouts.mla import fitted
from moesim.hardware.constants.fitted import searches
from moesim.hardware.kernel_dtypes import dtype_of, is_narrow
from moesim.hardware.mla import DEEPSEEK_V3, AbsorbedConstants, absorbed_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

_SEARCH = searches(AbsorbedConstants)
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


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame) -> Array:
    rows, heads = numbers(frame, "num_tokens", "num_heads")
    after = text(frame, "op_name").eq(_AFTER).to_numpy(dtype=np.bool_)
    before_shape, after_shape = DEEPSEEK_V3.absorbed
    dtypes, seconds = text(frame, "bmm_dtype", "bfloat16"), np.empty(len(frame))
    n, k = (np.where(after, second, first) for first, second in zip(before_shape, after_shape, strict=True))
    for name, here in dtypes.groupby(dtypes.to_numpy()).indices.items():
        seconds[here] = absorbed_seconds(
            AbsorbedConstants(**c),
            gpu,
            rows[here],
            heads[here],
            n[here],
            k[here],
            dtype=dtype_of(str(name)).compute,
            replayed=True,
        )
    return seconds


LAYOUT = layer_kind(
    name="mla_bmm",
    prefixes=("mla_bmm",),
    columns={
        "op_name": "text",
        "num_tokens": "number",
        "num_heads": "number",
    },
    group=_group,
    regime=_regime,
    fitted=fitted,
    usable=_usable,
    predict=predict_groups(_group, _seconds),
    fit=fit_groups(_SEARCH, _group, _usable, _seconds, pull=_PULL),
)
