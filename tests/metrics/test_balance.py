"""Balance metrics, by hand and by their laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moesim import metrics


def test_by_hand() -> None:
    """Loads 6, 2, 0, 0: mean 2, maximum 6."""
    load = np.array([[6, 2, 0, 0]])
    assert metrics.max_violation(load) == [2.0]
    assert metrics.balancedness(load)[0] == pytest.approx(1 / 3)
    assert metrics.cv(load)[0] == pytest.approx(np.sqrt(6) / 2)
    assert metrics.gini(load)[0] == pytest.approx(0.625)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(4)
    assert metrics.normalised_entropy(load)[0] == pytest.approx(entropy)
    assert metrics.dead_experts(load) == [2]


@pytest.mark.parametrize("load", [[0, 0, 0], [5, 5, 5]])
def test_even_loads_are_even(load: list[int]) -> None:
    """Nothing at all counts as even."""
    values = np.array([load])
    assert metrics.max_violation(values) == metrics.cv(values) == metrics.gini(values) == 0
    assert metrics.balancedness(values) == 1
    assert metrics.normalised_entropy(values)[0] == pytest.approx(1)


def test_one_expert_is_always_even() -> None:
    """Logarithms: ln 1 = 0 must not divide."""
    assert metrics.normalised_entropy(np.array([[7]])) == [1.0]


@given(arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(0, 1000)))
def test_ranges(load: np.ndarray) -> None:
    """Every metric stays within its bounds, and the two forms of max / mean agree."""
    n = load.shape[1]
    assert ((metrics.max_violation(load) >= -1e-12) & (metrics.max_violation(load) <= n - 1 + 1e-9)).all()
    assert ((metrics.balancedness(load) > 0) & (metrics.balancedness(load) <= 1)).all()
    assert ((metrics.gini(load) >= 0) & (metrics.gini(load) <= 1)).all()
    assert ((metrics.normalised_entropy(load) >= 0) & (metrics.normalised_entropy(load) <= 1 + 1e-12)).all()
    np.testing.assert_allclose(metrics.balancedness(load) * (metrics.max_violation(load) + 1), 1)
