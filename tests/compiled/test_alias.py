"""Alias tables hold the law they were made for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moesim.compiled.alias import alias_draw, fill_alias_table
from moesim.compiled.random import word64


def table_of(weight: np.ndarray) -> np.ndarray:
    """A new table."""
    table = np.empty(len(weight), dtype=np.uint64)
    fill_alias_table(np.asarray(weight, dtype=np.float64), table)
    return table


def law_of(table: np.ndarray) -> np.ndarray:
    """The probability of each outcome, read off the table."""
    n = len(table)
    threshold = (table >> np.uint64(32)).astype(np.float64) / 2**32
    law = threshold / n
    np.add.at(law, (table & np.uint64(2**32 - 1)).astype(np.int64), (1 - threshold) / n)
    return law


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300).filter(lambda w: sum(w) > 1e-3))
def test_a_table_holds_its_law(weights: list[float]) -> None:
    """To 2^-32 a column, and exactly nothing for what weighs nothing."""
    weight = np.array(weights)
    law = law_of(table_of(weight))
    np.testing.assert_allclose(law, weight / weight.sum(), atol=2.0**-31)
    assert law.sum() == pytest.approx(1, abs=1e-12)
    assert (law[weight == 0] == 0).all()


@pytest.mark.parametrize("weight", [[3.0], [1.0, 1.0, 1.0], [0.0, 5.0, 0.0], [1e-300, 1e300]])
def test_tables_that_can_be_worked_by_hand(weight: list[float]) -> None:
    """One outcome, equal ones, one that is certain, one as good as."""
    expected = np.array(weight) / sum(weight)
    np.testing.assert_allclose(law_of(table_of(np.array(weight))), expected, atol=2.0**-31)


def test_draws_follow_the_table() -> None:
    """A chi-square test of five outcomes, of which one never comes."""
    weight = np.array([5.0, 0.0, 1.0, 0.5, 2.0])
    table = table_of(weight)
    key = np.uint64(12345)
    draws = [int(alias_draw(table, np.uint64(word64(key, i)))) for i in range(20_000)]
    counts = np.bincount(draws, minlength=5)
    assert counts[1] == 0
    seen = weight > 0
    assert stats.chisquare(counts[seen], 20_000 * weight[seen] / weight.sum()).pvalue > 1e-3


def test_64_bits_are_those_of_splitmix64() -> None:
    """The published first outputs for the seed 1234567."""
    found = [int(np.uint64(word64(np.uint64(1234567), i))) for i in range(3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]
