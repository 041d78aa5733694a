"""One rule makes whole picoseconds of seconds."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moesim.types.picoseconds import MAX_PS, picoseconds, whole_ps


def test_times_are_rounded_up_without_the_noise_of_floats() -> None:
    """A nanosecond is 1000 ps; what is a little longer has one more."""
    assert picoseconds([1e-9, 1.0001e-9, 0.0, 0.3e-12, 5.0]).tolist() == [1000, 1001, 0, 1, 5 * 10**12]
    assert picoseconds(0.1 + 0.2) == 3 * 10**11


def test_no_time_is_beyond_what_64_bits_add_up() -> None:
    """Infinity and what is far too long are the longest time."""
    assert picoseconds([math.inf, 1e30]).tolist() == [MAX_PS, MAX_PS]


@given(st.integers(0, 10**12), st.floats(1e-3, 1e3))
def test_a_multiple_is_never_shorter_than_it_is(ps: int, factor: float) -> None:
    """Up to a thousandth of a picosecond, a multiple is rounded up by less than one."""
    assert -1e-3 <= float(whole_ps(ps * factor)) - ps * factor < 1.0
    assert whole_ps(np.array([ps]) * 1.0) == ps
