"""Nested mappings and keys joined by dots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping with keys joined by dots, in order; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with keys joined by dots, nested like summary.json: the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return tree


def filled(tree: Mapping[str, Any], flat: Mapping[Any, Any]) -> dict[str, Any]:
    """A nested mapping with the values of `flat`, whose keys are joined by dots; NaN becomes None."""
    return nested({key: None if pd.isna(flat[key]) else flat[key] for key in flatten(tree)})
