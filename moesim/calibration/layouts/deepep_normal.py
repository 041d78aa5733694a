"""DeepEP normal: dispatch in FP8 and combine in bfloat16 of tokens with random experts, on a number of SMs.

Layout: NVIDIA aiconfigurator `wideep_deepep_normal_perf`, microseconds, `num_token` of one rank, 8 GPUs a node.
`transmit` is the exchange with the best of its chunk sizes, `notify` the exchange of counts before it across nodes.
Only their sum is predicted: what waits for a congested network waits now in the one and now in the other.
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
from moesim.hardware.collectives import Normal, normal_seconds
from moesim.hardware.constants import Constants
from moesim.hardware.constants.fitted import searches
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("dispatch_us", "combine_us")
SUMS = {f"{way}_us": (f"{way}_transmit_us", f"{way}_notify_us") for way in DIRECTIONS}
NOUN = "deepep-normal"

_SEARCH = searches(Normal)
_WITHIN = ("launch_s", "sm_bytes_per_s", "link_share")
_WITHIN_SHAPES = (*_WITHIN, "per_hidden_s", "norm", "per_token_s", "fill_s")
_ACROSS = (*(name for name in _SEARCH if name.startswith("across_")), "nic_share", "congestion")


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    return versions(frame, NOUN)


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted shapes of H100; held out: 16 SMs."""
    return of_fitted_shapes(frame) & frame["dispatch_sms"].ne(16)


def _seconds(c: Mapping[str, float], gpu: GpuSpec, frame: pd.DataFrame, direction: str) -> Array:
    return normal_seconds(Normal(**c), gpu, shapes(frame, direction, "per-node", f"{direction}_sms"))


def _predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
    seconds = np.full((len(frame), len(MEASURED)), np.nan)
    for column, direction in enumerate(DIRECTIONS):
        ours = subset(constants, NOUN, direction)
        for rows, gpu, c in by_group(frame, _group(frame) + f"/{direction}", gpus, ours):
            seconds[rows, column] = _seconds(c, gpu, frame.iloc[rows], direction)
    return seconds


def _timings(direction: str, rows: pd.DataFrame, many_shapes: bool) -> Iterator[Timing]:
    seconds, measured = partial(_seconds, direction=direction), partial(measured_s, column=f"{direction}_us")
    yield rows[rows["node_num"] == 1], _WITHIN_SHAPES if many_shapes else _WITHIN, seconds, measured
    yield rows[rows["node_num"] > 1], _ACROSS, seconds, measured


def _fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    return fit_directions(frame, gpus, _group(frame), _SEARCH, _timings)


LAYOUT = Layout(
    name="deepep_normal",
    prefixes=("deepep_normal", "wideep_deepep_normal"),
    columns={
        **COLUMNS,
        "dispatch_sms": "number",
        "combine_sms": "number",
    },
    measured=MEASURED,
    sums=SUMS,
    unit_s=1e-6,
    group=_group,
    regime=where,
    fitted=_fitted,
    usable=usable,
    predict=_predict,
    fit=_fit,
    part="collectives",
)
