"""Experts of DeepSeek-V3 in decode under wide expert parallelism (SGLang, DeepGEMM): `wideep_generation_*`.

Timed in a CUDA graph: masked grouped GEMMs and the activation between them, of
the most loaded rank, which holds the rows that an exchange would deliver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.calibration.artefacts import unflagged
from moesim.calibration.layouts import expert_rows
from moesim.calibration.layouts.expert_layout import expert_layout

if TYPE_CHECKING:
    import pandas as pd

TILES = ((64.0, 128.0),)
"""Tiles of DeepGEMM's masked kernel (its heuristics for SM90): 64 or 128 rows of an expert."""


def group(frame: pd.DataFrame) -> pd.Series[str]:
    """framework/deepep-decode/data type."""
    return frame.framework.str.lower() + "/deepep-decode/" + frame.moe_dtype


def usable(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows whose distribution can be drawn, without a flag."""
    return expert_rows.known_distribution(frame) & unflagged(frame)


TIMING = expert_rows.ExpertTiming(group=group)


LAYOUT = expert_layout(
    name="wideep_generation",
    prefixes=("wideep_generation_moe", "wideep_generation"),
    timing=TIMING,
    usable=usable,
    tiles=TILES,
)
