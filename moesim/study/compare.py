"""Compare variants of a scenario, or several scenarios, on the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from moesim.errors import ScenarioError
from moesim.frames import flatten, points_frame
from moesim.results import Result, Study
from moesim.scenario import Scenario
from moesim.simulation import PreparedRun, prepared, resolve_sampling, run
from moesim.study.replicate import check_common, first_seeds, seeds_wanted
from moesim.study.statistics import PILOT, paired

Progress = Callable[[str, int, int], None]


def plan(*scenarios: Scenario) -> dict[str, PreparedRun]:
    """The runs of a comparison by label, ready to run, in order; the first is the baseline.

    One scenario gives its named variants. Of several, each file stands for
    its base scenario under its own name; a name that occurs twice gets a number.

    Raises:
        ScenarioError: one scenario without variants, or no scenario at all.
        InputError: a variant is wrong; nothing has run yet.
    """
    if len(scenarios) == 1:
        runs = scenarios[0].variants()
        if not runs:
            raise scenarios[0].error(
                "compare",
                "no variants",
                "named variants under 'compare:', or a second file",
            )
    else:
        runs = {}
        for scenario in scenarios:
            label, count = scenario.spec.name, 2
            while label in runs:
                label, count = f"{scenario.spec.name} ({count})", count + 1
            runs[label] = scenario
    if not runs:
        raise ScenarioError("nothing to compare: name one file with variants, or two files")
    return {label: prepared(scenario) for label, scenario in resolve_sampling(runs).items()}


def compare(
    *scenarios: Scenario,
    seeds: int | None = None,
    until_ci: float | None = None,
    progress: Progress | None = None,
) -> Study:
    """Run every variant of a scenario, or several scenarios, and put them on shared axes.

    All random draws are functions of seed, step, layer and token, so variants
    that do not change the workload see the same tokens and logits. With several
    seeds (the scenario's own and those that follow it) differences are paired
    by seed: `Study.paired`.

    Args:
        scenarios: one scenario with variants, or two and more.
        seeds: of every variant, 1 by default; with `until_ci` the most there may be, 100 by default.
        until_ci: run as many seeds, at least 5, as it takes until the 95 % interval of every variant's difference in
            mean step time is no wider than +- this part of the baseline's (0.02 = 2 %), in throughput per GPU where
            the variant does not do the same work; `study.shortfall` says whether `seeds` were too few for that.
        progress: called with (variant, steps done over all runs, steps in all).

    Raises:
        InputError: a variant is wrong; every variant is checked before the first runs.
    """
    runs = plan(*scenarios)
    *_, study = replicate(scenarios[0].spec.name, runs, seeds=seeds, until_ci=until_ci, progress=progress)
    return study


def replicate(
    name: str,
    runs: Mapping[str, PreparedRun],
    *,
    seeds: int | None = None,
    until_ci: float | None = None,
    progress: Progress | None = None,
) -> Iterator[Study]:
    """Run planned variants under their seeds, a seed after the other; yields the study of what is finished so far.

    Raises:
        InputError: `seeds` or `until_ci` is wrong, or the variants have different seeds.
    """
    wanted = first_seeds(seeds, until_ci)
    if wanted > 1:
        check_common({label: ready.scenario for label, ready in runs.items()})
    pilot = None if until_ci is None else PILOT
    results: dict[str, Result] = {}
    rows: list[tuple[dict[str, Any], str, int, dict[str, Any]]] = []
    done = 0
    while done < wanted:
        for variant, seed, result in _run_seeds(runs, range(done, wanted), progress):
            results.setdefault(variant, result)
            rows.append(({}, variant, seed, flatten(result.summary)))
            points = points_frame(rows)
            yield Study(name=name, results=dict(results), points=points, paired=paired(points, pilot=pilot))
        done = wanted
        if until_ci is not None and done == PILOT:
            wanted = seeds_wanted(points_frame(rows), until_ci, seeds)


def _run_seeds(
    runs: Mapping[str, PreparedRun], numbers: range, progress: Progress | None
) -> Iterator[tuple[str, int, Result]]:
    """Run every variant with the seeds of these numbers, where 0 is its own: variant, seed and result of each."""
    steps = {label: ready.plan.warmup_steps + ready.plan.n_steps for label, ready in runs.items()}
    total, before = len(numbers) * sum(steps.values()), 0
    for number in numbers:
        for label, ready in runs.items():
            seed = ready.scenario.spec.seed + number
            own = ready if number == 0 else prepared(ready.scenario.with_seed(seed))

            def report(done: int, _: int, text: str = f"{label}, seed {seed}", before: int = before) -> None:
                if progress is not None:
                    progress(text, before + done, total)

            yield label, seed, run(own, progress=report)
            before += steps[label]
