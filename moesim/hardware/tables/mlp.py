"""Gated feed-forward networks (the shared expert of DeepSeek-V3), milliseconds.

Layout: NVIDIA aiconfigurator `wideep_context_mlp_perf` and `wideep_generation_mlp_perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.hardware.dense import FeedForwardConstants, feed_forward_seconds
from moesim.hardware.layer_kernels import LayerKernels
from moesim.hardware.tables.artefacts import sound
from moesim.hardware.tables.attention import framework, measured_s
from moesim.hardware.tables.dtypes import dtype_of, stand_in
from moesim.hardware.tables.groups import Array, Constant, by_group, fit_rows, numbers, text
from moesim.hardware.tables.kind import Constants, TableKind
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

_SEARCH = {
    "launch_s": Constant(start=5e-6, low=1e-7, high=1e-3),
    "passes": Constant(start=1.0, low=0.01, high=20.0),
}
_FEW_TOKENS = 1024


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    return framework(frame) + "/" + text(frame, "phase", "generation") + "/" + text(frame, "quant_type")


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    few = frame["num_tokens"].lt(_FEW_TOKENS).map({True: "below 1,024 tokens", False: "1,024 tokens and more"})
    return text(frame, "phase", "generation") + ", " + few


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted on H100 at 1, 4, 16 ... tokens; held out: 2, 8, 32 ... tokens."""
    import pandas as pd

    exponent = np.log2(numbers(frame, "num_tokens")[0]).round().astype(np.int64)
    return frame["system"].eq("h100_sxm") & pd.Series(exponent % 2 == 0, frame.index)


def _usable(frame: pd.DataFrame) -> pd.Series[bool]:
    return sound(frame, size="num_tokens", curve=("quant_type", "hidden_size", "intermediate_size", "phase"))


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame) -> Array:
    rows, hidden, width = numbers(frame, "num_tokens", "hidden_size", "intermediate_size")
    keys, seconds = framework(frame) + "\n" + text(frame, "quant_type"), np.empty(len(frame))
    for key, here in keys.groupby(keys.to_numpy()).indices.items():
        made, _, name = str(key).partition("\n")
        dtype = dtype_of(name)
        seconds[here] = feed_forward_seconds(
            FeedForwardConstants(**c),
            LayerKernels(framework=made).linear(dtype.activations),
            gpu,
            rows[here],
            hidden[here],
            width[here],
            weights=dtype.weights,
            activations=dtype.activations,
        )
    return seconds


def _predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
    seconds = np.full((len(frame), 1), np.nan)
    for rows, gpu, c in by_group(frame, stand_in(_group(frame), constants), gpus, constants):
        seconds[rows, 0] = _seconds(c, gpu, frame.iloc[rows])
    return seconds


def _fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    rows_usable = frame[_usable(frame)]
    return {
        str(name): fit_rows(_SEARCH, list(_SEARCH), {}, rows, gpus, _seconds, measured_s)
        for name, rows in rows_usable.groupby(_group(rows_usable).to_numpy())
        if len(rows) > len(_SEARCH)
    }


KIND = TableKind(
    name="mlp",
    prefixes=("mlp", "wideep_context_mlp", "wideep_generation_mlp"),
    columns={
        "system": "text",
        "framework": "text",
        "num_tokens": "number",
        "hidden_size": "number",
        "intermediate_size": "number",
        "quant_type": "text",
        "latency_ms": "number",
    },
    measured=("latency_ms",),
    unit_s=1e-3,
    group=_group,
    regime=_regime,
    fitted=_fitted,
    usable=_usable,
    predict=_predict,
    fit=_fit,
)
