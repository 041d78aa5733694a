"""What differs between variants beyond chance: replications by seed, paired, with confidence intervals.

The unit of replication is a run with its own seed. The steps of a run share
their sequences and their router, so they are autocorrelated: no interval here
is made of steps. Variants see the same tokens under the same seed (common
random numbers), so a difference is taken seed by seed; the t interval of these
differences is narrower than that of two independent means.

An interval is that of one comparison; of twenty metrics without any difference
one is expected to look significant at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95
WIDTH = 0.02
"""The half width that `seeds_needed` is about, as a part of the larger of the two means."""
PILOT = 5
"""Seeds whose spread decides how many more a wanted width takes."""
HEADLINE = "step_time_s.mean"
"""The metric whose interval `until_ci` is about."""
THROUGHPUT = "tokens_per_s_per_gpu"
"""It takes the place of the headline where the variants do not do the same work."""
MIN_STEPS = {"p95": 20, "p99": 100}
"""Steps below which a percentile is little else than the largest step."""
NO_METRIC = ("n_steps", "moe_layers", "recorded_layers")
WORK = "work."
"""How the facts of what a run has to do begin (`results.summary.work_of`), which are no metrics either."""

Floats = NDArray[np.float64]


def t_quantile(confidence: float, degrees: ArrayLike) -> Floats:
    """Two-sided quantile of Student's t: 2.776 for 0.95 and 4 degrees of freedom."""
    from scipy.special import stdtrit  # a tenth of the time that scipy.stats takes to import

    return np.asarray(stdtrit(np.asarray(degrees, dtype=float), 0.5 + confidence / 2), dtype=np.float64)


def interval(values: ArrayLike, *, confidence: float = CONFIDENCE, pilot: int | None = None) -> tuple[Floats, Floats]:
    """Mean and half width of its confidence interval, along the first axis [seeds, ...].

    Args:
        values: one a seed.
        confidence: of the two-sided interval.
        pilot: where the number of seeds was chosen by the spread of the first so many (`seeds_for_width`), the spread
            of those alone is used, with their degrees of freedom: mean +- t(pilot - 1) s(pilot) / sqrt(n). That
            interval has the confidence exactly for normal values (Stein 1945), while the one of all seeds falls short.

    Returns:
        The half width is NaN for a single seed.
    """
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    spread_of = sample[: min(n, pilot or n)]
    m = len(spread_of)
    if m < 2:
        return sample.mean(axis=0), np.full(sample.shape[1:], math.nan)
    half = t_quantile(confidence, m - 1) * spread_of.std(axis=0, ddof=1) / math.sqrt(n)
    return sample.mean(axis=0), half


def seeds_needed(spread: ArrayLike, half_width: ArrayLike, *, confidence: float = CONFIDENCE) -> Floats:
    """The least number of seeds n >= 2 with t(n - 1) s / sqrt(n) <= half width, for a standard deviation s.

    NaN where either is unknown or the width is 0 and the spread is not; at most a million.
    """
    s, width = np.broadcast_arrays(np.asarray(spread, dtype=np.float64), np.asarray(half_width, dtype=np.float64))
    low, high = np.full(s.shape, 2.0), np.full(s.shape, 1e6)
    for _ in range(20):
        middle = np.floor((low + high) / 2)
        enough = t_quantile(confidence, middle - 1) * s <= width * np.sqrt(middle)
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    unknown = np.isnan(s) | np.isnan(width) | ((width <= 0) & (s > 0))
    return np.where(unknown, math.nan, high)


def seeds_for_width(pilot: ArrayLike, half_width: float, *, confidence: float = CONFIDENCE) -> int:
    """Seeds in all for an interval of this half width, by the spread of a pilot sample (Stein 1945, two stages).

    n = max(pilot, ceil((t(pilot - 1) s / half width)^2)). A rule that looks at the interval after every seed and
    stops when it is narrow stops too early whenever the spread looks small by chance: its 95 % are 92.

    Args:
        pilot: values of the first seeds, two or more.
        half_width: that is wanted, above 0.
        confidence: of the interval.
    """
    sample = np.asarray(pilot, dtype=np.float64)
    t = float(t_quantile(confidence, len(sample) - 1))
    return max(len(sample), math.ceil((t * float(sample.std(ddof=1)) / half_width) ** 2))


def seeds_until(
    points: pd.DataFrame, width: float, *, baseline: str | None = None, confidence: float = CONFIDENCE
) -> int:
    """Seeds in all until the interval of every difference to the baseline is as narrow as wanted.

    Args:
        points: rows of one study, or of one point of a sweep, with the PILOT seeds of each variant: variant, seed
            and the headline. Of one variant alone it is the interval of its mean.
        width: half of it, as a part of the baseline's mean.
        baseline: the variant that the others are compared with; the first by default.
        confidence: of the interval.
    """
    samples = _headlines(points, baseline)
    wanted = [_seeds_for(sample, ours, width, confidence) for sample, ours in samples.values()]
    return max(wanted, default=points["seed"].nunique())


def missed(
    points: pd.DataFrame, width: float, *, baseline: str | None = None, confidence: float = CONFIDENCE
) -> dict[str, tuple[float, int]]:
    """Variants whose interval is wider than was wanted, with half the width that it has, and the seeds it takes.

    Args:
        points: rows of one study, or of one point of a sweep, with all seeds of each variant.
        width: as in `seeds_until`; so are the others.
        baseline: see there.
        confidence: see there.

    Returns:
        For each variant (half width as a part of the baseline's mean, seeds in all by the rule of `seeds_until`).
    """
    found = {}
    for name, (sample, ours) in _headlines(points, baseline).items():
        needed = _seeds_for(sample[:PILOT], ours[:PILOT], width, confidence)
        if needed > len(sample):
            _, half = interval(sample, confidence=confidence, pilot=PILOT)
            found[name] = float(half) / abs(float(ours.mean())), needed
    return found


def _headlines(points: pd.DataFrame, baseline: str | None) -> dict[str, tuple[Floats, Floats]]:
    """For each variant its differences to the baseline by seed, and the baseline's own values.

    They are of the mean step time, or of throughput where variant and baseline do not do the same work. Of one
    variant alone they are its values.
    """
    names = list(dict.fromkeys(points["variant"]))
    first = names[0] if baseline is None and names else baseline
    by_seed = {name: points[points["variant"] == name].set_index("seed") for name in names}
    if first not in by_seed:
        return {}
    samples = {}
    for name in [name for name in names if name != first] or [first]:
        seeds = by_seed[first].index.intersection(by_seed[name].index, sort=False)
        ours, theirs = by_seed[first].loc[seeds], by_seed[name].loc[seeds]
        metric = HEADLINE if _same_work(_work(ours), _work(theirs)) else THROUGHPUT
        own, other = (frame[metric].to_numpy(np.float64) for frame in (ours, theirs))
        if len(own) > 1 and own.mean():
            samples[name] = (own if name == first else other - own, own)
    return samples


def _seeds_for(sample: Floats, ours: Floats, width: float, confidence: float) -> int:
    return seeds_for_width(sample, width * abs(float(ours.mean())), confidence=confidence)


def too_few_steps(metric: str, n_steps: float) -> bool:
    """Whether a percentile is of so few steps that it says little more than the largest."""
    return n_steps < MIN_STEPS.get(metric.rpartition(".")[2], 0)


PAIRED_COLUMNS = (
    "variant",
    "metric",
    "baseline_mean",
    "mean",
    "difference",
    "ci_low",
    "ci_high",
    "ratio",
    "ratio_low",
    "ratio_high",
    "n",
    "significant",
    "seeds_needed",
    "too_few_steps",
    "same_work",
)
_KINDS = {
    **dict.fromkeys(PAIRED_COLUMNS, "float64"),
    "variant": "str",
    "metric": "str",
    "n": "int64",
    "significant": "bool",
    "too_few_steps": "bool",
    "same_work": "bool",
}


def paired(
    points: pd.DataFrame,
    axes: Sequence[str] = (),
    *,
    baseline: str | None = None,
    confidence: float = CONFIDENCE,
    width: float = WIDTH,
    pilot: int | None = None,
) -> pd.DataFrame:
    """Differences of every variant to the baseline, paired by seed.

    Args:
        points: one row a run: the axes, `variant`, `seed`, then one column a metric.
        axes: columns within whose combinations variants are compared.
        baseline: the variant that the others are compared with; that of the first row by default.
        confidence: of the two-sided Student t intervals.
        width: see WIDTH.
        pilot: see `interval`.

    Returns:
        One row a combination, variant (but the baseline) and metric: the axes, then PAIRED_COLUMNS. `difference` is
        the mean over seeds of variant - baseline, with its interval `ci_low` to `ci_high`; `ratio` is the geometric
        mean of variant / baseline with its interval, NaN unless all values are above 0; `n` counts the seeds that
        both have; `significant` says that the interval excludes 0, and is false for a single seed; `seeds_needed` is
        how many seeds a half width of `width` would take; `too_few_steps` marks percentiles (`too_few_steps`);
        `same_work` says that variant and baseline do the same work in a step, so that their step times compare.
    """
    import pandas as pd

    names = list(points.columns)
    known = names[names.index("seed") + 1 :]
    metrics = [name for name in known if name not in NO_METRIC and not name.startswith(WORK)]
    values, work = points[metrics].to_numpy(np.float64), _work(points)
    steps = points["n_steps"].to_numpy(np.float64) if "n_steps" in points else np.full(len(points), math.inf)
    first = str(points["variant"].iloc[0]) if baseline is None and len(points) else baseline
    tables = []
    for place, by_variant in _by_place(points, axes).items():
        ours = by_variant.pop(first or "", {})
        for variant, theirs in by_variant.items():
            pairs = np.array([(ours[seed], at) for seed, at in theirs.items() if seed in ours]).reshape(-1, 2).T
            if pairs.size == 0:
                continue
            few = float(steps[pairs].min())
            tables.append(
                {
                    **{
                        axis: np.full(len(metrics), value, dtype=object)
                        for axis, value in zip(axes, place, strict=True)
                    },
                    "variant": [variant] * len(metrics),
                    "metric": metrics,
                    **_compare(*values[pairs], confidence=confidence, width=width, pilot=pilot),
                    "n": [pairs.shape[1]] * len(metrics),
                    "too_few_steps": [too_few_steps(metric, few) for metric in metrics],
                    "same_work": [_same_work(*work[pairs])] * len(metrics),
                }
            )
    columns: dict[str, Any] = {
        name: np.concatenate([table[name] for table in tables]) if tables else []
        for name in (*axes, *PAIRED_COLUMNS, "spread", "wanted")
        if name != "seeds_needed"
    }
    columns["seeds_needed"] = seeds_needed(columns.pop("spread"), columns.pop("wanted"), confidence=confidence)
    kinds = {axis: points[axis].dtype for axis in axes} | _KINDS
    return pd.DataFrame(columns).astype(kinds)[[*axes, *PAIRED_COLUMNS]]


def _work(points: pd.DataFrame) -> Floats:
    """The facts of the work of each run, [runs, facts]; without any in results of earlier versions."""
    return points[[name for name in points.columns if name.startswith(WORK)]].to_numpy(np.float64)


def _same_work(ours: Floats, theirs: Floats) -> bool:
    """Whether all facts [seeds, facts] are equal; NaN is what a run does not have."""
    return bool(np.isclose(ours, theirs, rtol=1e-9, atol=0.0, equal_nan=True).all())


def _by_place(points: pd.DataFrame, axes: Sequence[str]) -> dict[tuple[Any, ...], dict[str, dict[int, int]]]:
    """Row numbers by place, variant and seed, in order."""
    found: dict[tuple[Any, ...], dict[str, dict[int, int]]] = {}
    rows = points[[*axes, "variant", "seed"]].astype(object).itertuples(index=False, name=None)
    for i, (*place, variant, seed) in enumerate(rows):
        key = tuple(None if value != value else value for value in place)  # NaN is not equal to itself
        found.setdefault(key, {}).setdefault(variant, {})[seed] = i
    return found


def _compare(
    ours: Floats, theirs: Floats, *, confidence: float, width: float, pilot: int | None
) -> dict[str, NDArray[Any]]:
    """All metrics [seeds, metrics] of a variant at once: columns of `paired`, spread and wanted half width."""
    difference = theirs - ours
    mean, half = interval(difference, confidence=confidence, pilot=pilot)
    positive = (ours > 0).all(axis=0) & (theirs > 0).all(axis=0)
    logs = np.log(np.where(positive, theirs, 1.0) / np.where(positive, ours, 1.0))
    log_mean, log_half = interval(logs, confidence=confidence, pilot=pilot)
    wanted = width * np.maximum(np.abs(ours.mean(axis=0)), np.abs(theirs.mean(axis=0)))
    spread = difference.std(axis=0, ddof=1) if len(difference) > 1 else np.full(len(mean), math.nan)
    with np.errstate(over="ignore"):
        ratios = [np.where(positive, np.exp(x), math.nan) for x in (log_mean, log_mean - log_half, log_mean + log_half)]
    return {
        "baseline_mean": ours.mean(axis=0),
        "mean": theirs.mean(axis=0),
        "difference": mean,
        "ci_low": mean - half,
        "ci_high": mean + half,
        "ratio": ratios[0],
        "ratio_low": ratios[1],
        "ratio_high": ratios[2],
        "significant": (mean - half > 0) | (mean + half < 0),
        "spread": spread,
        "wanted": wanted,
    }
