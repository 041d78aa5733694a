"""Rows of a table by the constants that predict them, and fitting constants to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.constants import Constants
from moesim.hardware.constants.fitted import Search
from moesim.hardware.kernel_dtypes import nearest
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Loss = Literal["soft_l1", "cauchy"]
Fixed = Callable[[str, "pd.DataFrame"], Mapping[str, float]]
"""Constants of a group that its rows do not show or that it is known to lack, by its name and rows."""


def subset(constants: Constants, part: str, ending: str) -> dict[str, Mapping[str, float]]:
    """The constants of groups <framework>/<noun>/.../<ending>."""
    return {
        name: values
        for name, values in constants.items()
        if name.split("/")[1] == part and name.split("/")[-1] == ending
    }


def fit_rows(
    search: Mapping[str, Search],
    free: Sequence[str],
    fixed: Mapping[str, float],
    rows: pd.DataFrame,
    gpus: Mapping[str, GpuSpec],
    seconds: Callable[[Mapping[str, float], GpuSpec, pd.DataFrame], Array],
    measured_s: Callable[[pd.DataFrame], Array],
    loss: Loss = "soft_l1",
    pull: float = 0.0,
) -> dict[str, float]:
    """`fit_group` on rows that may be of several GPUs."""
    parts = [(gpus[str(system)], part) for system, part in rows.groupby("system", sort=True)]

    def predict(c: Mapping[str, float]) -> Array:
        return np.concatenate([seconds(c, gpu, part) for gpu, part in parts])

    return fit_group(search, free, fixed, predict, np.concatenate([measured_s(part) for _, part in parts]), loss, pull)


def to_fit(
    frame: pd.DataFrame, group: pd.Series[str], search: Mapping[str, Search], fixed: Fixed
) -> Iterator[tuple[str, pd.DataFrame, Mapping[str, float], list[str]]]:
    """(name, rows, fixed constants, free constants) of the groups that have more rows than free constants."""
    for name, rows in frame.groupby(group.to_numpy()):
        known = fixed(str(name), rows)
        free = [constant for constant in search if constant not in known]
        if len(rows) > len(free):
            yield str(name), rows, known, free


def by_group(
    frame: pd.DataFrame, group: pd.Series[str], gpus: Mapping[str, GpuSpec], constants: Constants
) -> Iterator[tuple[NDArray[np.int64], GpuSpec, Mapping[str, float]]]:
    """(row numbers, GPU, constants) of the rows that share a group and a system, where there are constants."""
    keys = frame["system"].astype(str) + "\n" + group.astype(str)
    for key, rows in keys.groupby(keys.to_numpy(), sort=True).indices.items():
        system, _, name = str(key).partition("\n")
        found = nearest(name, constants)
        if found is not None:
            yield np.asarray(rows, dtype=np.int64), gpus[system], found


def numbers(frame: pd.DataFrame, *columns: str) -> tuple[Array, ...]:
    """Columns as float64 arrays."""
    return tuple(frame[column].to_numpy(dtype=np.float64) for column in columns)


def measured_s(frame: pd.DataFrame) -> Array:
    """Latencies of a table in milliseconds, in seconds."""
    return np.asarray(1e-3 * frame["latency_ms"].to_numpy(dtype=np.float64))


def text(frame: pd.DataFrame, column: str, otherwise: str = "") -> pd.Series[str]:
    """A column as text, or the same text for all rows where a layout has no such column."""
    import pandas as pd

    if column in frame:
        return frame[column].astype(str)
    return pd.Series(otherwise, index=frame.index, dtype=str)


def fit_group(
    constants: Mapping[str, Search],
    free: Sequence[str],
    fixed: Mapping[str, float],
    predict: Callable[[Mapping[str, float]], Array],
    measured: Array,
    loss: Loss = "soft_l1",
    pull: float = 0.0,
) -> dict[str, float]:
    """The constants that fit positive measurements: `free` ones are searched, others are as in `fixed`.

    Robust least squares on logarithms, so that every row counts by its
    relative error and no artefact decides; "cauchy" is for tables with many.
    With `pull` each constant is drawn to where its search begins: an e-fold
    counts as a row that is off by so much.
    """
    from scipy.optimize import least_squares

    begin = np.log([constants[name].start for name in free])
    low, high = (np.log([getattr(constants[name], side) for name in free]) for side in ("low", "high"))
    others = {name: fixed.get(name, constant.start) for name, constant in constants.items()}

    def with_free(x: Array) -> dict[str, float]:
        return others | dict(zip(free, np.exp(x).tolist(), strict=True))

    def misfit(x: Array) -> Array:
        return np.concatenate([np.log(predict(with_free(x)) / measured), pull * (x - begin)])

    found = least_squares(misfit, begin, bounds=(low, high), loss=loss, f_scale=0.05, x_scale="jac")
    return {name: float(f"{value:.4g}") for name, value in with_free(found.x).items()}
