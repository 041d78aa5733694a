"""Intervals by hand, laws of pairing, and coverage over many simulated studies."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.study.statistics import (
    PAIRED_COLUMNS,
    PILOT,
    interval,
    missed,
    paired,
    seeds_for_width,
    seeds_needed,
    seeds_until,
    t_quantile,
    too_few_steps,
)


def runs(**variants: list[float]) -> pd.DataFrame:
    """Mean step times by variant, seeds 0, 1, 2, ...; a metric that is always 0 beside them."""
    rows = [
        {"variant": name, "seed": seed, "step_time_s.mean": value, "drop_rate": 0.0, "n_steps": 10}
        for name, values in variants.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def row(frame: pd.DataFrame, variant: str, metric: str = "step_time_s.mean") -> pd.Series:
    """The row of a variant and a metric."""
    return frame[(frame["variant"] == variant) & (frame["metric"] == metric)].iloc[0]


def test_quantiles_are_those_of_the_table() -> None:
    """Two-sided, 95 and 99 %."""
    np.testing.assert_allclose(t_quantile(0.95, [1, 4, 9, 1e9]), [12.706, 2.776, 2.262, 1.960], atol=5e-4)
    assert t_quantile(0.99, 4) == pytest.approx(4.604, abs=5e-4)


def test_an_interval_by_hand() -> None:
    """Mean 3, s = sqrt(2.5), n = 5: 2.776 x 1.5811 / 2.2361 = 1.963; one seed has none."""
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3
    assert half == pytest.approx(1.9632, abs=1e-4)
    assert math.isnan(interval([1.0])[1])


def test_pairs_cancel_what_the_variants_share() -> None:
    """Runs that differ by 2 +- a little have a narrow interval, however much the seeds differ."""
    frame = paired(runs(base=[10, 30, 20, 50], fast=[8.1, 27.9, 18.1, 47.9], same=[10.1, 29.9, 20.1, 49.9]))
    assert list(frame.columns) == list(PAIRED_COLUMNS)
    fast, same = row(frame, "fast"), row(frame, "same")
    half = 3.182446 * np.std([-1.9, -2.1, -1.9, -2.1], ddof=1) / 2
    assert (fast.difference, fast.baseline_mean, fast["mean"], fast.n) == (pytest.approx(-2), 27.5, 25.5, 4)
    assert (fast.ci_low, fast.ci_high) == (pytest.approx(-2 - half), pytest.approx(-2 + half))
    assert fast.significant
    assert not same.significant
    assert fast.ratio == pytest.approx(math.exp(np.log(np.array([0.81, 0.93, 0.905, 0.958])).mean()))
    assert fast.ratio_low < fast.ratio < fast.ratio_high
    zero = row(frame, "fast", "drop_rate")
    assert (zero.difference, zero.ci_low, zero.ci_high, zero.significant) == (0, 0, 0, False)
    assert math.isnan(zero.ratio)
    assert "n_steps" not in set(frame["metric"])


def test_only_seeds_that_both_have_are_paired() -> None:
    """A single one gives a difference without an interval, and nothing is called significant."""
    points = runs(base=[1, 2, 3], other=[2, 3, 4])
    frame = paired(points[~((points["variant"] == "other") & (points["seed"] > 0))])
    one = row(frame, "other")
    assert (one.n, one.difference, bool(one.significant)) == (1, 1, False)
    assert all(math.isnan(one[name]) for name in ("ci_low", "ci_high", "ratio_low", "seeds_needed"))
    apart = points[(points["variant"] == "base") | (points["seed"] > 5)]
    assert len(paired(apart)) == 0
    assert list(paired(apart).columns) == list(PAIRED_COLUMNS)


def test_points_of_a_sweep_are_compared_each_by_itself() -> None:
    """One without its baseline has no row; the baseline is the one that is named."""
    points = pd.concat([runs(base=[1, 2], other=[2, 3]).assign(skew=s) for s in (0.0, 1.0)], ignore_index=True)
    points = points[["skew", *points.columns[:-1]]]
    points = points[~((points["skew"] == 0) & (points["variant"] == "base"))]
    frame = paired(points, ["skew"], baseline="base")
    assert list(frame.columns) == ["skew", *PAIRED_COLUMNS]
    assert set(frame["skew"]) == {1.0}


def test_percentiles_of_few_steps_are_marked() -> None:
    """100 steps make a p99, 20 a p95; means need none."""
    assert [too_few_steps("step_time_s.p99", n) for n in (99, 100)] == [True, False]
    assert [too_few_steps("step_time_s.p95", n) for n in (19, 20)] == [True, False]
    assert not too_few_steps("step_time_s.mean", 1)
    points = runs(base=[1, 2], other=[2, 3]).rename(columns={"drop_rate": "step_time_s.p99"})
    assert row(paired(points), "other", "step_time_s.p99").too_few_steps


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=12), st.floats(0.1, 10), st.floats(1.5, 4))
def test_laws_of_pairing(base: list[float], shift: float, scale: float) -> None:
    """Differences turn with the pair and scale with the unit; ratios do not see the unit."""
    other = [value + shift * (1 + i % 2) for i, value in enumerate(base)]
    there, back = (
        row(paired(runs(**pair)), name)
        for pair, name in (({"a": base, "b": other}, "b"), ({"b": other, "a": base}, "a"))
    )
    assert back.difference == pytest.approx(-there.difference)
    assert (back.ci_low, back.ci_high) == (pytest.approx(-there.ci_high), pytest.approx(-there.ci_low))
    assert back.ratio == pytest.approx(1 / there.ratio)
    scaled = row(paired(runs(a=[v * scale for v in base], b=[v * scale for v in other])), "b")
    assert scaled.difference == pytest.approx(scale * there.difference)
    assert (scaled.ratio, scaled.ratio_low) == (pytest.approx(there.ratio), pytest.approx(there.ratio_low))
    assert scaled.significant == there.significant


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_the_seeds_needed_are_the_fewest_that_do(spread: float, width: float) -> None:
    """With one seed less the interval would be too wide, or there would be one seed."""
    n = float(seeds_needed(spread, width))
    if n < 1e6:
        assert t_quantile(0.95, n - 1) * spread / math.sqrt(n) <= width
    if n > 2:
        assert t_quantile(0.95, n - 2) * spread / math.sqrt(n - 1) > width


def test_the_seeds_of_a_wanted_width() -> None:
    """(2.776 s / d)^2 for a pilot of five, never fewer than it; nothing known, nothing said."""
    pilot = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert seeds_for_width(pilot, 0.5) == math.ceil((2.776445 * math.sqrt(2.5) / 0.5) ** 2) == 78
    assert seeds_for_width(pilot, 100) == 5
    assert np.isnan(seeds_needed([math.nan, 1.0], [1.0, 0.0])).all()
    assert seeds_needed(0.0, 0.0) == 2


def test_the_variant_that_varies_most_decides() -> None:
    """Against 1 % of the baseline's mean of 100."""
    base = [100.0] * 5
    steady, wild = [101.0, 101.1, 100.9, 101.0, 101.0], [105.0, 95.0, 100.0, 110.0, 90.0]
    assert seeds_until(runs(base=base, steady=steady), 0.01) == 5
    wanted = seeds_for_width(np.array(wild) - 100.0, 1.0)
    assert seeds_until(runs(base=base, steady=steady, wild=wild), 0.01) == wanted > 100
    assert seeds_until(runs(base=wild), 0.01) == wanted  # alone: the interval of its mean
    assert seeds_until(runs(other=wild), 0.01, baseline="base") == 5
    assert seeds_until(runs(base=[0.0] * 5, other=[0.0] * 5), 0.01) == 5


def test_variants_whose_width_was_missed_are_told() -> None:
    """With half the width that they have, by the spread of the pilot, and the seeds that the wanted one takes."""
    base, pilot = [100.0] * 8, [105.0, 95.0, 100.0, 110.0, 90.0]
    steady, wild = [101.0, 101.1, 100.9, 101.0, 101.0, 101.0, 101.0, 101.0], [*pilot, 100.0, 100.0, 100.0]
    found = missed(runs(base=base, steady=steady, wild=wild), 0.01)
    reached, needed = found.pop("wild")
    assert not found
    assert reached == pytest.approx(2.776445 * np.std(pilot, ddof=1) / math.sqrt(8) / 100)
    assert needed == seeds_for_width(np.array(pilot) - 100.0, 1.0)
    assert missed(runs(base=base, wild=wild), 0.2) == {}
    assert list(missed(runs(wild=wild), 0.01)) == ["wild"]  # alone: its mean


def test_the_width_of_unequal_work_is_that_of_throughput() -> None:
    """A tenth of the tokens in a tenth of the time, to the last digit: step times vary, throughput does not."""
    seconds = [100.0, 102.0, 98.0, 101.0, 99.0]
    frame = runs(base=seconds, small=[second / 10 for second in seconds])
    frame["work.tokens_per_step"] = np.where(frame["variant"] == "base", 1000.0, 100.0)
    frame["tokens_per_s_per_gpu"] = frame["work.tokens_per_step"] / frame["step_time_s.mean"]
    assert missed(frame, 0.005) == {}
    assert list(missed(frame.drop(columns="work.tokens_per_step"), 0.005)) == ["small"]


def test_the_interval_of_a_pilot_uses_its_spread_and_all_means() -> None:
    """Stein's: 2.776 s(5) / sqrt(n), whatever the later seeds say."""
    first = [1.0, 2.0, 3.0, 4.0, 5.0]
    mean, half = interval([*first, *[30.0] * 11], pilot=PILOT)
    assert mean == pytest.approx(345 / 16)
    assert half == pytest.approx(2.776445 * math.sqrt(2.5) / 4)


STUDIES = 1000
NOISE = 3 * math.sqrt(0.95 * 0.05 / STUDIES)
"""Three standard errors of a coverage of 95 % counted over so many studies: 2.1 points."""


def coverage(studies: list[dict[str, np.ndarray]], pilot: int | None = None) -> float:
    """Part of the studies whose interval of the difference holds its true value; all of them in one frame."""
    parts = [
        pd.DataFrame({"study": i, "variant": name, "seed": range(len(values)), "step_time_s.mean": values})
        for i, study in enumerate(studies)
        for name, values in study.items()
    ]
    found = paired(pd.concat(parts, ignore_index=True), ["study"], pilot=pilot)
    assert len(found) == STUDIES
    return float(((found["ci_low"] <= -0.05) & (found["ci_high"] >= -0.05)).mean())


def simulated(rng: np.random.Generator, n: int, spread: float) -> dict[str, np.ndarray]:
    """Step times of two variants that share most of what varies; the second is 5 % faster."""
    shared = rng.normal(1.0, 0.1, n)
    return {"base": shared + rng.normal(0, spread, n), "fast": shared - 0.05 + rng.normal(0, spread, n)}


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 5, 10, 30])
def test_intervals_cover_the_truth_as_often_as_they_say(n: int) -> None:
    """Over 1,000 studies of n seeds."""
    rng = np.random.default_rng(n)
    assert abs(coverage([simulated(rng, n, 0.02) for _ in range(STUDIES)]) - 0.95) < NOISE


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.003, 0.01, 0.02, 0.04])
def test_the_stopping_rule_keeps_the_coverage(spread: float) -> None:
    """Five seeds, then as many as 2 % takes: from never one more to several times the pilot.

    The intervals are no wider than wanted, and the rule is not idle: with the spread of all seeds, as if their number
    had been fixed, some would miss.
    """
    rng = np.random.default_rng(int(spread * 1000))
    studies, counts = [], []
    for _ in range(STUDIES):
        draws = simulated(rng, 400, spread)
        n = min(400, seeds_until(runs(**{name: list(v[:PILOT]) for name, v in draws.items()}), 0.02))
        studies.append({name: values[:n] for name, values in draws.items()})
        counts.append(n)
        _, half = interval(studies[-1]["fast"] - studies[-1]["base"], pilot=PILOT)
        assert n == 400 or half <= 0.02 * draws["base"][:PILOT].mean() * (1 + 1e-9)
    assert abs(coverage(studies, pilot=PILOT) - 0.95) < NOISE
    assert min(counts) == PILOT
    assert (max(counts) > PILOT) == (spread > 0.003)


@pytest.mark.slow
def test_a_rule_that_stops_when_the_interval_looks_narrow_would_not() -> None:
    """Why the two stages: looking after every seed covers some 92 %, so this test could fail."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(4 * STUDIES):
        draws = rng.normal(1.0, 0.03, 400)
        n = PILOT
        while interval(draws[:n])[1] > 0.02:
            n += 1
        mean, half = interval(draws[:n])
        hits += bool(abs(mean - 1.0) <= half)
    assert hits / (4 * STUDIES) < 0.94
