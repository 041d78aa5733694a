"""What a figure rests on: how many steps, runs and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from moesim.report.run import RunLike
from moesim.report.text import printable
from moesim.report.units import count


def sample_of_runs(runs: Mapping[str, RunLike], points: pd.DataFrame | None = None) -> str:
    """One line: "n = 10 steps of each of 9 variants, seed 1"; "mean of 5 seeds" with points of several."""
    steps = _range(len(run.steps) for run in runs.values())
    of = f" of each of {len(runs)} variants" if len(runs) > 1 else ""
    seeds = seeds_text(run.manifest.get("seed") for run in runs.values())
    if points is not None:
        seeds = f"mean of {seeds_text(points['seed'])}"
    return f"n = {steps} step{'' if steps == '1' else 's'}{of}, {seeds}"


def sample_of_points(points: pd.DataFrame) -> str:
    """One line: "n = 60 runs of 10 steps, seeds 1 to 5: mean and 95 % confidence interval"."""
    steps = _range(points["n_steps"].dropna().astype(int)) if "n_steps" in points else "0"
    of = f" of {steps} step{'' if steps == '1' else 's'}" if steps != "0" else ""
    seeds = points["seed"].dropna().unique().tolist() if "seed" in points else []
    shown = ": mean and 95 % confidence interval over seeds" if len(seeds) > 1 else ""
    return f"n = {count(len(points))} run{'' if len(points) == 1 else 's'}{of}, {seeds_text(seeds)}{shown}"


def _range(numbers: Iterable[int]) -> str:
    found = sorted(set(numbers)) or [0]
    return count(found[0]) if len(found) == 1 else f"{count(found[0])} to {count(found[-1])}"


def seeds_text(seeds: Iterable[Any]) -> str:
    """The seeds in words: one as "seed 1", several by their number."""
    known = list(dict.fromkeys(printable(seed) for seed in seeds if seed is not None))
    if not known:
        return "seed unknown"
    return f"seed {known[0]}" if len(known) == 1 else f"{len(known)} seeds"
