"""`moesim show`: the resolved scenario."""

from __future__ import annotations

import sys
from typing import Any

from moesim.cli.options import FileArgument, SetOption, StrictOption, load_scenario

MAX_POINTS = 100
"""As a random axis may have as many values as points."""


def show(file: FileArgument, settings: SetOption = None, strict: StrictOption = False) -> None:
    """Check a scenario and print it resolved.

    All defaults and presets are filled in; what is printed is itself a scenario that gives the same result. Variants
    are checked too, and the first point of a sweep with each value of an axis.
    """
    from moesim.simulation import check

    scenario = load_scenario(file, settings, strict=strict)
    check(scenario)
    for variant in scenario.variants().values():
        check(variant)
    for point in _first_points(scenario.points()):
        scenario.with_point(point)
    sys.stdout.write(scenario.resolved_yaml())


def _first_points(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first point with each value of each axis, at most MAX_POINTS in all."""
    firsts: dict[str, int] = {}
    for i, point in enumerate(points):
        for name, value in point.items():
            firsts.setdefault(f"{name}={value!r}", i)
    return [points[i] for i in sorted(set(firsts.values()))[:MAX_POINTS]]
