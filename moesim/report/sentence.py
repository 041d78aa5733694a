"""What a comparison found, in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moesim.report.text import plain
from moesim.report.units import number, percent

if TYPE_CHECKING:
    import pandas as pd

STEP = "step_time_s.mean"
WAIT = "breakdown_s.wait"


def sentence(summary: pd.DataFrame, paired: pd.DataFrame | None = None) -> str:
    """The fastest variant against the baseline: how much faster, how sure that is, what is dropped, what waiting does.

    Args:
        summary: one row a variant (index), the first is the baseline; columns are dotted summary keys.
        paired: differences to the baseline with their intervals (`Study.paired`); None or empty = one seed.

    Returns:
        One line, "" where there is nothing to compare.
    """
    if len(summary) < 2 or STEP not in summary:
        return ""
    best = 1 + int(summary[STEP].iloc[1:].argmin())
    name, base = plain(summary.index[best]), plain(summary.index[0])
    time = _time_ratio(summary, paired, best)
    if time.significant is False:
        return f"{name} and {base} do not differ significantly in mean step time: {time.words(inverse=True)} as fast"
    if time.ratio >= 1:
        return f"no variant is faster than {base}: {name} comes nearest and takes {time.words()} as long"
    words = time.words(inverse=True).replace("x", "x faster than " + base, 1)
    return f"{name} is {words}{_tail(summary.iloc[0], summary.iloc[best])}"


@dataclass(frozen=True)
class _Ratio:
    """Mean step time of a variant over the baseline's, with its interval; significant is None for a single seed."""

    ratio: float
    low: float
    high: float
    seeds: int
    significant: bool | None

    def words(self, *, inverse: bool = False) -> str:
        """1.31x (95 % CI 1.28 to 1.34, 10 seeds), or of the inverse."""
        values = (self.ratio, self.low, self.high)
        ratio, low, high = (1 / self.ratio, 1 / self.high, 1 / self.low) if inverse else values
        if self.significant is None:
            return f"{_times(ratio)}x (one seed, no interval)"
        return f"{_times(ratio)}x (95 % CI {_times(low)} to {_times(high)}, {self.seeds} seeds)"


def _times(ratio: float) -> str:
    """1.31, and with one digit more where it would read 1."""
    return number(ratio, 3 if abs(ratio - 1) >= 0.1 else 4)


def _time_ratio(summary: pd.DataFrame, paired: pd.DataFrame | None, best: int) -> _Ratio:
    if paired is not None and len(paired):
        row = paired[(paired["variant"] == summary.index[best]) & (paired["metric"] == STEP) & (paired["n"] > 1)]
        for found in row.to_dict("records"):
            ends = float(found["ratio"]), float(found["ratio_low"]), float(found["ratio_high"])
            if math.isfinite(sum(ends)):
                return _Ratio(*ends, seeds=int(found["n"]), significant=bool(found["significant"]))
    ratio = float(summary[STEP].iloc[best]) / float(summary[STEP].iloc[0])
    return _Ratio(ratio, ratio, ratio, seeds=1, significant=None)


def _tail(baseline: pd.Series[Any], best: pd.Series[Any]) -> str:
    drops = float(best.get("drop_rate", 0.0) or 0.0)
    words = f" and drops {percent(drops)} % of assignments" if drops > 0 else ""
    if WAIT not in baseline:
        return words
    before, after = (percent(float(row[WAIT]) / float(row[STEP]), 2) for row in (baseline, best))
    if before == after:
        return f"{words}: straggler wait stays at {after} % of the step"
    verb = "falls" if float(best[WAIT]) / float(best[STEP]) < float(baseline[WAIT]) / float(baseline[STEP]) else "rises"
    return f"{words}: straggler wait {verb} from {before} % to {after} % of the step"
