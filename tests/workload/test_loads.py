"""Loads that a few numbers state follow these numbers, layer by layer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from moesim.workload import dirichlet_loads, hot_loads, lognormal_loads, power_law_loads


def test_the_logarithm_of_a_lognormal_load_is_normal_with_the_stated_deviation() -> None:
    """Kolmogorov-Smirnov; the mean of a layer is fixed by the sum of its shares."""
    share = lognormal_loads(1, 40, 500, sigma=(0.8,))
    np.testing.assert_allclose(share.sum(axis=1), 1)
    logs = np.log(share)
    centred = (logs - logs.mean(axis=1, keepdims=True)).ravel()
    assert stats.kstest(centred, stats.norm(scale=0.8).cdf).pvalue > 1e-3


def test_deviations_by_depth_are_linear_between_the_numbers() -> None:
    """Layers stand at the middles of equal parts, so few layers have the mean of many."""
    logs = np.log(lognormal_loads(1, 4, 20_000, sigma=(0.2, 1.0)))
    np.testing.assert_allclose(logs.std(axis=1), [0.3, 0.5, 0.7, 0.9], rtol=0.02)


def test_groups_follow_their_exponent_and_make_neighbours_alike() -> None:
    """Zipf over the groups in their order; without deviations of experts that is all there is."""
    share = lognormal_loads(1, 2, 12, sigma=(0.0,), groups=3, group_exponent=(1.0,))
    np.testing.assert_allclose(share[0], np.repeat([1, 1 / 2, 1 / 3], 4) / 4 / (1 + 1 / 2 + 1 / 3))
    logs = np.log(lognormal_loads(1, 200, 64, sigma=(0.5,), groups=8, group_sigma=(0.5,)))
    logs -= logs.mean(axis=1, keepdims=True)
    same, other = (logs[:, :-1] * logs[:, 1:]).mean(axis=0)[[0, 7]] / logs.var()
    assert same == pytest.approx(0.5 - 0.05, abs=0.15)  # half of the variance is of groups
    assert abs(other) < 0.15


def test_groups_need_not_divide_the_experts() -> None:
    """Ten experts in four runs of 3, 2, 3 and 2."""
    share = lognormal_loads(1, 1, 10, sigma=(0.0,), groups=4, group_exponent=(1.0,))
    assert np.bincount(np.unique(share[0], return_inverse=True)[1]).tolist() == [2, 3, 2, 3]


def test_hot_experts_share_what_is_stated_and_are_others_in_every_layer() -> None:
    """The load of the others is even."""
    share = hot_loads(1, 30, 256, share=0.34, experts=32)
    ordered = np.sort(share, axis=1)
    np.testing.assert_allclose(ordered[:, -32:], 0.34 / 32)
    np.testing.assert_allclose(ordered[:, :-32], 0.66 / 224)
    assert len({tuple(np.flatnonzero(layer > 1 / 256)) for layer in share}) == 30


@pytest.mark.parametrize("experts", [0, 8])
def test_hot_experts_are_some_and_not_all(experts: int) -> None:
    """With all there would be nobody to share with."""
    with pytest.raises(ValueError, match="wanted 1 to 7"):
        hot_loads(1, 1, 8, share=0.5, experts=experts)


def test_one_seed_gives_one_load() -> None:
    """And another seed another one."""
    first = lognormal_loads(3, 2, 16, sigma=(0.5,))
    np.testing.assert_array_equal(first, lognormal_loads(3, 2, 16, sigma=(0.5,)))
    assert (first != lognormal_loads(4, 2, 16, sigma=(0.5,))).all()


STATISTICS = Path(os.environ.get("MOESIM_DATA", "")) / "measured" / "power_law_reference_stats.csv"


@pytest.mark.skipif(not STATISTICS.is_file(), reason="MOESIM_DATA has no measured/power_law_reference_stats.csv")
def test_power_law_loads_are_those_of_the_collector() -> None:
    """Fullest rank and its fullest expert over the mean, and its experts in use: 624 means of 400 draws each.

    None is 4.5 standard errors away, which by chance one of 230 such files would be.
    """
    draws, worst = 400, []
    row: Any
    for row in pd.read_csv(STATISTICS).itertuples():
        shape = {"alpha": row.alpha, "tokens": row.num_tokens, "top_k": row.topk, "ranks": row.ep}
        load = power_law_loads(7, draws, row.num_experts, **shape).reshape(draws, row.ep, -1)
        fullest = load[np.arange(draws), load.sum(axis=2).argmax(axis=1)]
        for ours, name in (
            (fullest.sum(axis=1) * row.ep, "maxrank_over_mean"),
            ((fullest > 0).sum(axis=1), "active_local"),
            (fullest.max(axis=1) * row.num_experts, "maxexpert_over_globalmean"),
        ):
            # the floor is a few rare events of 400: the reference saw none and says 0
            error = max(getattr(row, f"{name}_sd") * np.sqrt(2 / draws), 4e-3)
            worst.append(abs(ours.mean() - getattr(row, f"{name}_mean")) / error)
    assert len(worst) == 624
    assert max(worst) < 4.5


def test_a_power_law_of_its_shape() -> None:
    """Without the recorded statistics: whole tokens, none above one a token, more unequal with a larger exponent."""
    hottest = []
    for alpha in (0.6, 1.0, 1.2, 3.0):
        load = power_law_loads(3, 50, 64, alpha=alpha, tokens=512, top_k=8, ranks=4) * 512 * 8
        np.testing.assert_allclose(load, load.round(), atol=1e-6)
        assert load.sum(axis=1) == pytest.approx(512 * 8)
        assert load.max() <= 512 + 1e-6
        hottest.append(np.median(load.max(axis=1)))
    assert hottest[:3] == sorted(hottest[:3])


@pytest.mark.parametrize("concentration", [0.3, 1.0, 8.0])
def test_dirichlet_loads_have_beta_shares(concentration: float) -> None:
    """A share of a symmetric Dirichlet law of 16 experts is Beta(a, 15 a); Kolmogorov-Smirnov, 1e-3."""
    share = dirichlet_loads(5, 4000, 16, concentration=concentration, top_k=1)
    assert share.sum(axis=1) == pytest.approx(1.0)
    for expert in (0, 9):
        assert stats.kstest(share[:, expert], stats.beta(concentration, 15 * concentration).cdf).pvalue > 1e-3


def test_no_dirichlet_share_is_beyond_what_a_router_can_give() -> None:
    """Eight experts and two choices: at most half; the sum stays, and so do shares that were smaller."""
    free = dirichlet_loads(5, 500, 8, concentration=0.1, top_k=1)
    limited = dirichlet_loads(5, 500, 8, concentration=0.1, top_k=2)
    assert free.max() > 0.9
    assert limited.max() <= 0.5
    assert limited.sum(axis=1) == pytest.approx(1.0)
    kept = (free < 0.5).all(axis=1)
    np.testing.assert_array_equal(free[kept], limited[kept])
    even = dirichlet_loads(5, 20, 4, concentration=0.01, top_k=4)
    np.testing.assert_allclose(even, 0.25)
