"""Experts of DeepSeek-V3 in decode under wide expert parallelism (SGLang, DeepGEMM): `wideep_generation_*`.

Timed in a CUDA graph: masked grouped GEMMs and the activation between them, of
the most loaded rank, which holds the rows that an exchange would deliver.
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

TILES = ((128.0, 128.0),)
"""The tile of the masked kernel."""


def group(frame: pd.DataFrame) -> pd.Series[str]:
    """framework/deepep-decode/data type."""
    return frame.framework.str.lower() + "/deepep-decode/" + frame.moe_dtype


def fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows that the shipped constants were fitted on."""
    return expert_rows.fitted_as(frame, "wideep_generation", usable(frame))


def usable(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows whose distribution can be drawn, without a flag."""
    known = expert_rows.known_distribution(frame)
    return known & (frame["flag"].fillna("") == "") if "flag" in frame else known


LAYOUT = expert_rows.Layout(group=group)


def predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> NDArray[np.float64]:
    """Seconds [R, 1]."""
    return expert_rows.predict(frame, gpus, constants, LAYOUT)


def fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    """Constants of every group."""
    return expert_fit.fit(frame[usable(frame)], gpus, LAYOUT, tiles=TILES)


KIND = TableKind(
    name="wideep_generation",
    prefixes=("wideep_generation_moe", "wideep_generation"),
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
