"""A line of small bars for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.report.run import RunLike

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 24


def sparkline(values: Sequence[float], *, low: float = 0.0, high: float = 1.0, width: int = WIDTH) -> str:
    """A bar a value between `low` and `high`; of more than `width` values a bar the mean of neighbours.

    What is not finite is a space.
    """
    if not len(values):
        return ""
    parts = np.array_split(np.asarray(values, dtype=np.float64), min(width, len(values)))
    span = high - low or 1.0
    return "".join(_block((float(part.mean()) - low) / span) for part in parts)


def balancedness(run: RunLike) -> str:
    """Balancedness over the steps of a run, mean over layers, on a scale from 0 to 1; "" without MoE layers."""
    if run.layers.empty:
        return ""
    return sparkline(run.layers.groupby("step")["balancedness"].mean().tolist())


def _block(share: float) -> str:
    if not np.isfinite(share):
        return " "
    return BLOCKS[min(len(BLOCKS) - 1, max(0, int(share * len(BLOCKS))))]
