"""The fast logarithm, against NumPy's in double precision."""

from __future__ import annotations

import numpy as np

from moesim.workload import logits


def test_negative_log_is_right_to_two_units() -> None:
    """Over the whole range of uniform draws, and of -ln of them."""
    x = np.concatenate(
        [(2 * np.arange(2**23, step=997) + 1) * 2.0**-24, [1 - 2.0**-24, 2.0**-24], np.geomspace(6e-8, 17, 5000)]
    )
    got = x.astype(np.float32)
    logits.negative_log(got, got.view(np.int32), np.empty_like(got))
    expected = -np.log(x.astype(np.float32).astype(np.float64))
    error = np.abs(got - expected) / np.spacing(np.maximum(np.abs(expected), 2.0**-24).astype(np.float32))
    assert error.max() <= 2
