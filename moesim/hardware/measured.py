"""Latencies out of measured tables instead of formulas, where there are measurements around a point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.hardware.tables import TableKind

if TYPE_CHECKING:
    import pandas as pd

MEASURED, INTERPOLATED, FORMULA = "measured", "interpolated", "formula"

_SIZES = (
    "num_tokens",
    "num_token",
    "m",
    "message_size",
    "message_size_elements",
    "past_kv_tokens",
    "isl",
    "batch_size",
)
"""What varies along a curve: the first of these that a table has."""


@dataclass(frozen=True, kw_only=True)
class Interpolated:
    """Seconds [R, measured columns], and where those of each row are from, [R]: MEASURED, INTERPOLATED or FORMULA."""

    seconds: NDArray[np.float64]
    source: NDArray[np.str_]

    def provenance(self) -> dict[str, int]:
        """How many rows are from where."""
        names, counts = np.unique(self.source, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))


def interpolate(table: pd.DataFrame, rows: pd.DataFrame, kind: TableKind, formula: NDArray[np.float64]) -> Interpolated:
    """Latencies of rows from the measurements of a table.

    A row on the curve of measured ones, the same in everything but its size
    (tokens or bytes), is interpolated linearly in the logarithms of size and
    time between the two nearest, as kernels are power laws over short ranges.
    Outside a curve, and where there is none, the formula stands. Rows of the
    table that are known artefacts are left out; of equal ones the median
    counts.

    Args:
        table: measured rows of a kind.
        rows: R rows of the same kind, latencies not needed.
        kind: its layout.
        formula: predicted seconds, [R, measured columns].

    Raises:
        InputError: a column is missing.
    """
    size = next((column for column in _SIZES if column in kind.columns), None)
    if size is None:
        raise InputError(f"{kind.name}: its tables have no size to interpolate along")
    key = [column for column in kind.columns if column not in kind.measured and column != size]
    for frame, needed in ((table, (*key, size, *kind.measured)), (rows, (*key, size))):
        missing = next((column for column in needed if column not in frame), None)
        if missing:
            raise InputError(f"{kind.name}: column {missing} is missing, wanted {', '.join(needed)}")
    seconds = np.array(formula, dtype=np.float64)
    source = np.full(len(rows), FORMULA, dtype=f"<U{len(INTERPOLATED)}")
    curves = _curves(table, kind, key, size)
    asked = rows[key].assign(group=kind.group(rows).astype(str)).reset_index(drop=True)
    sizes = rows[size].to_numpy(dtype=np.float64)
    for name, places in asked.groupby([*key, "group"], sort=False, dropna=False).indices.items():
        curve = curves.get(name)
        if curve is None:
            continue
        known, times = curve
        inside = places[(sizes[places] >= known[0]) & (sizes[places] <= known[-1])]
        for column in range(seconds.shape[1]):
            # tables of counts have zeros, which have no logarithm
            logs = np.log(np.maximum(times[:, column], 1e-15))
            seconds[inside, column] = np.exp(np.interp(np.log(sizes[inside]), np.log(known), logs))
        source[inside] = np.where(np.isin(sizes[inside], known), MEASURED, INTERPOLATED)
    return Interpolated(seconds=seconds, source=source)


def _curves(
    table: pd.DataFrame, kind: TableKind, key: list[str], size: str
) -> Mapping[object, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Ascending sizes [N] and seconds [N, measured columns] of every curve."""
    good = table[kind.usable(table) & (table[size] > 0)]
    good = good.assign(group=kind.group(good).astype(str))
    medians = good.groupby([*key, "group", size], sort=True, dropna=False)[list(kind.measured)].median().reset_index()
    return {
        name: (
            part[size].to_numpy(dtype=np.float64),
            part[list(kind.measured)].to_numpy(dtype=np.float64) * kind.unit_s,
        )
        for name, part in medians.groupby([*key, "group"], sort=False, dropna=False)
    }
