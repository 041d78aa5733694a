"""DeepEP low latency: dispatch in FP8 and combine in bfloat16 of tokens with random experts.

Layout: NVIDIA aiconfigurator `wideep_deepep_ll_perf`, microseconds, `num_token` of one rank, 8 GPUs a node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.fitting import Array, by_group, subset
from moesim.calibration.layout import Layout
from moesim.calibration.layouts.deepep import (
    COLUMNS,
    DIRECTIONS,
    Timing,
    fit_directions,
    measured_s,
    of_fitted_shapes,
    shapes,
    usable,
    versions,
    where,
)
from moesim.hardware.collectives import LowLatency, low_latency_seconds
from moesim.hardware.constants import Constants
from moesim.hardware.constants.fitted import searches
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("dispatch_avg_t_us", "combine_avg_t_us")
NOUN = "deepep-ll"

_SEARCH = searches(LowLatency)
_WITHIN = ("launch_s", "link_share")
_WITHIN_SHAPES = ("launch_s", "per_hidden_s", "per_wave_s", "link_share", "round_s", "norm")
_ACROSS = ("across_launch_s", "across_hop_s", "nic_share")


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    return versions(frame, NOUN)


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    return where(frame) + (frame["num_experts"] <= 16).map({True: ", few experts", False: ""})


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted shapes of H100; held out across nodes: four of them."""
    return of_fitted_shapes(frame) & frame["node_num"].ne(4)


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame, direction: str) -> Array:
    return low_latency_seconds(LowLatency(**c), gpu, shapes(frame, direction, "per-selection"))


def _predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
    seconds = np.full((len(frame), len(MEASURED)), np.nan)
    for column, direction in enumerate(DIRECTIONS):
        ours = subset(constants, NOUN, direction)
        for rows, gpu, c in by_group(frame, _group(frame) + f"/{direction}", gpus, ours):
            seconds[rows, column] = _seconds(c, gpu, frame.iloc[rows], direction)
    return seconds


def _timings(direction: str, rows: pd.DataFrame, many_shapes: bool) -> Iterator[Timing]:
    seconds = partial(_seconds, direction=direction)
    measured = partial(measured_s, column=MEASURED[DIRECTIONS.index(direction)])
    yield rows[rows["node_num"] == 1], _WITHIN_SHAPES if many_shapes else _WITHIN, seconds, measured
    yield rows[rows["node_num"] > 1], _ACROSS, seconds, measured


def _fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    return fit_directions(frame, gpus, _group(frame), _SEARCH, _timings)


LAYOUT = Layout(
    name="deepep_ll",
    prefixes=("deepep_ll", "wideep_deepep_ll"),
    columns={
        **COLUMNS,
        **dict.fromkeys(MEASURED, "number"),
    },
    measured=MEASURED,
    unit_s=1e-6,
    group=_group,
    regime=_regime,
    fitted=_fitted,
    usable=usable,
    predict=_predict,
    fit=_fit,
    part="collectives",
)
