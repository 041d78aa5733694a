"""The table of published results is what its command prints, and chance alone drops what a closed form says."""

from __future__ import annotations

import re
import subprocess
import sys
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from moesim import Scenario, compare
from moesim.scenario.schema import OVERLAP_SLOWDOWN

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_table_of_the_readme_is_what_the_command_prints() -> None:
    """Line by line."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## Published results beside simulated ones") :]
    section = section[: section.index("\n## ", 5)]
    (command,) = re.findall(r"`python -m (tests\.validation\.published)`", section)
    printed = subprocess.run(
        [sys.executable, "-m", command], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    quoted = [line for line in section.splitlines() if line.startswith("|")]
    steps = [row.split("|") for row in quoted if "tokens/s/node" in row and "mean of a day" not in row]
    assert len(steps) == 9
    even = [int(row[-2].removesuffix(" % ")) for row in steps if "even load" in row[2]]
    assert len(even) == 4
    assert max(map(abs, even)) < 20
    assert len(quoted) > 40
    assert quoted == printed.splitlines()


@pytest.mark.slow
def test_steps_with_even_load_come_out_with_what_overlap_costs_in_the_others() -> None:
    """Within 11 %; the mean over all four is the default."""
    command = [sys.executable, "-m", "tests.validation.overlap"]
    *rows, last = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    errors = [abs(float(row.split()[-1])) for row in rows[1:]]
    assert len(errors) == 4
    assert max(errors) < 11
    (mean,) = re.findall(r"mean loss ([\d.]+)", last)
    assert round(float(mean), 2) == OVERLAP_SLOWDOWN


@pytest.mark.slow
def test_uniform_routing_drops_the_mean_excess_of_a_binomial() -> None:
    """Tokens of an expert are binomial (T, k / E); an expert serves at most C of them."""
    study = compare(Scenario.from_yaml(ROOT / "scenarios" / "uniform-capacity.yaml"))
    assert len(study.results) == 9
    for name, result in study.results.items():
        spec = Scenario.from_dict(result.scenario).spec
        assert spec.workload.tokens_per_gpu is not None
        assert spec.routing.top_k is not None
        assert spec.routing.capacity is not None
        n_tokens = 8 * spec.workload.tokens_per_gpu
        share = spec.routing.top_k / spec.model.n_experts
        capacity = ceil(n_tokens * share * spec.routing.capacity.factor)
        load = np.arange(n_tokens + 1)
        excess = np.maximum(load - capacity, 0)
        chance = binom.pmf(load, n_tokens, share)
        mean = (excess * chance).sum() / (n_tokens * share)
        per_layer = np.sqrt(spec.model.n_experts * ((excess**2 * chance).sum() - (excess * chance).sum() ** 2))
        layers = spec.workload.steps * (spec.model.n_layers - len(spec.model.dense_layers))
        spread = per_layer / (n_tokens * spec.routing.top_k) / np.sqrt(layers)
        assert abs(result.summary["drop_rate"] - mean) < 4 * spread, name
