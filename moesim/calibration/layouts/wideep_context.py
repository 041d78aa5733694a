"""Experts of DeepSeek-V3 in prefill under wide expert parallelism (SGLang, DeepGEMM): `wideep_context_*`.

Timed from the host: permutation, packed grouped GEMMs, activation, sum, of the
most loaded rank. An artefact of the collector: the rank is handed the tokens
of all ranks as received rows, whether or not they chose one of its experts. So
the table is predicted with all tokens; a deployment hands over those that did.
Counts of skewed distributions were padded to multiples of 128 an expert. The
host takes 0.39 ms to launch the kernels one by one, below which no latency of
the table lies; rows below 8,192 tokens, which show little else, are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.calibration.artefacts import unflagged
from moesim.calibration.layouts import expert_rows
from moesim.calibration.layouts.expert_layout import expert_layout

if TYPE_CHECKING:
    import pandas as pd

MIN_TOKENS = 8192
HOST_S = 0.39e-3
"""What the host takes: the latency of all evenly spread rows of few tokens."""
IDLE_S = 0.16e-3
"""What the GPU waits for the host before the products, which a step that is launched ahead of time does not: rows of
256 ranks lie on a line from 0.17 ms, of which 10 us are the kernels' own (what the graphs of decode show)."""
TILES = ((128.0, 128.0),)
"""The tile of DeepGEMM's contiguous kernel."""


def group(frame: pd.DataFrame) -> pd.Series[str]:
    """framework/deepep-prefill/data type."""
    return frame.framework.str.lower() + "/deepep-prefill/" + frame.moe_dtype


def usable(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows whose distribution can be drawn, without a flag and not bound by the host."""
    known = expert_rows.known_distribution(frame) & (frame.num_tokens >= MIN_TOKENS)
    return known & unflagged(frame)


TIMING = expert_rows.ExpertTiming(
    group=group, received_tokens=expert_rows.all_tokens, skewed_multiple=128, host_s=HOST_S, idle_s=IDLE_S
)


LAYOUT = expert_layout(
    name="wideep_context", prefixes=("wideep_context_moe", "wideep_context"), timing=TIMING, usable=usable, tiles=TILES
)
