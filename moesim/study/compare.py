"""Compare variants of a scenario, or several scenarios, on the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from moesim.errors import ScenarioError
from moesim.results import Result, Study
from moesim.scenario import Scenario
from moesim.simulation import check, settle, simulate

Progress = Callable[[str, int, int], None]


def plan(*scenarios: Scenario) -> dict[str, Scenario]:
    """The runs of a comparison by label, all checked, in order; the first is the baseline.

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
    for scenario in runs.values():
        check(scenario)
    return settle(runs)


def compare(*scenarios: Scenario, progress: Progress | None = None) -> Study:
    """Run every variant of a scenario, or several scenarios, and put them on shared axes.

    All random draws are functions of seed, step, layer and token, so variants
    that do not change the workload see the same tokens and logits.

    Args:
        scenarios: one scenario with variants, or two and more.
        progress: called with (variant, steps done over all variants, steps in all).

    Raises:
        InputError: a variant is wrong; every variant is checked before the first runs.
    """
    return Study(name=scenarios[0].spec.name if scenarios else "", results=dict(run_all(plan(*scenarios), progress)))


def run_all(runs: Mapping[str, Scenario], progress: Progress | None = None) -> Iterator[tuple[str, Result]]:
    """Run planned scenarios one by one; who is interrupted keeps what was finished."""
    steps = {name: s.spec.workload.steps + s.spec.simulation.warmup_steps for name, s in runs.items()}
    total, before = sum(steps.values()), 0
    for name, scenario in runs.items():

        def report(done: int, _: int, name: str = name, before: int = before) -> None:
            if progress is not None:
                progress(name, before + done, total)

        yield name, simulate(scenario, progress=report)
        before += steps[name]
