"""Run a scenario over the points of its `sweep:` block, times its variants, times seeds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.errors import InputError, ScenarioError, TooLargeError
from moesim.results import Study, points_frame
from moesim.results.points import text
from moesim.routing.registry import is_of_session
from moesim.scenario import Scenario
from moesim.simulation import resolve_sampling
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
class Cell:
    """A point of a sweep and a variant, with the seeds that the sweep names; a wrong one has an error instead."""

    place: Mapping[str, Any]
    variant: str
    scenario: Scenario | None
    seeds: tuple[int, ...]
    inputs: str = ""
    bytes: int = 0
    """Memory of a run with one thread, an estimate."""
    error: str = ""


def plan_sweep(scenario: Scenario) -> list[Cell]:
    """Every point and variant of a sweep, checked, in order: points as they are listed, in each all variants.

    The seed is no axis: `seed: [1, 2, 3]` in a sweep is the seeds that every point runs with.

    Raises:
        ScenarioError: no points; a variant replaces what the sweep sets; or nothing in the plan can run.
    """
    points = scenario.points()
    if not points:
        raise scenario.error("sweep", "no axes", "dotted fields with lists of values under 'sweep:'")
    names: list[str | None] = [*scenario.variant_names()] or [None]
    places: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for point in points:
        place = {name: value for name, value in point.items() if name != "seed"}
        seeds = places.setdefault(text(place), (place, []))[1]
        seeds.extend([point["seed"]] if "seed" in point else [])
    cells = [cell for place, seeds in places.values() for cell in _cells(scenario, place, names, tuple(seeds))]
    if all(cell.scenario is None for cell in cells):
        raise ScenarioError(cells[0].error)
    settled = resolve_sampling({i: cell.scenario for i, cell in enumerate(cells) if cell.scenario is not None})
    return [
        Cell(**{**vars(cell), "scenario": settled.get(i), "seeds": cell.seeds or _own_seed(settled.get(i))})
        for i, cell in enumerate(cells)
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
    cells = plan_sweep(scenario)
    if workers > 1 or dask is not None:
        _check_routers(cells)
    _check_seeds(scenario, cells, several=wanted > 1)
    if wanted > 1:
        check_random(cell.scenario for cell in cells if cell.scenario is not None)
    store = Store(folder)
    warnings = tuple(notice.without_folder() for notice in scenario.warnings)
    run = _Run(scenario.spec.name, cells, store, pilot=None if until_ci is None else PILOT, warnings=warnings)
    run.add_seeds(dict.fromkeys(range(len(cells)), wanted))
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
        self, name: str, cells: list[Cell], store: Store, *, pilot: int | None, warnings: tuple[str, ...] = ()
    ) -> None:
        self._name, self._cells, self._store, self._pilot, self._warnings = name, cells, store, pilot, warnings
        self._axes, self._baseline = tuple(cells[0].place), cells[0].variant
        self._keys: list[dict[int, str]] = [{} for _ in cells]  # seed -> key, by cell
        self._errors: dict[str, str] = {}
        self._next_publish = 0.0

    def add_seeds(self, wanted: Mapping[int, int]) -> None:
        """Plan so many seeds in all of each cell; what the sweep itself names stays as it is."""
        for i, count in wanted.items():
            cell = self._cells[i]
            first = cell.seeds[0] if cell.seeds else 0
            seeds = cell.seeds if len(cell.seeds) > 1 else range(first, first + count)
            for seed in seeds:
                if cell.scenario is not None and seed not in self._keys[i]:
                    self._keys[i][seed] = key_of(cell.scenario.with_seed(seed), cell.inputs)

    def all(self, workers: int, dask: str | None, progress: Progress | None) -> None:
        """Run what is not finished."""
        pending: dict[str, Scenario] = {}
        needed = []
        for cell, keys in zip(self._cells, self._keys, strict=True):
            for seed, key in keys.items():
                if cell.scenario is not None and key not in self._errors and self._store.get(key) is None:
                    pending[key] = cell.scenario.with_seed(seed)
                    needed.append(cell.bytes)
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
        """Seeds of each cell: at every point as many as the variant that varies most against the baseline needs."""
        places: dict[str, list[int]] = {}
        for i, cell in enumerate(self._cells):
            places.setdefault(text(dict(cell.place)), []).append(i)
        wanted = {}
        for own in places.values():
            frame = points_frame(self._rows(own), self._axes)
            if len(frame):
                wanted.update(dict.fromkeys(own, seeds_wanted(frame, until_ci, most, baseline=self._baseline)))
        return wanted

    def study(self) -> Study:
        """All that is finished, in the order of the plan, with its statistics."""
        points = points_frame(self._rows(range(len(self._cells))), self._axes)
        frame = paired(points, self._axes, baseline=self._baseline, pilot=self._pilot)
        return self._of(points=points, paired=frame)

    def _of(self, **frames: Any) -> Study:
        return Study(name=self._name, axes=self._axes, errors=self._failures(), warnings=self._warnings, **frames)

    def _stream(self) -> None:
        """Write what is finished now and then; statistics come with the end."""
        start = time.monotonic()
        if start < self._next_publish:
            return
        points = points_frame(self._rows(range(len(self._cells))), self._axes)
        self._store.publish(self._of(points=points))
        self._next_publish = time.monotonic() + max(STREAM_S, 50 * (time.monotonic() - start))

    def _rows(self, cells: Any) -> Iterator[tuple[Mapping[str, Any], str, int, Mapping[str, Any]]]:
        for i in cells:
            for seed, key in self._keys[i].items():
                summary = self._store.get(key) if key not in self._errors else None
                if summary is not None:
                    yield self._cells[i].place, self._cells[i].variant, seed, summary

    def _failures(self) -> list[dict[str, Any]]:
        failed = []
        for cell, keys in zip(self._cells, self._keys, strict=True):
            runs: list[tuple[int | None, str]] = [(seed, self._errors.get(key, "")) for seed, key in keys.items()]
            runs = runs or [(None, cell.error)]
            for seed, error in runs:
                if error:
                    place = {name: text(value) for name, value in cell.place.items()}
                    failed.append({**place, "variant": cell.variant, "seed": seed, "error": error})
        return failed


def _cells(scenario: Scenario, place: dict[str, Any], names: list[str | None], seeds: tuple[int, ...]) -> list[Cell]:
    """A point with every variant; its own error is that of them all."""
    try:
        point = scenario.with_point(place)
    except InputError as error:
        variants = [scenario.spec.name if name is None else name for name in names]
        return [Cell(place=place, variant=v, scenario=None, seeds=seeds, error=str(error)) for v in variants]
    return [_cell(point, place, name, seeds) for name in names]


def _cell(point: Scenario, place: dict[str, Any], name: str | None, seeds: tuple[int, ...]) -> Cell:
    variant = point.spec.name if name is None else name
    try:
        run = point if name is None else point.variant(name)
    except InputError as error:
        return Cell(place=place, variant=variant, scenario=None, seeds=seeds, error=str(error))
    for field in run.changes():
        if any(axis == field or axis.startswith(f"{field}.") for axis in place):
            raise run.error(field, "a value that the sweep sets too", "it in the variant or in the sweep, not in both")
    try:
        plan = prepare(run)
    except InputError as error:
        return Cell(place=place, variant=variant, scenario=None, seeds=seeds, error=str(error))
    return Cell(
        place=place,
        variant=variant,
        scenario=run,
        seeds=seeds,
        inputs=inputs_of(run, plan.tokens_file[1] + plan.kernels.digest),
        bytes=run_bytes(plan, threads=1)[1],
    )


def _check_routers(cells: Sequence[Cell]) -> None:
    """Refuse routers that other processes do not know."""
    for name in (cell.scenario.spec.routing.strategy for cell in cells if cell.scenario is not None):
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


def _check_seeds(scenario: Scenario, cells: list[Cell], *, several: bool) -> None:
    """Refuse several seeds where the sweep names seeds, or a variant has another."""
    if several and any("seed" in point for point in scenario.points()):
        raise scenario.error("sweep.seed", "seeds in the sweep", "either these, or a number of seeds")
    found = {cell.seeds[:1] for cell in cells if cell.seeds}
    if several and len(found) > 1:
        raise scenario.error("compare", "variants with seeds of their own", "one seed, by which variants are paired")
