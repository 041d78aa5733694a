"""Loads that a few numbers state follow these numbers, layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from moesim.workload import hot_loads, lognormal_loads


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
