"""The rule for one number in compiled code is the rule for arrays."""

from __future__ import annotations

import numpy as np

from moesim.compiled.picoseconds import whole_picoseconds
from moesim.types.picoseconds import MAX_PS, whole_ps


def test_one_number_is_rounded_as_arrays_are() -> None:
    """Whole numbers with the noise of a product stay, parts are rounded up, and what is too large is MAX_PS."""
    rng = np.random.default_rng(1)
    ps = np.concatenate(
        [rng.integers(0, 2**40, 500) * rng.choice([1.0, 1.1, 1.5, 2.3, 1 / 3], 500), [0.0, 1e30, np.inf]]
    )
    assert [int(whole_picoseconds(x)) for x in ps.tolist()] == whole_ps(ps).tolist()
    assert whole_picoseconds(1e-9 * 1e12) == 1000
    assert whole_picoseconds(np.inf) == MAX_PS
