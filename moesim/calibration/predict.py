"""Predicting the rows of measured tables with the shipped constants, or with others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim.calibration.checks import Inspection, right_inputs, typed
from moesim.calibration.gpus import gpu_of, published_gpus
from moesim.calibration.layout import LAYOUTS, Layout, layout_of, load_layout
from moesim.errors import InputError
from moesim.hardware.constants import Constants, load
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd


def predict_table(
    frame: pd.DataFrame,
    *,
    kind: str | None = None,
    name: str = "",
    gpus: Mapping[str, GpuSpec] | None = None,
    constants: Constants | None = None,
) -> NDArray[np.float64]:
    """Predicted latency of every row of a measured table, in the unit of its own latencies, [R].

    The sum of a table's several measured columns; NaN where nothing is known of a row's group.

    Args:
        frame: R rows in one of the layouts of `KINDS`.
        kind: which of them; else known by `name`, the file's, then by the columns.
        name: name of the file without its ending.
        gpus: specifications by the names in column `system`; else the published ones of the presets.
        constants: groups of constants instead of the shipped ones.

    Raises:
        InputError: no known layout, a column is missing, or a row holds what cannot be predicted; the text names row
            and column.
    """
    if kind is not None and kind not in LAYOUTS:
        raise InputError(f"kind: found {kind}, wanted one of {', '.join(LAYOUTS)}")
    found = load_layout(kind) if kind is not None else layout_of(name, frame.columns)
    where = name or "table"
    if found is None:
        raise InputError(f"{where}: its columns are those of no known kind of table ({', '.join(LAYOUTS)})")
    missing = [column for column in found.columns if column not in frame]
    if missing:
        raise InputError(f"{where}: column {missing[0]} is missing, wanted {', '.join(found.columns)}")
    rows, problems = typed(frame.reset_index(drop=True), found), list[str]()
    systems = {str(system): gpu_of(str(system), gpus) for system in rows["system"].unique()}
    table = Inspection(path=where, frame=rows, raw=frame, problems=problems)
    right_inputs(table, found, systems, gpus or published_gpus())
    if problems:
        raise InputError("; ".join(problems))
    seconds = predict_columns(rows, found, gpus=gpus, constants=constants)
    return np.asarray(seconds.sum(axis=1) / found.unit_s)


def predict_columns(
    frame: pd.DataFrame,
    layout: Layout,
    *,
    gpus: Mapping[str, GpuSpec] | None = None,
    constants: Constants | None = None,
) -> NDArray[np.float64]:
    """Predicted seconds of each measured column of each row, [R, measured columns].

    Raises:
        InputError: a system is unknown.
    """
    systems = {str(system): gpu_of(str(system), gpus) for system in frame["system"].unique()}
    for system, gpu in systems.items():
        if gpu is None:
            raise InputError(f"column system: found {system}, wanted one of {', '.join(gpus or published_gpus())}")
    known = {system: gpu for system, gpu in systems.items() if gpu is not None}
    return layout.predict(frame, known, constants if constants is not None else shipped(layout))


def shipped(layout: Layout) -> Constants:
    """The constants that ship with moesim for a layout."""
    return load(layout.part)


def parts() -> set[str]:
    """The files of constants of all layouts."""
    return {layout.part for layout in map(load_layout, LAYOUTS)}
