"""Fitting constants to rows: robust least squares on logarithms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from moesim.calibration.columns import Array
from moesim.calibration.groups import Formula
from moesim.hardware.constants.fitted import Search
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

Loss = Literal["soft_l1", "cauchy"]


def fit_rows(
    rows: pd.DataFrame,
    gpus: Mapping[str, GpuSpec],
    formula: Formula,
    measured_s: Callable[[pd.DataFrame], Array],
    search: Mapping[str, Search],
    fixed: Mapping[str, float],
    *,
    free: Sequence[str] | None = None,
    loss: Loss = "soft_l1",
    pull: float = 0.0,
) -> dict[str, float]:
    """The constants that fit rows, which may be of several GPUs.

    Args:
        rows: with a column `system`.
        gpus: by the names in it.
        formula: from rows and constants to seconds.
        measured_s: from rows to their measured seconds.
        search: where the constants are searched.
        fixed: values of constants that are not.
        free: names of those that are searched, by default all that are not fixed; others stay where a search begins.
        loss: as in `fit_constants`.
        pull: as in `fit_constants`.
    """
    parts = [(gpus[str(system)], part) for system, part in rows.groupby("system", sort=True)]
    prepared = [formula(gpu, part) for gpu, part in parts]

    def predict(constants: Mapping[str, float]) -> Array:
        return np.concatenate([seconds(constants) for seconds in prepared])

    measured = np.concatenate([measured_s(part) for _, part in parts])
    names = free_of(search, fixed) if free is None else free
    return fit_constants(search, names, fixed, predict, measured, loss, pull)


def free_of(search: Mapping[str, Search], fixed: Mapping[str, float]) -> list[str]:
    """The constants that are not fixed."""
    return [name for name in search if name not in fixed]


def fit_constants(
    search: Mapping[str, Search],
    free: Sequence[str],
    fixed: Mapping[str, float],
    predict: Callable[[Mapping[str, float]], Array],
    measured: Array,
    loss: Loss = "soft_l1",
    pull: float = 0.0,
) -> dict[str, float]:
    """The constants that fit positive measurements, to four digits: `free` ones are searched, others as in `fixed`.

    Robust least squares on logarithms, so that every row counts by its
    relative error and no artefact decides; "cauchy" is for tables with many.
    With `pull` each constant is drawn to where its search begins: an e-fold
    counts as a row that is off by so much.
    """
    from scipy.optimize import least_squares

    begin = np.log([search[name].start for name in free])
    low, high = (np.log([getattr(search[name], side) for name in free]) for side in ("low", "high"))
    others = {name: fixed.get(name, constant.start) for name, constant in search.items()}

    def with_free(x: Array) -> dict[str, float]:
        return others | dict(zip(free, np.exp(x).tolist(), strict=True))

    def misfit(x: Array) -> Array:
        return np.concatenate([np.log(predict(with_free(x)) / measured), pull * (x - begin)])

    found = least_squares(misfit, begin, bounds=(low, high), loss=loss, f_scale=0.05, x_scale="jac")
    return {name: float(f"{value:.4g}") for name, value in with_free(found.x).items()}
