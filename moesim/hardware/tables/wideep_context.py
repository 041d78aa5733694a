"""Experts of DeepSeek-V3 in prefill under wide expert parallelism (SGLang, DeepGEMM): `wideep_context_*`.

Timed from the host: permutation, packed grouped GEMMs, activation, sum, of the
most loaded rank. An artefact of the collector: the rank is handed the tokens
of all ranks as received rows, whether or not they chose one of its experts. So
the table is predicted with all tokens; a deployment hands over those that did.
Counts of skewed distributions were padded to multiples of 128 an expert. Below
8,192 tokens the host's own 0.39 ms hide the kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.hardware.tables import expert_rows
from moesim.hardware.tables.artefacts import unflagged
from moesim.hardware.tables.expert_kind import expert_kind

if TYPE_CHECKING:
    import pandas as pd

LEAST_TOKENS = 8192
TILES = ((128.0, 128.0),)
"""The tile of the packed kernel."""


def group(frame: pd.DataFrame) -> pd.Series[str]:
    """framework/deepep-prefill/data type."""
    return frame.framework.str.lower() + "/deepep-prefill/" + frame.moe_dtype


def usable(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows whose distribution can be drawn, without a flag and not bound by the host."""
    known = expert_rows.known_distribution(frame) & (frame.num_tokens >= LEAST_TOKENS)
    return known & unflagged(frame)


LAYOUT = expert_rows.Layout(group=group, handed=expert_rows.all_tokens, skewed_multiple=128)


KIND = expert_kind(
    name="wideep_context", prefixes=("wideep_context_moe", "wideep_context"), layout=LAYOUT, usable=usable, tiles=TILES
)
