"""What every kind of measured table says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

Constants = Mapping[str, Mapping[str, float]]
"""Constants of each group of rows, {"trtllm/cutlass/fp8_block": {"launch_s": ...}}: plain data, as in YAML."""


Group = Callable[["pd.DataFrame"], "pd.Series[str]"]
Rows = Callable[["pd.DataFrame"], "pd.Series[bool]"]
Predict = Callable[["pd.DataFrame", Mapping[str, GpuSpec], Constants], NDArray[np.float64]]
Fit = Callable[["pd.DataFrame", Mapping[str, GpuSpec]], dict[str, dict[str, float]]]


@dataclass(frozen=True, kw_only=True)
class TableKind:
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
    the constants of the groups in the frame, each of which needs `fewest_rows`.
    `noun` is the file of `moesim.hardware.constants` that holds them, by
    default the kind's name.
    """

    name: str
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
    noun: str = ""
    fewest_rows: int = 12
    sums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def needed(self) -> tuple[str, ...]:
        """All columns that a table must have."""
        return (*self.columns, *(column for parts in self.sums.values() for column in parts))

    def __post_init__(self) -> None:
        """Fill in the noun."""
        object.__setattr__(self, "noun", self.noun or self.name)


KINDS: Mapping[str, str] = {
    "allreduce": "moesim.hardware.tables.allreduce:KIND",
    "attention_context": "moesim.hardware.tables.attention_context:KIND",
    "attention_generation": "moesim.hardware.tables.attention_generation:KIND",
    "deepep_ll": "moesim.hardware.tables.deepep_ll:KIND",
    "deepep_normal": "moesim.hardware.tables.deepep_normal:KIND",
    "elementwise": "moesim.hardware.tables.elementwise:KIND",
    "gemm": "moesim.hardware.tables.gemm:KIND",
    "mla_bmm": "moesim.hardware.tables.mla_bmm:KIND",
    "mla_context": "moesim.hardware.tables.mla_context:KIND",
    "mla_generation": "moesim.hardware.tables.mla_generation:KIND",
    "mlp": "moesim.hardware.tables.mlp:KIND",
    "moe": "moesim.hardware.tables.moe:KIND",
    "moe_a2a": "moesim.hardware.tables.moe_a2a:KIND",
    "nccl": "moesim.hardware.tables.nccl:KIND",
    "wideep_context": "moesim.hardware.tables.wideep_context:KIND",
    "wideep_generation": "moesim.hardware.tables.wideep_generation:KIND",
    "wideep_trtllm_eplb": "moesim.hardware.tables.wideep_trtllm_eplb:KIND",
}
"""Name -> 'module:attribute' of its TableKind; names and prefixes are read without importing a kernel."""


def load_kind(name: str) -> TableKind:
    """The kind of that name.

    Raises:
        KeyError: there is none.
    """
    module, _, attribute = KINDS[name].partition(":")
    kind: Any = getattr(import_module(module), attribute)
    assert isinstance(kind, TableKind)
    return kind


def kind_of(stem: str, columns: Iterable[str]) -> TableKind | None:
    """The kind of a table by the longest matching prefix of its file name, then by its columns; None if unknown."""
    kinds, given = [load_kind(name) for name in KINDS], set(columns)
    by_name = [(len(prefix), kind) for kind in kinds for prefix in kind.prefixes if stem.startswith(prefix)]
    fits = [kind for kind in kinds if set(kind.needed) <= given]
    if by_name:
        longest = max(length for length, _ in by_name)
        named = [kind for length, kind in by_name if length == longest]
        return next((kind for kind in named if kind in fits), named[0])
    return max(fits, key=lambda kind: len(kind.needed), default=None)
