"""Run a scenario over the grid of its `sweep:` axes, on the same tokens."""

from __future__ import annotations

from itertools import product
from typing import Any

from moesim.results import Study
from moesim.scenario import Scenario
from moesim.simulation import check, settle
from moesim.study.compare import Progress, run_all


def grid(scenario: Scenario) -> dict[str, Scenario]:
    """Every point of the grid by a label such as "exponent=0.2, tokens_per_gpu=64", the last axis fastest, checked.

    Raises:
        ScenarioError: no axes, an empty one, or a point that is wrong; nothing has run yet.
    """
    axes = scenario.axes()
    if not axes:
        raise scenario.error("sweep", "no axes", "dotted fields with lists of values under 'sweep:'")
    points = {}
    for values in product(*axes.values()):
        overrides = dict(zip(axes, values, strict=True))
        label = ", ".join(f"{_short(name, axes)}={_text(value)}" for name, value in overrides.items())
        points[label] = scenario.changed(overrides)
    for point in points.values():
        check(point)
    return settle(points)


def sweep(scenario: Scenario, *, progress: Progress | None = None) -> Study:
    """Run every point of the grid; the first is the baseline.

    Args:
        scenario: one with `sweep:` axes; its variants are ignored.
        progress: called with (point, steps done over all points, steps in all).

    Raises:
        ScenarioError: no axes, or a point that is wrong; nothing has run then.
    """
    return Study(name=scenario.spec.name, results=dict(run_all(grid(scenario), progress)))


def _short(name: str, axes: dict[str, list[Any]]) -> str:
    """The last part of a dotted field, or all of it where another axis ends alike."""
    last = name.rpartition(".")[2]
    return name if sum(other.rpartition(".")[2] == last for other in axes) > 1 else last


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
