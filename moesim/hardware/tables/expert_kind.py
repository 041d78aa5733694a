"""Kinds of tables of expert layers: one latency in milliseconds of the most loaded rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from moesim.hardware.tables import expert_fit, expert_rows
from moesim.hardware.tables.groups import Array
from moesim.hardware.tables.kind import Constants, Rows, TableKind
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd


def expert_kind(
    *,
    name: str,
    prefixes: tuple[str, ...],
    layout: expert_rows.Layout,
    usable: Rows,
    tiles: Sequence[tuple[float, float]] = expert_fit.TILES,
) -> TableKind:
    """A kind of a layout, whose kernels have one of these pairs of smallest and largest tile."""

    def fitted(frame: pd.DataFrame) -> pd.Series[bool]:
        return expert_rows.fitted_as(frame, name, usable(frame))

    def predict(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
        return expert_rows.predict(frame, gpus, constants, layout)

    def fit(frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
        return expert_fit.fit(frame[usable(frame)], gpus, layout, tiles=tiles)

    return TableKind(
        name=name,
        prefixes=prefixes,
        columns=expert_rows.COLUMNS,
        measured=("latency_ms",),
        unit_s=1e-3,
        group=layout.group,
        regime=expert_rows.regime,
        fitted=fitted,
        usable=usable,
        predict=predict,
        fit=fit,
        noun="experts",
        fewest_rows=expert_fit.FEWEST_ROWS,
    )
