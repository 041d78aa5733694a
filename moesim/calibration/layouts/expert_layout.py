"""Layouts of expert layers: one latency in milliseconds of the most loaded rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moesim.calibration.columns import Array
from moesim.calibration.layout import Layout, Rows
from moesim.calibration.layouts import expert_fit, expert_rows
from moesim.hardware.constants import Constants
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class ExpertLayout(Layout):
    """A layout whose rows were timed as `timing` says, of kernels that have one of the pairs `tiles`."""

    timing: expert_rows.ExpertTiming
    tiles: Sequence[tuple[float, float]]

    def predict(self, frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
        """Seconds [R, 1]: the mean over draws of each row's loads."""
        return expert_rows.predict(frame, gpus, constants, self.timing)

    def fit(self, frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
        """The constants of every group of usable rows.

        Raises:
            InputError: a group has too few of them.
        """
        return expert_fit.fit(frame[self.usable(frame)], gpus, self.timing, tiles=self.tiles)


def expert_layout(
    *,
    name: str,
    prefixes: tuple[str, ...],
    timing: expert_rows.ExpertTiming,
    usable: Rows,
    tiles: Sequence[tuple[float, float]] = expert_fit.TILES,
) -> ExpertLayout:
    """A layout of expert layers; constants/experts.yaml says which of its rows the shipped constants saw."""

    def fitted(frame: pd.DataFrame) -> pd.Series[bool]:
        return expert_rows.fitted_as(frame, name, usable(frame))

    return ExpertLayout(
        name=name,
        part="experts",
        prefixes=prefixes,
        columns=expert_rows.COLUMNS,
        group=timing.group,
        regime=expert_rows.regime,
        fitted=fitted,
        usable=usable,
        min_rows=expert_fit.MIN_ROWS,
        timing=timing,
        tiles=tiles,
    )
