"""Many runs as one frame: the axes they differ on, then variant, seed and the summary keys.

It is the form of a sweep's summary.parquet, so that the figures of a sweep and
of a comparison are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from moesim.frames import axes_of, flatten, nested
from moesim.report.run import Run, RunLike

NONE = "none"
"""How an absent capacity, substitution and the like read on an axis."""

_UNITS_OF_FIELDS = ("cluster.gpu", "cluster.network", "model")
"""Presets: their name stands for all their fields."""


def points_of(runs: Mapping[str, RunLike]) -> pd.DataFrame:
    """A row a run: the scenario fields that differ between the runs, variant, seed, summary keys joined by dots.

    A field that a run lacks, as the factor of no capacity, is None.
    """
    fields = differing({name: run.scenario for name, run in runs.items()})
    rows = []
    for name, run in runs.items():
        known = scenario_fields(run.scenario)
        rows.append(
            {
                **{field: known.get(field) for field in fields},
                "variant": name,
                "seed": run.manifest.get("seed"),
                **flatten(run.summary),
            }
        )
    return pd.DataFrame(rows, columns=list(dict.fromkeys(key for row in rows for key in row)))


def with_axes(points: pd.DataFrame, runs: Mapping[str, RunLike]) -> pd.DataFrame:
    """Points ready for the figures: mappings on an axis become their fields, and compared variants get axes.

    Points that have no axis, as those of several seeds of compared variants,
    take the fields on which the scenarios of `runs` differ.
    """
    axes = axes_of(points)
    if not axes and runs:
        known = points_of(runs).set_index("variant")
        fields = known[list(known.columns[: list(known.columns).index("seed")])]
        found = pd.DataFrame({field: points["variant"].map(fields[field].to_dict()) for field in fields})
        return pd.concat([found, points], axis=1)
    columns = [part for axis in axes for part in _unfolded(points[axis])]
    return pd.concat([*columns, points[[name for name in points.columns if name not in axes]]], axis=1)


def _unfolded(axis: pd.Series[Any]) -> list[pd.Series[Any]]:
    """An axis of mappings written as JSON, such as capacities, as one axis a field; any other axis as it is."""
    trees = []
    for value in axis:
        try:
            tree = json.loads(value) if isinstance(value, str) and value.startswith("{") else None
        except ValueError:
            tree = None
        trees.append(scenario_fields({str(axis.name): tree}) if isinstance(tree, dict) else {})
    fields = list(dict.fromkeys(field for tree in trees for field in tree))
    if not fields:
        return [axis]
    return [pd.Series([tree.get(field) for tree in trees], name=field, index=axis.index) for field in fields]


def averaged(runs: Mapping[str, RunLike], points: pd.DataFrame) -> Mapping[str, RunLike]:
    """The runs with the mean over seeds as their summary, where points hold several seeds of every run's variant.

    The frames stay those of the run itself, which is one seed.
    """
    parts = {name: points[points["variant"] == name] for name in runs}
    if any(len(part) < 2 or part["seed"].nunique() < len(part) for part in parts.values()):
        return runs
    frames = ("steps", "layers", "experts", "gpus", "links", "timeline", "scenario", "manifest")
    return {
        name: Run(name=run.name, summary=nested(means(parts[name])), **{frame: getattr(run, frame) for frame in frames})
        for name, run in runs.items()
    }


def means(points: pd.DataFrame) -> dict[str, float]:
    """The mean of every numeric summary key over the rows."""
    after = points.iloc[:, list(points.columns).index("variant") + 1 :]
    numbers = after.select_dtypes("number").drop(columns="seed", errors="ignore")
    return {str(key): float(value) for key, value in numbers.mean().items() if np.isfinite(value)}


def differing(scenarios: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The dotted fields that differ between resolved scenarios, without names and without what a preset's name says."""
    trees = [scenario_fields(scenario) for scenario in scenarios.values()]
    names = list(dict.fromkeys(field for tree in trees for field in tree if field not in ("name", "seed")))
    values = {field: [_key(tree.get(field)) for tree in trees] for field in names}
    differ = [field for field in names if len(set(values[field])) > 1]
    return [field for field in differ if not _said_by(_name_of(field), field, values)]


_FILES = ("trace", "kernels", "table", "family")
"""Fields that may name a file: recordings, constants and measured tables of kernels."""


def scenario_fields(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted fields of a scenario without `compare` and `sweep`; a file is its name, as folders differ."""
    flat = flatten({key: value for key, value in scenario.items() if key not in ("compare", "sweep")})
    return {
        field: PurePath(value).name if field.rpartition(".")[2] in _FILES and isinstance(value, str) else value
        for field, value in flat.items()
    }


def _name_of(field: str) -> str | None:
    """The field that names the preset which this field is part of; EP size is named by the number of ranks."""
    if field in ("cluster.nodes", "cluster.gpus_per_node"):
        return "parallelism.expert"
    unit = next((unit for unit in _UNITS_OF_FIELDS if field.startswith(f"{unit}.")), None)
    return None if unit is None else f"{unit}.name"


def _said_by(name: str | None, field: str, values: Mapping[str, Sequence[str]]) -> bool:
    """Whether one value of `name` always comes with one value of the field."""
    if name is None or name == field or name not in values or len(set(values[name])) < 2:
        return False
    return len(set(zip(values[name], values[field], strict=True))) == len(set(values[name]))


def _key(value: Any) -> str:
    return repr(value)
