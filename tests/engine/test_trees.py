"""Networks of more than two levels whose uplinks can be full: three interpreters, laws, and cases by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.engine import run, run_compiled
from moesim.types import Program
from tests.engine.programs import random_tree
from tests.textbook import textbook


def assert_equal(program: Program) -> None:
    """Start and end of every task, to the picosecond."""
    expected = textbook(program)
    for timeline in (run(program), run_compiled(program)):
        np.testing.assert_array_equal(timeline.start_ps, expected.start)
        np.testing.assert_array_equal(timeline.end_ps, expected.end)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_three_interpreters_agree_on_trees(seed: int) -> None:
    """Random programs on random trees, direct and two-hop, with shared ports and faults."""
    assert_equal(random_tree(seed))


@pytest.mark.slow
def test_three_interpreters_agree_on_hundreds_of_trees() -> None:
    """The same over 400 seeds."""
    for seed in range(400):
        assert_equal(random_tree(seed))
