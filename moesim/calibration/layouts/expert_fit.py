"""Constants of the experts from measured layers: robust least squares with a weak pull towards common constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim.calibration.layouts.expert_rows import ExpertTiming, draws_of, latency, rows_of
from moesim.errors import InputError
from moesim.hardware.constants.fitted import searches
from moesim.hardware.expert import ExpertConstants
from moesim.hardware.kernel_dtypes import KernelDtype, kernel_dtype
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

THROTTLE = 0.23
THROTTLES: Mapping[str, float] = {"fp8": 0.27, "fp8_block": 0.09}
"""The part of the compute rate that the power limit takes, by data type. It is not fitted, as layers that are timed
alone hardly show it: it is what dense products lose (constants/gemm.yaml), and less in block-scaled fp8, which keeps
the tensor cores less busy."""

PULL = 0.1
"""Weight of a constant's distance from where it is pulled to: an e-fold costs as much as a row that is off by 10 %."""

ROBUST = 0.05
"""Relative error from which a row's cost grows in proportion to its error, no longer to the square."""

TILES = ((16.0, 128.0), (16.0, 64.0), (16.0, 256.0))
"""Pairs of the smallest and the largest tile of a kernel, of which the one that fits best is taken."""

DRAWS = 16
MIN_ROWS = 30


def fit(
    frame: pd.DataFrame,
    gpus: Mapping[str, GpuSpec],
    timing: ExpertTiming,
    *,
    tiles: Sequence[tuple[float, float]] = TILES,
    pull: Mapping[str, float] | None = None,
) -> dict[str, dict[str, float]]:
    """The constants of every group of a frame of usable rows, which may mix systems.

    Raises:
        InputError: a group has fewer than 30 rows.
    """
    found = {}
    for group, part in frame.groupby(timing.group(frame), sort=True):
        name = str(group)
        if len(part) < MIN_ROWS:
            raise InputError(f"{name}: found {len(part)} rows, wanted at least {MIN_ROWS} to fit its constants")
        dtype = kernel_dtype(name.rpartition("/")[2])
        throttle = THROTTLES.get(name.rpartition("/")[2], THROTTLE)
        fits = [fit_group(part, gpus, timing, dtype, tiles=pair, throttle=throttle, pull=pull) for pair in tiles]
        found[name] = min(fits, key=lambda fit: fit[0])[1]
    return found


def fit_group(
    frame: pd.DataFrame,
    gpus: Mapping[str, GpuSpec],
    timing: ExpertTiming,
    dtype: KernelDtype,
    *,
    tiles: tuple[float, float],
    throttle: float,
    pull: Mapping[str, float] | None = None,
) -> tuple[float, dict[str, float]]:
    """The cost and the constants of one group, to four digits."""
    from scipy.optimize import least_squares

    search = searches(ExpertConstants)
    names = list(search)
    start = np.log([(pull or {}).get(name, search[name].start) for name in names])
    low, high = (np.log([getattr(search[name], side) for name in names]) for side in ("low", "high"))
    fixed = {"throttle": throttle, "tile_low": tiles[0], "tile_high": tiles[1]}

    def constants(x: NDArray[np.float64]) -> ExpertConstants:
        return ExpertConstants(**dict(zip(names, np.exp(x).tolist(), strict=True)), **fixed)

    parts = [
        (gpus[str(system)], rows_of(part, timing, constants(start), int(str(draws))), part.latency_ms.to_numpy() / 1e3)
        for (system, draws), part in frame.groupby(["system", draws_of(frame, DRAWS)])
    ]

    def misfit(x: NDArray[np.float64]) -> NDArray[np.float64]:
        own = constants(x)
        error = np.concatenate(
            [np.log(latency(rows, gpu, dtype, own, timing) / seconds) for gpu, rows, seconds in parts]
        )
        robust = ROBUST * np.sqrt(2.0 * (np.sqrt(1.0 + (error / ROBUST) ** 2) - 1.0)) * np.sign(error)
        return np.concatenate([robust, PULL * (x - start)])

    found = least_squares(misfit, np.clip(start, low, high), bounds=(low, high), max_nfev=80)
    values = {name: float(f"{value:.4g}") for name, value in zip(names, np.exp(found.x), strict=True)}
    return float(found.cost), values | fixed
