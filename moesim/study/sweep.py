"""Run a scenario over the points of its `sweep:` block, times its variants, times seeds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moesim.errors import InputError, ScenarioError, TooLargeError
from moesim.frames import points_frame, text
from moesim.results import Study
from moesim.routing.registry import is_of_session
from moesim.scenario import Scenario
from moesim.simulation import resolve_sampling, solved_or_error
from moesim.simulation.checks import free_bytes, run_bytes
from moesim.simulation.prepare import prepare
from moesim.study.compare import Progress
from moesim.study.execute import execute
from moesim.study.replicate import check_random, first_seeds, seeds_wanted
from moesim.study.sources import inputs_of
from moesim.study.statistics import PILOT, paired
from moesim.study.store import Store, key_of

STREAM_S = 2.0
"""Least time between two writings of summary.parquet; it also waits 50 times as long as the last one took."""


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """A variant at coordinates of a sweep, with its seeds; `error` says why it cannot run, if so."""

    coordinates: Mapping[str, Any]
    variant: str
    scenario: Scenario | None
    seeds: tuple[int, ...]
    inputs: str = ""
    bytes: int = 0
    """Memory of a run with one thread, an estimate."""
    error: str = ""


def plan_sweep(scenario: Scenario) -> list[SweepPoint]:
    """Every point and variant of a sweep, checked, in order: points as they are listed, in each all variants.

    The seed is no axis: `seed: [1, 2, 3]` in a sweep is the seeds that every point runs with.

    Raises:
        ScenarioError: no points; a variant replaces what the sweep sets; or nothing in the plan can run.
    """
    listed = scenario.points()
    if not listed:
        raise scenario.error("sweep", "no axes", "dotted fields with lists of values under 'sweep:'")
    names: list[str | None] = [*scenario.variant_names()] or [None]
    seeds_at: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for values in listed:
        coordinates = {name: value for name, value in values.items() if name != "seed"}
        seeds = seeds_at.setdefault(text(coordinates), (coordinates, []))[1]
        seeds.extend([values["seed"]] if "seed" in values else [])
    planned = [
        point
        for coordinates, seeds in seeds_at.values()
        for point in _with_variants(scenario, coordinates, names, tuple(seeds))
    ]
    if all(point.scenario is None for point in planned):
        raise ScenarioError(planned[0].error)
    resolved = resolve_sampling({i: point.scenario for i, point in enumerate(planned) if point.scenario is not None})
    solved = {i: solved_or_error(each) for i, each in resolved.items()}
    failed = {i: message for i, (each, message) in solved.items() if each is None}
    if len(failed) == len(solved):
        raise ScenarioError(next(iter(failed.values())))
    ready = {i: each for i, (each, _) in solved.items() if each is not None}
    return [
        replace(
            point,
            scenario=ready.get(i),
            error=failed.get(i, point.error),
            seeds=point.seeds or _own_seed(ready.get(i)),
        )
        for i, point in enumerate(planned)
    ]


def sweep(
    scenario: Scenario,
    *,
    folder: str | Path | None = None,
    seeds: int | None = None,
    until_ci: float | None = None,
    workers: int = 1,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Study:
    """Run every point of a sweep with every variant and seed; the first variant is the baseline at every point.

    A run that fails is left out and kept in `Study.errors`; the others go on.

    Args:
        scenario: one with a `sweep:` block.
        folder: where results go as they finish (`summary.parquet`: one row a run). What is there is not computed
            again, whether this sweep was interrupted or another one had the same runs.
        seeds: of every point and variant, 1 by default: the scenario's own and those that follow it; with `until_ci`
            the most there may be.
        until_ci: as in `compare`, at every point.
        workers: processes, each with one thread; 1 = this process, with all its threads. The result is the same.
        dask: address of a Dask scheduler, whose workers run everything instead.
        progress: called with (scenario's name, runs done, runs to do).

    Raises:
        InputError: the sweep, or every point of it, is wrong, this machine's memory does not hold as many runs as
            there are workers, or these do not know a router; nothing has run then.
        OutputError: the folder cannot be written, or holds another result.
    """
    wanted = first_seeds(seeds, until_ci)
    if workers < 1:
        raise InputError(f"workers: found {workers}, wanted 1 or more")
    planned = plan_sweep(scenario)
    if workers > 1 or dask is not None:
        _check_routers(planned)
    _check_seeds(scenario, planned, several=wanted > 1)
    if wanted > 1:
        check_random(point.scenario for point in planned if point.scenario is not None)
    store = Store(folder)
    warnings = tuple(notice.without_folder() for notice in scenario.warnings)
    run = _Run(scenario.spec.name, planned, store, pilot=None if until_ci is None else PILOT, warnings=warnings)
    run.add_seeds(dict.fromkeys(range(len(planned)), wanted))
    try:
        run.all(workers, dask, progress)
        if until_ci is not None:
            run.add_seeds(run.seeds_by_pilot(until_ci, seeds))
            run.all(workers, dask, progress)
    finally:
        study = run.study()
        store.publish(study)
    return study


class _Run:
    """The state of one sweep: which runs there are, which of them are finished, which failed."""

    def __init__(
        self, name: str, planned: list[SweepPoint], store: Store, *, pilot: int | None, warnings: tuple[str, ...] = ()
    ) -> None:
        self._name, self._planned, self._store, self._pilot, self._warnings = name, planned, store, pilot, warnings
        self._axes, self._baseline = tuple(planned[0].coordinates), planned[0].variant
        self._keys: list[dict[int, str]] = [{} for _ in planned]  # seed -> key, by planned point
        self._errors: dict[str, str] = {}
        self._next_publish = 0.0

    def add_seeds(self, wanted: Mapping[int, int]) -> None:
        """Plan so many seeds in all for the planned points by index; seeds that the sweep itself names stay."""
        for i, count in wanted.items():
            point = self._planned[i]
            first = point.seeds[0] if point.seeds else 0
            seeds = point.seeds if len(point.seeds) > 1 else range(first, first + count)
            for seed in seeds:
                if point.scenario is not None and seed not in self._keys[i]:
                    self._keys[i][seed] = key_of(point.scenario.with_seed(seed), point.inputs)

    def all(self, workers: int, dask: str | None, progress: Progress | None) -> None:
        """Run what is not finished."""
        pending: dict[str, Scenario] = {}
        needed = []
        for point, keys in zip(self._planned, self._keys, strict=True):
            for seed, key in keys.items():
                if point.scenario is not None and key not in self._errors and self._store.get(key) is None:
                    pending[key] = point.scenario.with_seed(seed)
                    needed.append(point.bytes)
        if dask is None:
            _check_memory(needed, workers)
        if progress is not None:
            progress(self._name, 0, len(pending))
        with closing(execute(pending, workers=workers, dask=dask)) as outcomes:
            for done, (key, summary, error) in enumerate(outcomes, start=1):
                if summary is None:
                    self._errors[key] = error
                else:
                    self._store.put(key, summary)
                self._stream()
                if progress is not None:
                    progress(self._name, done, len(pending))

    def seeds_by_pilot(self, until_ci: float, most: int | None) -> dict[int, int]:
        """Seeds of each planned point: at equal coordinates as many as the variant that varies most needs."""
        by_coordinates: dict[str, list[int]] = {}
        for i, point in enumerate(self._planned):
            by_coordinates.setdefault(text(dict(point.coordinates)), []).append(i)
        wanted = {}
        for own in by_coordinates.values():
            frame = points_frame(self._rows(own), self._axes)
            if len(frame):
                wanted.update(dict.fromkeys(own, seeds_wanted(frame, until_ci, most, baseline=self._baseline)))
        return wanted

    def study(self) -> Study:
        """All that is finished, in the order of the plan, with its statistics."""
        points = points_frame(self._rows(range(len(self._planned))), self._axes)
        frame = paired(points, self._axes, baseline=self._baseline, pilot=self._pilot)
        return self._of(points=points, paired=frame)

    def _of(self, **frames: Any) -> Study:
        return Study(name=self._name, axes=self._axes, errors=self._failures(), warnings=self._warnings, **frames)

    def _stream(self) -> None:
        """Write what is finished now and then; statistics come with the end."""
        start = time.monotonic()
        if start < self._next_publish:
            return
        points = points_frame(self._rows(range(len(self._planned))), self._axes)
        self._store.publish(self._of(points=points))
        self._next_publish = time.monotonic() + max(STREAM_S, 50 * (time.monotonic() - start))

    def _rows(self, planned: Any) -> Iterator[tuple[Mapping[str, Any], str, int, Mapping[str, Any]]]:
        for i in planned:
            for seed, key in self._keys[i].items():
                summary = self._store.get(key) if key not in self._errors else None
                if summary is not None:
                    yield self._planned[i].coordinates, self._planned[i].variant, seed, summary

    def _failures(self) -> list[dict[str, Any]]:
        failed = []
        for point, keys in zip(self._planned, self._keys, strict=True):
            runs: list[tuple[int | None, str]] = [(seed, self._errors.get(key, "")) for seed, key in keys.items()]
            runs = runs or [(None, point.error)]
            for seed, error in runs:
                if error:
                    coordinates = {name: text(value) for name, value in point.coordinates.items()}
                    failed.append({**coordinates, "variant": point.variant, "seed": seed, "error": error})
        return failed


def _with_variants(
    scenario: Scenario, coordinates: dict[str, Any], names: list[str | None], seeds: tuple[int, ...]
) -> list[SweepPoint]:
    """The scenario at these coordinates with every variant; if it is wrong itself, all variants have its error."""
    try:
        there = scenario.with_point(coordinates)
    except InputError as error:
        variants = [scenario.spec.name if name is None else name for name in names]
        return [
            SweepPoint(coordinates=coordinates, variant=v, scenario=None, seeds=seeds, error=str(error))
            for v in variants
        ]
    return [_sweep_point(there, coordinates, name, seeds) for name in names]


def _sweep_point(there: Scenario, coordinates: dict[str, Any], name: str | None, seeds: tuple[int, ...]) -> SweepPoint:
    variant = there.spec.name if name is None else name
    try:
        run = there if name is None else there.variant(name)
    except InputError as error:
        return SweepPoint(coordinates=coordinates, variant=variant, scenario=None, seeds=seeds, error=str(error))
    for field in run.changes():
        if any(axis == field or axis.startswith(f"{field}.") for axis in coordinates):
            raise run.error(field, "a value that the sweep sets too", "it in the variant or in the sweep, not in both")
    try:
        plan = prepare(run)
    except InputError as error:
        return SweepPoint(coordinates=coordinates, variant=variant, scenario=None, seeds=seeds, error=str(error))
    return SweepPoint(
        coordinates=coordinates,
        variant=variant,
        scenario=run,
        seeds=seeds,
        inputs=inputs_of(run, plan.tokens_file[1] + plan.kernels.digest),
        bytes=run_bytes(plan, threads=1)[1],
    )


def _check_routers(planned: Sequence[SweepPoint]) -> None:
    """Refuse routers that other processes do not know."""
    for name in (point.scenario.spec.routing.strategy for point in planned if point.scenario is not None):
        if name is not None and is_of_session(name):
            wanted = "package.module:name of one in a file, for workers to import, or workers=1"
            raise InputError(f"routing.strategy: found {name}, which this process alone knows, wanted {wanted}")


def _check_memory(needed: Sequence[int], workers: int) -> None:
    """Refuse more workers than this machine's memory has room for, where each holds one of the largest runs."""
    at_once, free = sorted(needed, reverse=True)[:workers], free_bytes()
    if len(at_once) > 1 and sum(at_once) > free:
        fit = max(1, sum(sum(at_once[:n]) <= free for n in range(1, len(at_once))))
        raise TooLargeError(
            f"workers: found {workers}, wanted at most {fit}: a run takes up to {at_once[0] / 1e9:,.1f} GB of the "
            f"{free / 1e9:,.1f} GB that this machine has free"
        )


def _own_seed(scenario: Scenario | None) -> tuple[int, ...]:
    return () if scenario is None else (scenario.spec.seed,)


def _check_seeds(scenario: Scenario, planned: list[SweepPoint], *, several: bool) -> None:
    """Refuse several seeds where the sweep names seeds, or a variant has another."""
    if several and any("seed" in point for point in scenario.points()):
        raise scenario.error("sweep.seed", "seeds in the sweep", "either these, or a number of seeds")
    found = {point.seeds[:1] for point in planned if point.seeds}
    if several and len(found) > 1:
        raise scenario.error("compare", "variants with seeds of their own", "one seed, by which variants are paired")
