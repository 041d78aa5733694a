"""What a comparison found, in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moesim.frames import nested
from moesim.report.text import printable
from moesim.report.units import number, percent
from moesim.report.work import STEP, THROUGHPUT, differing_work

if TYPE_CHECKING:
    import pandas as pd

WAIT = "breakdown_s.wait"


def sentence(summary: pd.DataFrame, paired: pd.DataFrame | None = None) -> str:
    """The best variant against the baseline: how much faster, how sure that is, what is dropped, what waiting does.

    Where all variants do the same work the best is the one with the shortest step. Else it is the one with the highest
    throughput per GPU, the line says in what the work differs, and it always names what both drop.

    Args:
        summary: one row a variant (index), the first is the baseline; columns are dotted summary keys.
        paired: differences to the baseline with their intervals (`Study.paired`); None or empty = one seed.

    Returns:
        One line, "" where there is nothing to compare.
    """
    if len(summary) < 2 or STEP not in summary:
        return ""
    rows = [{str(key): value for key, value in row.items()} for row in summary.to_dict("records")]
    differing = differing_work(map(nested, rows))
    metric = THROUGHPUT if differing else STEP
    others = summary[metric].iloc[1:]
    if others.isna().all():
        return ""
    best = 1 + int(others.argmax() if differing else others.argmin())
    baseline, found = summary.iloc[0], summary.iloc[best]
    ratio = _ratio(summary, paired, best, metric)
    tail = _lost(baseline, found, always=bool(differing))
    if differing:
        why = f"the work differs ({', '.join(differing)}), so by throughput per GPU"
        return f"{why}: {_by_throughput(ratio, *_names(baseline, found))}{tail}"
    beats = ratio.significant is not False and ratio.ratio < 1
    return f"{_by_time(ratio, *_names(baseline, found))}{tail}{_waiting(baseline, found) if beats else ''}"


@dataclass(frozen=True)
class _Ratio:
    """A metric of a variant over the baseline's, with its interval; significant is None for a single seed."""

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


def _by_time(ratio: _Ratio, base: str, name: str) -> str:
    if ratio.significant is False:
        same = f"{name} and {base} do not differ significantly in mean step time"
        return f"{same}: {ratio.words(inverse=True)} as fast"
    if ratio.ratio >= 1:
        return f"no variant is faster than {base}: {name} comes nearest and takes {ratio.words()} as long"
    return f"{name} is {ratio.words(inverse=True).replace('x', 'x faster than ' + base, 1)}"


def _by_throughput(ratio: _Ratio, base: str, name: str) -> str:
    if ratio.significant is False:
        return f"{name} and {base} do not differ significantly in tokens/s/GPU: {ratio.words()} as many"
    if ratio.ratio <= 1:
        return f"no variant has more tokens/s/GPU than {base}; {name} comes nearest with {ratio.words()} as many"
    return f"{name} has {ratio.words().replace('x', 'x the tokens/s/GPU of ' + base, 1)}"


def _times(ratio: float) -> str:
    """1.31, and with one digit more where it would read 1."""
    return number(ratio, 3 if abs(ratio - 1) >= 0.1 else 4)


def _ratio(summary: pd.DataFrame, paired: pd.DataFrame | None, best: int, metric: str) -> _Ratio:
    if paired is not None and len(paired):
        row = paired[(paired["variant"] == summary.index[best]) & (paired["metric"] == metric) & (paired["n"] > 1)]
        for found in row.to_dict("records"):
            ends = float(found["ratio"]), float(found["ratio_low"]), float(found["ratio_high"])
            if math.isfinite(sum(ends)):
                return _Ratio(*ends, seeds=int(found["n"]), significant=bool(found["significant"]))
    ratio = float(summary[metric].iloc[best]) / float(summary[metric].iloc[0])
    return _Ratio(ratio, ratio, ratio, seeds=1, significant=None)


def _names(*rows: pd.Series[Any]) -> list[str]:
    return [printable(row.name) for row in rows]


_LOSSES = {"drop_rate": "drops {} % of assignments", "unrouted_token_rate": "leaves {} % of tokens without an expert"}


def _lost(baseline: pd.Series[Any], found: pd.Series[Any], *, always: bool) -> str:
    """What both lose, where one of them loses anything; what they drop `always`."""
    base, name = _names(baseline, found)
    words = ""
    for key, text in _LOSSES.items():
        ours, theirs = (_share(row, key) for row in (baseline, found))
        if ours or theirs:
            words += f"; {name} {text.format(percent(theirs))}, {base} {percent(ours)} %"
        elif always and key == "drop_rate":
            words += "; neither drops an assignment"
    return words


def _share(row: pd.Series[Any], key: str) -> float:
    value = row.get(key)
    return 0.0 if value is None or math.isnan(value) else float(value)


def _waiting(baseline: pd.Series[Any], best: pd.Series[Any]) -> str:
    if WAIT not in baseline:
        return ""
    shares = [float(row[WAIT]) / float(row[STEP]) for row in (baseline, best)]
    before, after = (percent(share, 2) for share in shares)
    if before == after:
        return f"; straggler wait stays at {after} % of the step"
    return f"; straggler wait {'falls' if shares[1] < shares[0] else 'rises'} from {before} % to {after} % of the step"
