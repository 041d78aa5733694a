"""The same runs under other seeds, and how many of them a study needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from moesim.errors import InputError
from moesim.frames import label
from moesim.scenario import Scenario
from moesim.scenario.no_effect import nothing_random
from moesim.study import statistics

if TYPE_CHECKING:
    import pandas as pd

MAX_SEEDS = 100
"""Most seeds of `until_ci` where `seeds` is not given."""


def first_seeds(seeds: int | None, until_ci: float | None) -> int:
    """How many seeds every variant runs in any case: those asked for, or the pilot of `until_ci`.

    Raises:
        InputError: no seed, fewer seeds than the pilot, or a width that is none.
    """
    if seeds is not None and (seeds != int(seeds) or seeds < 1):
        raise InputError(f"seeds: found {seeds}, wanted a whole number from 1")
    if until_ci is None:
        return seeds or 1
    if not 0 < until_ci < 1:
        raise InputError(f"until_ci: found {until_ci}, wanted a share between 0 and 1, such as 0.02 for 2 %")
    if seeds is not None and seeds < statistics.PILOT:
        raise InputError(f"seeds: found {seeds}, wanted at least {statistics.PILOT} with until_ci")
    return statistics.PILOT


def seeds_wanted(points: pd.DataFrame, until_ci: float, most: int | None, *, baseline: str | None = None) -> int:
    """How many seeds a group of variants needs for the interval that was asked for, by its pilot runs.

    Args:
        points: rows of the pilot.
        until_ci: half the width of the interval of the mean step time's differences, as a part of the baseline's.
        most: the largest number; MAX_SEEDS by default.
        baseline: the variant that the others are compared with; the first by default.
    """
    return min(most or MAX_SEEDS, statistics.seeds_until(points, until_ci, baseline=baseline))


def shortfall(points: pd.DataFrame, until_ci: float, axes: Sequence[str] = (), *, baseline: str | None = None) -> str:
    """One line that says that the most seeds that were allowed did not reach `until_ci`; "" where they did.

    It names the variant that takes most, and the point of a sweep, with the half width that it reached and the seeds
    that it takes.

    Args:
        points: one row a run: the axes, variant, seed, summary keys.
        until_ci: as in `seeds_wanted`.
        axes: of a sweep.
        baseline: as in `seeds_wanted`; the variant of the first row by default.
    """
    first = str(points["variant"].iloc[0]) if baseline is None and len(points) else baseline
    parts = points.groupby([*axes], sort=False, dropna=False) if axes else [((), points)]
    found = [
        (needed, half, variant, int((part["variant"] == variant).sum()), place)
        for place, part in parts
        for variant, (half, needed) in statistics.missed(part, until_ci, baseline=first).items()
    ]
    if not found:
        return ""
    needed, half, variant, seeds, place = max(found, key=lambda one: one[0])
    at = f" at {label(dict(zip(axes, place, strict=True)))}" if axes else ""
    others = f"; {len(found) - 1} more miss it too" if len(found) > 1 else ""
    return (
        f"{variant}{at} is known to +-{100 * half:.3g} % after the {seeds} seeds that are allowed, "
        f"+-{100 * until_ci:.3g} % take {needed} seeds{others}"
    )


def check_common(runs: Mapping[str, Scenario]) -> None:
    """Refuse variants that set their own seed, as pairs need the same one, and runs that no seed changes.

    Raises:
        InputError: the variants and their seeds; or all would be the same under every seed.
    """
    check_random(runs.values())
    found = {name: run.spec.seed for name, run in runs.items()}
    if len(set(found.values())) > 1:
        shown = ", ".join(f"{name}: {seed}" for name, seed in found.items())
        raise InputError(f"seed: found {shown:.200}, wanted the same seed in all variants, to pair them by it")


def check_random(runs: Iterable[Scenario]) -> None:
    """Refuse several seeds where no run has anything random: copies of one run are no samples.

    Raises:
        InputError: the tokens are recorded, and neither drops nor faults are drawn.
    """
    if not any(_is_random(run) for run in runs):
        raise InputError("seeds: found several, wanted 1: the tokens are recorded and nothing else is random")


def _is_random(run: Scenario) -> bool:
    spec = run.spec
    overflow = None if spec.routing.capacity is None else spec.routing.capacity.overflow
    return not nothing_random(spec.workload.trace, overflow, spec.faults)
