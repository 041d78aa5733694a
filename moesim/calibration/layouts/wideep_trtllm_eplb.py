"""Experts under wide expert parallelism (TensorRT-LLM), with and without load balancing: `wideep_trtllm_eplb_*`.

Timed: the router on the tokens of one rank and the experts of the most loaded
rank on the tokens that an exchange would deliver; one draw of the distribution.
Rows after load balancing (`_eplb`) depend on a plan that the table does not
hold: they are listed, neither predicted nor scored. With fewer assignments than
experts this collector puts all of them on the timed rank (two tokens on 16
ranks take as long as 16 active experts), so these rows are not scored either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.calibration.artefacts import unflagged
from moesim.calibration.layouts import expert_rows
from moesim.calibration.layouts.expert_layout import expert_layout

if TYPE_CHECKING:
    import pandas as pd


def group(frame: pd.DataFrame) -> pd.Series[str]:
    """framework/wideep/data type."""
    return frame.framework.str.lower() + "/wideep/" + frame.moe_dtype


def usable(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows before load balancing whose distribution can be drawn, without a flag."""
    known = expert_rows.known_distribution(frame) & (frame.num_tokens * frame.topk > frame.num_experts)
    return known & unflagged(frame)


TIMING = expert_rows.ExpertTiming(group=group)


LAYOUT = expert_layout(
    name="wideep_trtllm_eplb", prefixes=("wideep_trtllm", "wideep_moe"), timing=TIMING, usable=usable
)
