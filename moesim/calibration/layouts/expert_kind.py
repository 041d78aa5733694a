"""Kinds of tables of expert layers: one latency in milliseconds of the most loaded rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from moesim.calibration.fitting import Array
from moesim.calibration.layout import Layout, Rows
from moesim.calibration.layouts import expert_fit, expert_rows
from moesim.hardware.constants import Constants
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd


def expert_kind(
    *,
    name: str,
    prefixes: tuple[str, ...],
    timing: expert_rows.ExpertTiming,
    usable: Rows,
    tiles: Sequence[tuple[float, float]] = expert_fit.TILES,
) -> Layout:
    """A kind of a timing, whose kernels have one of these pairs of smallest and largest tile."""

    def fitted(frame: pd.DataFrame) -> pd.Series[bool]:
        return expert_rows.fitted_as(frame, name, usable(frame))

    def predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
        return expert_rows.predict(frame, gpus, constants, timing)

    def fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
        return expert_fit.fit(frame[usable(frame)], gpus, timing, tiles=tiles)

    return Layout(
        name=name,
        prefixes=prefixes,
        columns=expert_rows.COLUMNS,
        measured=("latency_ms",),
        unit_s=1e-3,
        group=timing.group,
        regime=expert_rows.regime,
        fitted=fitted,
        usable=usable,
        predict=predict,
        fit=fit,
        part="experts",
        min_rows=expert_fit.MIN_ROWS,
    )
