"""Frames of many runs: one row a run, and the mean over its seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from moesim.errors import InputError

Row = tuple[Mapping[str, Any], str, int, Mapping[str, Any]]
"""Axes, variant, seed, flat summary of one run."""


def points_frame(rows: Iterable[Row], axes: Sequence[str] = ()) -> pd.DataFrame:
    """One row a run: first the axes, `variant` and `seed`, then the summary keys joined by dots.

    An axis is a column of numbers where all its values are (none = NaN), else of text; a summary key that a run does
    not have is NaN.
    """
    runs = list(rows)
    keys = list(dict.fromkeys(key for *_, summary in runs for key in summary))
    columns: dict[str, pd.Series[Any]] = {name: _axis([place[name] for place, *_ in runs]) for name in axes}
    columns["variant"] = pd.Series([variant for _, variant, _, _ in runs], dtype="str")
    columns["seed"] = pd.Series([seed for _, _, seed, _ in runs], dtype="int64")
    for key in keys:
        columns[key] = _numbers([summary.get(key) for *_, summary in runs])
    return pd.DataFrame(columns)


def axes_of(points: pd.DataFrame) -> list[str]:
    """The axis columns of a frame of points: all that stand before `variant`.

    Raises:
        InputError: the frame has no column `variant`.
    """
    if "variant" not in points.columns:
        raise InputError("the frame of points: found no column 'variant', wanted axes, variant, seed, summary keys")
    return [str(name) for name in points.columns[: list(points.columns).index("variant")]]


def mean_over_seeds(points: pd.DataFrame, axes: Sequence[str] = ()) -> pd.DataFrame:
    """One row a combination of axes and variant, in order: the mean over its seeds of every summary key."""
    by = [*axes, "variant"]
    means = points.drop(columns="seed").groupby(by, sort=False, dropna=False, as_index=False).mean()
    once = len(means) == len(points)  # counts stay whole numbers
    return points.drop(columns="seed").reset_index(drop=True) if once else means


def label(place: Mapping[str, Any]) -> str:
    """A point of a sweep in a few words: "exponent=0.2, tokens_per_gpu=64"; longer names where two end alike."""
    return ", ".join(f"{_short(name, place)}={text(value)}" for name, value in place.items())


def text(value: Any) -> str:
    """A value of an axis as it is written."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _short(name: str, names: Iterable[str]) -> str:
    """The last part of a dotted field, or all of it where another axis ends alike."""
    last = name.rpartition(".")[2]
    return name if sum(other.rpartition(".")[2] == last for other in names) > 1 else last


def _axis(values: Sequence[Any]) -> pd.Series[Any]:
    if values and all(isinstance(value, bool) for value in values):
        return pd.Series(values, dtype="bool")
    if any(isinstance(value, bool) or not isinstance(value, int | float | None) for value in values):
        return pd.Series([text(value) for value in values], dtype="str")
    return _numbers(values)


def _numbers(values: Sequence[Any]) -> pd.Series[Any]:
    whole = all(isinstance(value, int) for value in values)
    return pd.Series(values, dtype="int64" if whole else "float64")
