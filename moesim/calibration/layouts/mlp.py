"""Gated feed-forward networks (the shared expert of DeepSeek-V3), milliseconds.

Layout: NVIDIA aiconfigurator `wideep_context_mlp_perf` and `wideep_generation_mlp_perf`.
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
from moesim.hardware.dense import FeedForwardConstants, feed_forward_seconds
from moesim.hardware.kernel_dtypes import dtype_of
from moesim.hardware.layer_kernels import LayerKernels
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

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
    return without_artefacts(
        frame, size="num_tokens", curve=("quant_type", "hidden_size", "intermediate_size", "phase")
    )


def _formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
    rows, hidden, width = numbers(frame, "num_tokens", "hidden_size", "intermediate_size")
    keys = framework(frame) + "\n" + text(frame, "quant_type")
    kernels = frame.groupby(keys.to_numpy()).indices

    def seconds(constants: Mapping[str, float]) -> Array:
        out = np.empty(len(frame))
        for key, here in kernels.items():
            made, _, name = str(key).partition("\n")
            dtype = dtype_of(name)
            out[here] = feed_forward_seconds(
                FeedForwardConstants(**constants),
                LayerKernels(framework=made).linear(dtype.compute),
                gpu,
                rows[here],
                hidden[here],
                width[here],
                weights=dtype.weights,
                activations=dtype.compute,
            )
        return out

    return seconds


LAYOUT = GroupedLayout(
    name="mlp",
    part="mlp",
    prefixes=("mlp", "wideep_context_mlp", "wideep_generation_mlp"),
    columns=layer_columns(num_tokens="number", hidden_size="number", intermediate_size="number", quant_type="text"),
    group=_group,
    regime=_regime,
    fitted=_fitted,
    usable=_usable,
    formula=_formula,
    kernel=FeedForwardConstants,
)
