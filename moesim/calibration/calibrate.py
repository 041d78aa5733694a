"""Constants from measurements of one's own, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moesim.atomic import write_file
from moesim.calibration.checks import Inspection
from moesim.calibration.constants_file import used_in_steps
from moesim.calibration.gpus import gpu_of, published_gpus
from moesim.calibration.layout import Layout
from moesim.calibration.reading import Table, far_off, left_out, predict_usable
from moesim.calibration.validate import read
from moesim.errors import InputError
from moesim.hardware.constants import Constants
from moesim.hardware.kernel_dtypes import KERNEL_DTYPES
from moesim.types import GpuSpec

if TYPE_CHECKING:
    import pandas as pd

FOLDS = 5

_ALONG = {
    "num_tokens",
    "num_token",
    "m",
    "batch_size",
    "isl",
    "past_kv_tokens",
    "message_size",
    "message_size_elements",
    "message_bytes",
}
"""Columns that vary along a curve; all others tell curves apart."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Constants by part and group, and their errors.

    `errors`: a row a kind of table and group: `n`, `median` and `p90` of the
    absolute error of the rows fitted, `cv_median` and `cv_p90` of rows that
    were left out curve by curve (NaN where a group has one curve only).
    `artefacts`: rows by table that were not fitted, as they do not show what
    their columns say. `notes`: about latencies that were fitted but are far off.
    """

    name: str
    gpu: str
    source: str
    kernels: dict[str, dict[str, dict[str, float]]]
    errors: pd.DataFrame
    artefacts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def used_in_steps(self) -> dict[str, Constants]:
        """The constants that a scenario which names the file reads; `validate` reads the others too."""
        return used_in_steps(self.kernels)

    def write(self, path: str | Path) -> None:
        """The constants as a YAML file that `cluster.kernels` can name.

        Raises:
            OutputError: it cannot be written there.
        """
        import yaml

        document: dict[str, Any] = {"name": self.name, "gpu": self.gpu, "source": self.source, **self.kernels}
        write_file(path, yaml.safe_dump(document, sort_keys=False, width=118))


def calibrate(
    data: str | Path,
    system: str,
    *,
    name: str = "",
    folds: int = FOLDS,
    progress: Callable[[str, int, int], None] | None = None,
) -> Calibration:
    """Fit the constants of every kind of table to the rows of one system.

    Args:
        data: a folder of tables, or aiconfigurator:<system>.
        system: its name in the tables or among the presets, of a GPU whose specifications are known.
        name: of the calibration; else the system's.
        folds: parts into which the curves of a table are dealt for the cross-validated error; 0 or 1 for none.
        progress: told (what is fitted, fits done, fits in all).

    Raises:
        InputError: a table or row is wrong, the system is unknown or in no table, or a group has too few rows.
    """
    import pandas as pd

    gpu = gpu_of(system)
    if gpu is None:
        raise InputError(f"system: found {system}, wanted one of {', '.join(published_gpus())}")
    reading = read(data)
    if reading.problems:
        raise InputError("; ".join(reading.problems))
    system = _in_tables(system, gpu, reading.tables, data)
    by_kind: dict[str, list[Table]] = {}
    for table in reading.tables:
        if (table.scored & (table.frame["system"] == system)).any():
            by_kind.setdefault(table.layout.name, []).append(table)
    notes: list[str] = []
    for tables in by_kind.values():
        _check_experts(tables, system)
        _check_enough(tables, system)
        notes += _check_units(tables, system)
    kernels: dict[str, dict[str, dict[str, float]]] = {}
    errors = []
    steps = max(1, len(by_kind) * (1 + (folds if folds > 1 else 0)))
    tell = _Teller(progress, steps)
    for tables in by_kind.values():
        layout = tables[0].layout
        parts = [table.frame[table.scored & (table.frame["system"] == system).to_numpy()] for table in tables]
        rows = pd.concat(parts, ignore_index=True)
        gpus = {system: gpu}
        tell(layout.name)
        constants = layout.fit(rows, gpus)
        _check_fitted(tables, layout.group(rows), constants)
        kernels.setdefault(layout.part, {}).update(constants)
        inside = _error(layout, rows, layout.predict(rows, gpus, constants))
        outside = _cross_validated(layout, rows, gpus, folds, tell)
        errors.append(_errors_of(layout, rows, inside, outside))
    return Calibration(
        name=name or system,
        gpu=gpu.name,
        source=f"moesim calibrate, {sum(len(e) for e in errors)} groups of {', '.join(sorted(by_kind))}",
        kernels=kernels,
        errors=pd.concat(errors, ignore_index=True),
        artefacts=left_out(reading.tables, system),
        notes=notes,
    )


def curves(layout: Layout, rows: pd.DataFrame) -> NDArray[np.int64]:
    """Number of the curve of each row: rows of equal shape, which differ in how many tokens or bytes there are."""
    key = [column for column in layout.columns if column not in _ALONG and column not in layout.measured]
    numbers = rows.assign(group=layout.group(rows)).groupby(["group", *key], sort=True, dropna=False).ngroup()
    return np.asarray(numbers.to_numpy(), dtype=np.int64)


def _in_tables(system: str, gpu: GpuSpec, tables: Sequence[Table], data: str | Path) -> str:
    """The name under which usable rows of tables have a system: as given, else the one that is of the same GPU."""
    found = sorted({str(name) for table in tables for name in table.frame["system"][table.scored].unique()})
    same = [system] if system in found else [name for name in found if gpu_of(name) == gpu]
    if len(same) == 1:
        return same[0]
    there = f"usable rows of {', '.join(found)}" if found else "no usable row in any table of a known layout"
    raise InputError(f"{data}: column system: found {there}, wanted {system}")


def _check_enough(tables: list[Table], system: str) -> None:
    """Refuse groups of too few rows in all tables of a kind together."""
    import pandas as pd

    layout, files = tables[0].layout, [table.path for table in tables]
    mine = [table.frame[table.scored & (table.frame["system"] == system).to_numpy()] for table in tables]
    names = pd.concat([layout.group(rows).rename("group").to_frame() for rows in mine], keys=files, names=["file"])
    for group, part in names.groupby("group", sort=False):
        if len(part) < layout.min_rows:
            raise InputError(
                f"{part.index[0][0]}: column {layout.measured[0]}: {len(part)} usable rows of {group} on {system}, "
                f"wanted at least {layout.min_rows} to fit constants"
            )


def _check_experts(tables: list[Table], system: str) -> None:
    """Refuse usable rows of experts that no formula takes: of a data type or division over ranks that is not known."""
    problems: list[str] = []
    for table in tables:
        if table.layout.part != "experts":
            continue
        frame, others = table.frame, ~table.scored | table.frame["system"].ne(system)
        rows = Inspection(path=table.path, frame=frame, raw=frame, problems=problems)
        divided = frame["num_experts"] % frame["moe_ep_size"] == 0
        rows.accept("moe_ep_size", divided | others, "a divisor of num_experts")
        known = frame["moe_dtype"].isin(list(KERNEL_DTYPES))
        rows.accept("moe_dtype", known | others, f"one of {', '.join(KERNEL_DTYPES)}")
    if problems:
        raise InputError("; ".join(problems))


def _check_units(tables: list[Table], system: str) -> list[str]:
    """Notes about rows hundreds of times off what the shipped constants predict; refuse tables in another unit."""
    mine = [replace(table, scored=table.scored & table.frame["system"].eq(system).to_numpy()) for table in tables]
    found = [far_off(table, predict_usable(table)) for table in mine]
    problems = [problem for wrong, _ in found for problem in wrong]
    if problems:
        raise InputError("; ".join(problems))
    return [note for _, doubtful in found for note in doubtful]


def _check_fitted(tables: list[Table], groups: pd.Series[str], constants: Constants) -> None:
    """Refuse groups that the fit left out, which have no more rows than their formula has constants."""
    for group, n in groups.value_counts(sort=False).items():
        if not any(name == group or name.startswith(f"{group}/") for name in constants):
            raise InputError(
                f"{tables[0].path}: column {tables[0].layout.measured[0]}: {n} usable rows of {group}, "
                "wanted more than its formula has constants"
            )


def _cross_validated(
    layout: Layout, rows: pd.DataFrame, gpus: Mapping[str, GpuSpec], folds: int, tell: _Teller
) -> NDArray[np.float64]:
    """Errors of each row and measured column by constants that never saw its curve, NaN where too few others are."""
    error = np.full((len(rows), len(layout.measured)), np.nan)
    number, group = curves(layout, rows), layout.group(rows)
    n_folds = min(folds, int(number.max()) + 1)
    if n_folds < 2:
        return error
    for fold in range(n_folds):
        out = number % n_folds == fold
        tell(f"{layout.name}, fold {fold + 1}")
        sizes = group[~out].value_counts()
        known = group.isin(sizes[sizes >= layout.min_rows].index).to_numpy()
        if (out & known).any():
            constants = layout.fit(rows[~out & known].reset_index(drop=True), gpus)
            left = rows[out & known].reset_index(drop=True)
            error[out & known] = _error(layout, left, layout.predict(left, gpus, constants))
    return error


def _error(layout: Layout, rows: pd.DataFrame, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Absolute error as a share of the measured latency, [R, measured]; NaN where nothing was measured."""
    measured = rows[list(layout.measured)].to_numpy(dtype=np.float64) * layout.unit_s
    ratio = np.divide(seconds, measured, out=np.full(measured.shape, np.nan), where=measured > 0)
    return np.asarray(np.abs(ratio - 1))


def _errors_of(
    layout: Layout, rows: pd.DataFrame, inside: NDArray[np.float64], outside: NDArray[np.float64]
) -> pd.DataFrame:
    import pandas as pd

    names = layout.group(rows).to_numpy()
    found = []
    for group in sorted(set(names)):
        here = names == group
        row: dict[str, object] = {"kind": layout.name, "group": group, "n": int(here.sum())}
        for prefix, error in (("", inside[here]), ("cv_", outside[here])):
            some = error[np.isfinite(error)]
            row[f"{prefix}median"] = float(np.median(some)) if len(some) else np.nan
            row[f"{prefix}p90"] = float(np.quantile(some, 0.9)) if len(some) else np.nan
        found.append(row)
    return pd.DataFrame(found)


class _Teller:
    """Counts fits for a progress bar."""

    def __init__(self, progress: Callable[[str, int, int], None] | None, steps: int) -> None:
        self._progress, self._steps, self._done = progress, steps, 0

    def __call__(self, what: str) -> None:
        if self._progress is not None:
            self._progress(what, min(self._done, self._steps), self._steps)
        self._done += 1
