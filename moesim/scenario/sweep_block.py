"""The points of a `sweep:` block: a list of them, random draws, a grid, or their product."""

from __future__ import annotations

import json
import math
import zlib
from itertools import product
from typing import Any

import numpy as np

from moesim.scenario.renamed import SWEEP_PARTS, former_field
from moesim.scenario.source import Fail, FieldPath, shown

Point = dict[str, Any]

MAX_POINTS = 100_000
NO_AXES = ("scenario_version", "extends", "compare", "sweep")
"""Fields that no simulated scenario has: they say how the file is read."""
_AXES = "a mapping of dotted fields to lists of one value or more"

_GRID = {"type": "object", "description": "dotted field: values", "additionalProperties": {"type": "array"}}
_RANGE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "low": {"type": "number"},
        "high": {"type": "number"},
        "scale": {"enum": ["linear", "log"]},
        "integer": {"type": "boolean"},
    },
    "required": ["low", "high"],
    "additionalProperties": False,
}
_RANDOM = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 1},
        "seed": {"type": "integer", "minimum": 0},
        "axes": {"type": "object", "additionalProperties": {"anyOf": [{"type": "array"}, _RANGE]}},
    },
    "required": ["n", "axes"],
    "additionalProperties": False,
}
_LIST = {"type": "array", "items": {"type": "object", "description": "dotted field: value"}}
SWEEP_SCHEMA = {
    "type": "object",
    "description": "a grid, dotted field: values; or list, random and grid, whose points are multiplied",
    "properties": {"list": _LIST, "random": _RANDOM, "grid": _GRID},
    "additionalProperties": {"type": "array"},
}


def read_sweep(block: Any, fail: Fail) -> list[Point]:
    """The points that a `sweep:` block names, dotted field -> value, each once; all have the same fields.

    A block is a grid, or names its parts: `grid` (field -> values, the last field fastest), `list` (mappings of the
    same fields), `random` (n, seed, axes: field -> list of choices or {low, high, scale: linear | log, integer}, both
    ends included). Of several parts every point of one meets every point of the others.

    Raises:
        ScenarioError: the block has another form, a field stands in two parts, or there are above MAX_POINTS points.
    """
    if block is None:
        return []
    if not isinstance(block, dict):
        raise fail(("sweep",), shown(block), _AXES)
    if not any(part in block for part in SWEEP_PARTS):
        parts, prefix = {"grid": block}, ("sweep",)
    else:
        parts = {part: block[part] for part in SWEEP_PARTS if part in block}
        prefix = None
        for name in block:
            if name not in SWEEP_PARTS:
                raise fail(
                    ("sweep", name), f"the field {name} next to the parts {' and '.join(parts)}", "it in sweep.grid"
                )
    read = {"list": _listed, "random": _drawn, "grid": _crossed}
    points = [read[part](value, prefix or ("sweep", part), fail) for part, value in parts.items()]
    seen: dict[str, str] = {}
    for part, found in zip(parts, points, strict=True):
        for field in found[0] if found else ():
            if field in seen:
                raise fail(("sweep", part), f"{field}, which stands in sweep.{seen[field]} too", "each field once")
            seen[field] = part
    count = math.prod(len(found) for found in points)
    if count > MAX_POINTS:
        raise fail(("sweep",), f"{count:,} points", f"at most {MAX_POINTS:,}")
    whole = ({name: value for part in chosen for name, value in part.items()} for chosen in product(*points))
    return list({json.dumps(point, sort_keys=True, default=str): point for point in whole}.values())


def _crossed(axes: Any, path: FieldPath, fail: Fail) -> list[Point]:
    if not isinstance(axes, dict):
        raise fail(path, shown(axes), _AXES)
    for name, values in axes.items():
        _check_axis(name, (*path, name), fail)
        if not isinstance(values, list) or not values:
            raise fail((*path, name), shown(values), "a list of one value or more")
    if math.prod(len(values) for values in axes.values()) > MAX_POINTS:
        raise fail(path, "a grid of more points", f"at most {MAX_POINTS:,}")
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if axes else []


def _listed(points: Any, path: FieldPath, fail: Fail) -> list[Point]:
    wanted = "a list of mappings of dotted fields to values"
    if not isinstance(points, list) or not points:
        raise fail(path, shown(points), wanted)
    for i, point in enumerate(points):
        if not isinstance(point, dict) or not point:
            raise fail((*path, i), shown(point), "a mapping of dotted fields to values")
        for name in point:
            _check_axis(name, (*path, i, name), fail)
        if set(point) != set(points[0]):
            raise fail((*path, i), f"the fields {', '.join(point)}", f"those of the first: {', '.join(points[0])}")
    return [{name: point[name] for name in points[0]} for point in points]


def _drawn(block: Any, path: FieldPath, fail: Fail) -> list[Point]:
    """Point i of an axis depends on the seed, the field and i alone, so that a larger n keeps the points it had.

    A field that was renamed draws as under its former name.
    """
    if not isinstance(block, dict) or not isinstance(block.get("axes"), dict) or not block["axes"]:
        raise fail(path, shown(block), "n, seed and axes: a mapping of dotted fields to choices or ranges")
    for name in block:
        if name not in ("n", "seed", "axes"):
            raise fail((*path, name), f"the field {name}", "n, seed or axes")
    n = _whole(block.get("n"), 1, MAX_POINTS, (*path, "n"), fail)
    seed = _whole(block.get("seed", 0), 0, 2**63 - 1, (*path, "seed"), fail)
    columns = {}
    for name, axis in block["axes"].items():
        _check_axis(name, (*path, "axes", name), fail)
        uniform = np.random.default_rng([seed, zlib.crc32(former_field(str(name)).encode())]).random(n)
        columns[name] = _values(axis, uniform.tolist(), (*path, "axes", name), fail)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _values(axis: Any, uniform: list[float], path: FieldPath, fail: Fail) -> list[Any]:
    """Uniform numbers in [0, 1) as values of a random axis."""
    if isinstance(axis, list) and axis:
        return [axis[int(u * len(axis))] for u in uniform]
    wanted = "a list of choices, or {low: 0.1, high: 10} with scale: log or integer: true where it is wanted"
    if not isinstance(axis, dict) or not {"low", "high"} <= set(axis) <= set(_RANGE["properties"]):
        raise fail(path, shown(axis), wanted)
    low, high, scale = axis["low"], axis["high"], axis.get("scale", "linear")
    if not (_is_number(low) and _is_number(high) and low < high):
        raise fail(path, shown(axis), "two numbers, low below high")
    if scale not in ("linear", "log") or (scale == "log" and low <= 0):
        raise fail(path, shown(axis), "scale linear, or log with low above 0")
    whole = axis.get("integer", False)
    if not isinstance(whole, bool) or (whole and not (isinstance(low, int) and isinstance(high, int))):
        raise fail(path, shown(axis), "integer: true with two whole numbers")
    top = high + 1 if whole else high

    def value(u: float) -> int | float:
        x = float(low * (top / low) ** u if scale == "log" else low + (top - low) * u)
        if whole:
            return min(max(math.floor(x), int(low)), int(high))
        return min(max(float(f"{x:.6g}"), float(low)), float(high))  # six digits, as one would write them

    return [value(u) for u in uniform]


def _check_axis(name: Any, path: FieldPath, fail: Fail) -> None:
    part = str(name).partition(".")[0]
    if part in NO_AXES:
        raise fail(path, f"{part} as an axis", "a field of what is simulated; every point meets every variant")


def _whole(value: Any, least: int, most: int, path: FieldPath, fail: Fail) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise fail(path, shown(value), f"a whole number from {least} to {most:,}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
