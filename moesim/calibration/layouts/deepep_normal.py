"""DeepEP normal: dispatch in FP8 and combine in bfloat16 of tokens with random experts, on a number of SMs.

Layout: NVIDIA aiconfigurator `wideep_deepep_normal_perf`, microseconds, `num_token` of one rank, 8 GPUs a node.
`transmit` is the exchange with the best of its chunk sizes, `notify` the exchange of counts before it across nodes.
Only their sum is predicted: what waits for a congested network waits now in the one and now in the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.calibration.groups import Formula, Seconds
from moesim.calibration.layouts.deepep import (
    COLUMNS,
    DIRECTIONS,
    DeepEpLayout,
    of_fitted_shapes,
    shapes,
    usable,
    versions,
    where,
)
from moesim.hardware.collectives import Normal, normal_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("dispatch_us", "combine_us")
SUMS = {f"{way}_us": (f"{way}_transmit_us", f"{way}_notify_us") for way in DIRECTIONS}

_WITHIN = ("launch_s", "sm_bytes_per_s", "link_share")
_WITHIN_SHAPES = (*_WITHIN, "per_hidden_s", "norm", "per_token_s", "fill_s")
_ACROSS = (
    "across_launch_s",
    "across_hop_s",
    "across_sm_bytes_per_s",
    "across_norm",
    "across_fill_s",
    "nic_share",
    "congestion",
)


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    return versions(frame, "deepep-normal")


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted shapes of H100; held out: 16 SMs."""
    return of_fitted_shapes(frame) & frame["dispatch_sms"].ne(16)


def _formula(direction: str) -> Formula:
    def formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
        load = shapes(frame, direction, "per-node", f"{direction}_sms")
        return lambda constants: normal_seconds(Normal(**constants), gpu, load)

    return formula


LAYOUT = DeepEpLayout(
    name="deepep_normal",
    part="collectives",
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
    formula=_formula,
    kernel=Normal,
    within=_WITHIN,
    within_shapes=_WITHIN_SHAPES,
    across=_ACROSS,
)
