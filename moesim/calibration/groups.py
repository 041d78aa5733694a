"""Rows of a table by the constants that predict them.

A row belongs to a group, as framework/kernel/data type, which has constants, or
which those of another group stand in for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibration.columns import Array
from moesim.hardware.constants import Constants
from moesim.hardware.kernel_dtypes import nearest, with_known_dtype
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

Seconds = Callable[[Mapping[str, float]], Array]
"""From the constants of a group to seconds of its rows, [R]."""
Formula = Callable[[GpuSpec, "pd.DataFrame"], Seconds]
"""From R rows of a GPU to their `Seconds`: what does not depend on the constants is worked out once for a whole fit."""

Related = Callable[[str, str], bool]
"""Whether the constants of a group (the second) may stand in for another (the first)."""


def any_group(group: str, other: str) -> bool:  # noqa: ARG001 - one of Related
    """All groups of a layout may stand in for each other."""
    return True


def same_exchange(group: str, other: str) -> bool:
    """Groups of the same library and of the same direction or operation, their second and their last word."""
    mine, theirs = group.split("/"), other.split("/")
    return (mine[1], mine[-1]) == (theirs[1], theirs[-1])


def constants_for(group: str, constants: Constants, related: Related = any_group) -> Mapping[str, float] | None:
    """The constants of a group, else of the nearest related one; None where there are none."""
    mine = {name: values for name, values in constants.items() if related(group, name)}
    return nearest(with_known_dtype(group, mine), mine)


def predict_groups(
    frame: pd.DataFrame,
    group: pd.Series[str],
    gpus: Mapping[str, GpuSpec],
    constants: Constants,
    formula: Formula,
    related: Related = any_group,
) -> Array:
    """Seconds of R rows, [R]; NaN where no constants stand for a row's group.

    Args:
        frame: the rows.
        group: of each row.
        gpus: by the names in column `system`.
        constants: by group.
        formula: from rows and constants to seconds.
        related: which groups may stand in for which.
    """
    seconds = np.full(len(frame), np.nan)
    found = {name: constants_for(name, constants, related) for name in map(str, group.unique())}
    keys = frame["system"].astype(str) + "\n" + group.astype(str)
    for key, rows in keys.groupby(keys.to_numpy(), sort=True).indices.items():
        system, _, name = str(key).partition("\n")
        if (values := found[name]) is not None:
            seconds[rows] = formula(gpus[system], frame.iloc[rows])(values)
    return seconds
