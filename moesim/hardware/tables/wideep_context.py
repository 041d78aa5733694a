"""Experts of DeepSeek-V3 in prefill under wide expert parallelism (SGLang, DeepGEMM): `wideep_context_*`.

Timed from the host: permutation, packed grouped GEMMs, activation, sum, of the
most loaded rank. An artefact of the collector: the rank is handed the tokens
of all ranks as received rows, whether or not they chose one of its experts. So
the table is predicted with all tokens; a deployment hands over those that did.
Counts of skewed distributions were padded to multiples of 128 an expert. Below
8,192 tokens the host's own 0.39 ms hide the kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.tables import expert_fit, expert_rows
from moesim.hardware.tables.kind import Constants, TableKind
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

LEAST_TOKENS = 8192
TILES = ((128.0, 128.0),)
"""The tile of the packed kernel."""


def group(frame: pd.DataFrame) -> pd.Series[str]:
    """framework/deepep-prefill/data type."""
    return frame.framework.str.lower() + "/deepep-prefill/" + frame.moe_dtype


def fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows that the shipped constants were fitted on."""
    return expert_rows.fitted_as(frame, "wideep_context", usable(frame))


def usable(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows whose distribution can be drawn, without a flag and not bound by the host."""
    known = expert_rows.known_distribution(frame) & (frame.num_tokens >= LEAST_TOKENS)
    return known & (frame["flag"].fillna("") == "") if "flag" in frame else known


def handed(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The tokens of all ranks."""
    return frame.num_tokens.to_numpy(dtype=np.float64)


LAYOUT = expert_rows.Layout(group=group, handed=handed, skewed_multiple=128)


def predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> NDArray[np.float64]:
    """Seconds [R, 1]."""
    return expert_rows.predict(frame, gpus, constants, LAYOUT)


def fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    """Constants of every group."""
    return expert_fit.fit(frame[usable(frame)], gpus, LAYOUT, tiles=TILES)


KIND = TableKind(
    name="wideep_context",
    prefixes=("wideep_context_moe", "wideep_context"),
    columns=expert_rows.COLUMNS,
    measured=("latency_ms",),
    unit_s=1e-3,
    group=group,
    regime=expert_rows.regime,
    fitted=fitted,
    usable=usable,
    predict=predict,
    fit=fit,
    noun="experts",
    fewest_rows=expert_fit.FEWEST_ROWS,
)
