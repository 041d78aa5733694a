"""Experts under wide expert parallelism (TensorRT-LLM), with and without load balancing: `wideep_trtllm_eplb_*`.

Timed: the router on the tokens of one rank and the experts of the most loaded
rank on the tokens that an exchange would deliver; one draw of the distribution.
Rows after load balancing (`_eplb`) depend on a plan that the table does not
hold: they are listed, neither predicted nor scored. With fewer assignments than
experts this collector puts all of them on the timed rank (two tokens on 16
ranks take as long as 16 active experts), so these rows are not scored either.
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


def group(frame: pd.DataFrame) -> pd.Series[str]:
    """framework/wideep/data type."""
    return frame.framework.str.lower() + "/wideep/" + frame.moe_dtype


def fitted(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows that the shipped constants were fitted on."""
    return expert_rows.fitted_as(frame, "wideep_trtllm_eplb", usable(frame))


def usable(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows before load balancing whose distribution can be drawn, without a flag."""
    known = expert_rows.known_distribution(frame) & (frame.num_tokens * frame.topk > frame.num_experts)
    return known & (frame["flag"].fillna("") == "") if "flag" in frame else known


LAYOUT = expert_rows.Layout(group=group)


def predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> NDArray[np.float64]:
    """Seconds [R, 1]."""
    return expert_rows.predict(frame, gpus, constants, LAYOUT)


def fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
    """Constants of every group."""
    return expert_fit.fit(frame[usable(frame)], gpus, LAYOUT)


KIND = TableKind(
    name="wideep_trtllm_eplb",
    prefixes=("wideep_trtllm", "wideep_moe"),
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
