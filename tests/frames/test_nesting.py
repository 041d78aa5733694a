"""Nested keys and keys joined by dots."""

from __future__ import annotations

import math

from moesim.frames import filled, flatten, nested

TREE = {"a": 1, "b": {"c": [2, 3], "d": {"e": None}}}


def test_nesting_is_the_inverse_of_flattening() -> None:
    """Lists and None are values."""
    flat = flatten(TREE)
    assert flat == {"a": 1, "b.c": [2, 3], "b.d.e": None}
    assert nested(flat) == TREE


def test_a_filled_tree_has_the_values_of_flat_keys() -> None:
    """NaN stands for what is absent."""
    assert filled({"a": 0, "b": {"c": 0}}, {"a": math.nan, "b.c": 2.0, "d": 1.0}) == {"a": None, "b": {"c": 2.0}}
