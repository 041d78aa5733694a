"""What every layout of measured tables says of itself, and which layouts there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from moesim.calibration.columns import Array, measured_seconds
from moesim.calibration.fitting import Loss, fit_rows, free_of
from moesim.calibration.groups import Formula, Related, any_group, predict_groups
from moesim.hardware.constants import Constants
from moesim.hardware.constants.fitted import searches
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

Group = Callable[["pd.DataFrame"], "pd.Series[str]"]
Rows = Callable[["pd.DataFrame"], "pd.Series[bool]"]
Fixed = Callable[[str, "pd.DataFrame"], Mapping[str, float]]
"""From the name and the rows of a group the constants that its rows do not show or that its kernel lacks."""


@dataclass(frozen=True, kw_only=True)
class Layout(ABC):
    """One layout of measured tables.

    `prefixes` are beginnings of file names, of which the longest of all layouts
    decides; `columns` are required, "number" or "text"; `measured` are the
    columns of latencies, `unit_s` the seconds of one of their units; `sums`
    names those of them that add up other columns. All callables take a frame of
    R rows that has the required columns: `group` names the constants of each
    row (framework/kernel/data type), `regime` is a short word for the error
    table, `fitted` says whether the shipped constants saw the row, `usable`
    whether it is scored (false for known artefacts). `part` is the file of
    `moesim.hardware.constants` that holds the constants; a group needs
    `min_rows` to be fitted.
    """

    name: str
    part: str
    prefixes: tuple[str, ...]
    columns: Mapping[str, str]
    measured: tuple[str, ...] = ("latency_ms",)
    unit_s: float = 1e-3
    group: Group
    regime: Group
    fitted: Rows
    usable: Rows
    min_rows: int = 12
    sums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def needed(self) -> tuple[str, ...]:
        """All columns that a table must have."""
        return (*self.columns, *(column for parts in self.sums.values() for column in parts))

    @abstractmethod
    def predict(self, frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
        """Seconds [R, len(measured)] of R rows; NaN where nothing is known of a row's group.

        Args:
            frame: the rows.
            gpus: a GpuSpec for each name in column `system`.
            constants: by group.
        """

    @abstractmethod
    def fit(self, frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
        """The constants of the groups of a frame, by group."""


def _none_fixed(name: str, rows: pd.DataFrame) -> Mapping[str, float]:  # noqa: ARG001 - one of Fixed
    return {}


def _soft(name: str) -> Loss:  # noqa: ARG001 - as other losses
    return "soft_l1"


@dataclass(frozen=True, kw_only=True)
class GroupedLayout(Layout):
    """A layout of one measured column, all of whose groups have the same formula.

    `formula` predicts rows with the constants of `kernel`, a dataclass whose
    fields say where a fit searches them; `fixed` gives those of a group that are
    not searched. `loss`, by the name of the group, and `pull` are those of
    `fit_constants`. `related` says which groups may stand in for each other. A
    group is fitted if it has more rows than constants to find, or in any case if
    it may be `underdetermined`.
    """

    formula: Formula
    kernel: type[Any]
    fixed: Fixed = _none_fixed
    loss: Callable[[str], Loss] = _soft
    pull: float = 0.0
    related: Related = any_group
    underdetermined: bool = False

    def predict(self, frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> Array:
        """Seconds [R, 1] by the constants of each row's group, or of the group that stands in for it."""
        return predict_groups(frame, self.group(frame), gpus, constants, self.formula, self.related)[:, None]

    def fit(self, frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
        """The constants of every group with enough usable rows."""
        usable, search = frame[self.usable(frame)], searches(self.kernel)
        found = {}
        for word, rows in usable.groupby(self.group(usable).to_numpy(), sort=True):
            name = str(word)
            fixed = self.fixed(name, rows)
            if self.underdetermined or len(rows) > len(free_of(search, fixed)):
                loss = self.loss(name)
                found[name] = fit_rows(
                    rows, gpus, self.formula, self.measured_s, search, fixed, loss=loss, pull=self.pull
                )
        return found

    def measured_s(self, frame: pd.DataFrame) -> Array:
        """The measured seconds of rows, [R]."""
        return measured_seconds(frame, self.measured[0], self.unit_s)


def layer_columns(**columns: str) -> dict[str, str]:
    """The columns of a layer's layout: system, framework, those given, and `latency_ms`."""
    return {"system": "text", "framework": "text", **columns, "latency_ms": "number"}


LAYOUTS = (
    "allreduce",
    "attention_context",
    "attention_generation",
    "deepep_ll",
    "deepep_normal",
    "elementwise",
    "gemm",
    "mla_bmm",
    "mla_context",
    "mla_generation",
    "mlp",
    "moe",
    "moe_a2a",
    "nccl",
    "wideep_context",
    "wideep_generation",
    "wideep_trtllm_eplb",
)
"""The layouts, each a module of `moesim.calibration.layouts` with a `LAYOUT`."""


def load_layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        KeyError: there is none.
    """
    if name not in LAYOUTS:
        raise KeyError(name)
    found: Any = import_module(f"moesim.calibration.layouts.{name}").LAYOUT
    assert isinstance(found, Layout)
    return found


def layout_of(stem: str, columns: Iterable[str]) -> Layout | None:
    """The layout of a table by the longest matching prefix of its file name, then by its columns; None if unknown."""
    layouts, given = [load_layout(name) for name in LAYOUTS], set(columns)
    by_name = [(len(prefix), layout) for layout in layouts for prefix in layout.prefixes if stem.startswith(prefix)]
    fits = [layout for layout in layouts if set(layout.needed) <= given]
    if by_name:
        longest = max(length for length, _ in by_name)
        named = [layout for length, layout in by_name if length == longest]
        return next((layout for layout in named if layout in fits), named[0])
    return max(fits, key=lambda layout: len(layout.needed), default=None)
