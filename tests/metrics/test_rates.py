"""Rates by hand."""

from __future__ import annotations

import numpy as np

from moesim.metrics import imbalance_penalty, mean_rate


def test_a_mean_rate_is_over_layers_that_were_asked_anything() -> None:
    """1 of 4 and 3 of 4; the layer without requests does not count."""
    assert mean_rate(np.array([1, 0, 3]), np.array([4, 0, 4])) == 0.5
    assert mean_rate(np.array([0]), np.array([0])) is None


def test_the_imbalance_penalty_is_of_all_steps_together() -> None:
    """30 ps instead of 20 ps, though one of the steps took no longer; sums may be larger than 64 bits hold."""
    assert imbalance_penalty([10, 20], [10, 10]) == 1.5
    assert imbalance_penalty([2**63, 2**63], [2**62, 2**62]) == 2
    assert imbalance_penalty([1], [0]) is None
