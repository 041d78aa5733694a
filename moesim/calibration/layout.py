"""What every kind of measured table says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.constants import Constants
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

Group = Callable[["pd.DataFrame"], "pd.Series[str]"]
Rows = Callable[["pd.DataFrame"], "pd.Series[bool]"]
Predict = Callable[["pd.DataFrame", Mapping[str, GpuSpec], Constants], NDArray[np.float64]]
Fit = Callable[["pd.DataFrame", Mapping[str, GpuSpec]], dict[str, dict[str, float]]]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One layout of measured tables.

    `prefixes` are beginnings of file names, of which the longest of all kinds
    decides; `columns` are required, "number" or "text"; `measured` are the
    columns of latencies, `unit_s` the seconds of one of their units; `sums`
    gives those of them that add up other columns. All
    callables take a frame of R rows that has the required columns: `group`
    gives the name of the constants of each row (framework/kernel/data type),
    `regime` a short word for the error table, `fitted` whether the shipped
    constants saw the row (bool), `usable` whether it is to be scored (false
    for known artefacts). `predict(frame, gpus, constants)` gives seconds
    [R, len(measured)], NaN where nothing is known of a row's group; `gpus` has
    a GpuSpec for each name in the column `system`. `fit(frame, gpus)` gives
    the constants of the groups in the frame, each of which needs `min_rows`.
    `part` is the file of `moesim.hardware.constants` that holds them.
    """

    name: str
    part: str
    prefixes: tuple[str, ...]
    columns: Mapping[str, str]
    measured: tuple[str, ...]
    unit_s: float
    group: Group
    regime: Group
    fitted: Rows
    usable: Rows
    predict: Predict
    fit: Fit
    min_rows: int = 12
    sums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def needed(self) -> tuple[str, ...]:
        """All columns that a table must have."""
        return (*self.columns, *(column for parts in self.sums.values() for column in parts))


LAYOUTS: Mapping[str, str] = {
    "allreduce": "moesim.calibration.layouts.allreduce:LAYOUT",
    "attention_context": "moesim.calibration.layouts.attention_context:LAYOUT",
    "attention_generation": "moesim.calibration.layouts.attention_generation:LAYOUT",
    "deepep_ll": "moesim.calibration.layouts.deepep_ll:LAYOUT",
    "deepep_normal": "moesim.calibration.layouts.deepep_normal:LAYOUT",
    "elementwise": "moesim.calibration.layouts.elementwise:LAYOUT",
    "gemm": "moesim.calibration.layouts.gemm:LAYOUT",
    "mla_bmm": "moesim.calibration.layouts.mla_bmm:LAYOUT",
    "mla_context": "moesim.calibration.layouts.mla_context:LAYOUT",
    "mla_generation": "moesim.calibration.layouts.mla_generation:LAYOUT",
    "mlp": "moesim.calibration.layouts.mlp:LAYOUT",
    "moe": "moesim.calibration.layouts.moe:LAYOUT",
    "moe_a2a": "moesim.calibration.layouts.moe_a2a:LAYOUT",
    "nccl": "moesim.calibration.layouts.nccl:LAYOUT",
    "wideep_context": "moesim.calibration.layouts.wideep_context:LAYOUT",
    "wideep_generation": "moesim.calibration.layouts.wideep_generation:LAYOUT",
    "wideep_trtllm_eplb": "moesim.calibration.layouts.wideep_trtllm_eplb:LAYOUT",
}
"""Name -> 'module:attribute' of its TableKind; names and prefixes are read without importing a kernel."""


def load_layout(name: str) -> Layout:
    """The kind of that name.

    Raises:
        KeyError: there is none.
    """
    module, _, attribute = LAYOUTS[name].partition(":")
    kind: Any = getattr(import_module(module), attribute)
    assert isinstance(kind, Layout)
    return kind


def layout_of(stem: str, columns: Iterable[str]) -> Layout | None:
    """The kind of a table by the longest matching prefix of its file name, then by its columns; None if unknown."""
    kinds, given = [load_layout(name) for name in LAYOUTS], set(columns)
    by_name = [(len(prefix), kind) for kind in kinds for prefix in kind.prefixes if stem.startswith(prefix)]
    fits = [kind for kind in kinds if set(kind.needed) <= given]
    if by_name:
        longest = max(length for length, _ in by_name)
        named = [kind for length, kind in by_name if length == longest]
        return next((kind for kind in named if kind in fits), named[0])
    return max(fits, key=lambda kind: len(kind.needed), default=None)
