"""DeepEP low latency: dispatch in FP8 and combine in bfloat16 of tokens with random experts.

Layout: NVIDIA aiconfigurator `wideep_deepep_ll_perf`, microseconds, `num_token` of one rank, 8 GPUs a node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.calibration.groups import Formula, Seconds
from moesim.calibration.layouts.deepep import (
    COLUMNS,
    DeepEpLayout,
    of_fitted_shapes,
    shapes,
    usable,
    versions,
    where,
)
from moesim.hardware.collectives import LowLatency, low_latency_seconds
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("dispatch_avg_t_us", "combine_avg_t_us")

_WITHIN = ("launch_s", "link_share")
_WITHIN_SHAPES = ("launch_s", "per_hidden_s", "per_wave_s", "link_share", "round_s", "norm")
_ACROSS = ("across_launch_s", "across_hop_s", "nic_share")


def _group(frame: pd.DataFrame) -> pd.Series[str]:
    return versions(frame, "deepep-ll")


def _regime(frame: pd.DataFrame) -> pd.Series[str]:
    return where(frame) + (frame["num_experts"] <= 16).map({True: ", few experts", False: ""})


def _fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Fitted shapes of H100; held out across nodes: four of them."""
    return of_fitted_shapes(frame) & frame["node_num"].ne(4)


def _formula(direction: str) -> Formula:
    def formula(gpu: GpuSpec, frame: pd.DataFrame) -> Seconds:
        load = shapes(frame, direction, "per-selection")
        return lambda constants: low_latency_seconds(LowLatency(**constants), gpu, load)

    return formula


LAYOUT = DeepEpLayout(
    name="deepep_ll",
    part="collectives",
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
    formula=_formula,
    kernel=LowLatency,
    within=_WITHIN,
    within_shapes=_WITHIN_SHAPES,
    across=_ACROSS,
)
