"""Kinds of tables of one layer: one latency in milliseconds, and constants by framework, kernel and data type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.fitting import Array, Fixed, by_group, fit_rows, measured_s, to_fit
from moesim.calibration.layout import Fit, Group, Layout, Predict, Rows
from moesim.calibration.stand_in import stand_in
from moesim.hardware.constants import Constants
from moesim.hardware.constants.fitted import Search
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

Seconds = Callable[[Mapping[str, float], GpuSpec, "pd.DataFrame"], Array]
"""Seconds [R] of the rows of one group, with its constants and the GPU."""


def layer_kind(
    *,
    name: str,
    prefixes: tuple[str, ...],
    columns: Mapping[str, str],
    group: Group,
    regime: Group,
    fitted: Rows,
    usable: Rows,
    predict: Predict,
    fit: Fit,
) -> Layout:
    """A kind whose tables have `columns` beside system, framework and `latency_ms`."""
    return Layout(
        name=name,
        part=name,
        prefixes=prefixes,
        columns={"system": "text", "framework": "text", **columns, "latency_ms": "number"},
        measured=("latency_ms",),
        unit_s=1e-3,
        group=group,
        regime=regime,
        fitted=fitted,
        usable=usable,
        predict=predict,
        fit=fit,
    )


def predict_groups(group: Group, seconds: Seconds) -> Predict:
    """Seconds [R, 1] by the constants of each row's group, or of the group that stands in for it."""

    def predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
        predicted = np.full((len(frame), 1), np.nan)
        for rows, gpu, c in by_group(frame, stand_in(group(frame), constants), gpus, constants):
            predicted[rows, 0] = seconds(c, gpu, frame.iloc[rows])
        return predicted

    return predict


def fit_groups(
    search: Mapping[str, Search],
    group: Group,
    usable: Rows,
    seconds: Seconds,
    fixed: Fixed = lambda _name, _rows: {},
    pull: float = 0.0,
) -> Fit:
    """Constants of every group with more usable rows than constants to find; `pull` is that of `fit_group`."""

    def fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
        without_artefacts = frame[usable(frame)]
        return {
            name: fit_rows(search, free, known, rows, gpus, seconds, measured_s, pull=pull)
            for name, rows, known, free in to_fit(without_artefacts, group(without_artefacts), search, fixed)
        }

    return fit
