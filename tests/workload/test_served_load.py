"""The preset of a served load has the statistics of the counts that it stands for, under the model's own router.

Its numbers were chosen on the counts of decode; those of the two prefill runs
were only held against them. The counts are read from the folder of MOESIM_DATA.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Scenario, simulate
from moesim.metrics import balancedness, cv, max_violation, normalised_entropy
from moesim.workload import lognormal_loads, read_counts

FOLDER = Path(os.environ.get("MOESIM_DATA", "")) / "traces" / "routing"
RECORDED = "deepseek_v3_sglang_ep_statistics_{}.json.gz"
needs_counts = pytest.mark.skipif("MOESIM_DATA" not in os.environ, reason="MOESIM_DATA names no folder of counts")


def served(popularity: object) -> np.ndarray:
    """Requested loads [58, 256] of a decode step of DeepSeek-V3 of 4,096 tokens, whose router chooses 4 of 8 groups."""
    scenario = {
        "model": "deepseek-v3",
        "cluster": {"gpu": "h200-sxm", "nodes": 4},
        "workload": {"steps": 1, "tokens_per_gpu": 128, "popularity": popularity},
    }
    frame = simulate(Scenario.from_dict(scenario)).experts
    return frame.sort_values(["layer", "expert"])["requested"].to_numpy().reshape(58, 256)


@pytest.fixture(scope="module")
def load() -> np.ndarray:
    """What comes out of the preset."""
    return served("deepseek-v3-served")


def statistics(load: np.ndarray) -> dict[str, np.ndarray]:
    """By layer: how unequal experts are, and how even contiguous ranks and 72 ranks of 4 slots, 32 of them copies."""
    copied = np.concatenate([load, load[:, :32]], axis=1).astype(np.float64)
    copied[:, :32] /= 2
    copied[:, 256:] /= 2
    ranks = {f"EP{n}": load.reshape(len(load), n, -1).sum(axis=2) for n in (8, 16, 32, 64, 128)}
    ranks["EP72"] = copied.reshape(len(load), 72, 4).sum(axis=2)
    return {
        "MaxVio": max_violation(load),
        "CV": cv(load),
        "entropy": normalised_entropy(load),
        "share of 32": np.sort(load, axis=1)[:, -32:].sum(axis=1) / load.sum(axis=1),
        **{name: balancedness(of_ranks) for name, of_ranks in ranks.items()},
    }


RANGES = {
    "MaxVio": (5.0, 7.0),
    "CV": (0.75, 0.90),
    "entropy": (0.940, 0.965),
    "share of 32": (0.32, 0.37),
    "EP8": (0.54, 0.63),
    "EP16": (0.48, 0.56),
    "EP32": (0.40, 0.50),
    "EP64": (0.32, 0.39),
    "EP72": (0.36, 0.44),
    "EP128": (0.24, 0.30),
}
"""Of the means over layers."""


def test_the_load_that_comes_out_is_as_unequal_as_served_load(load: np.ndarray) -> None:
    """Means over layers; MaxVio by layer from below 3 to above 7."""
    found = statistics(load)
    for name, (low, high) in RANGES.items():
        assert low < found[name].mean() < high, (name, found[name].mean())
    assert np.quantile(found["MaxVio"], 0.1) < 3.7
    assert np.quantile(found["MaxVio"], 0.9) > 6.5


def test_neighbours_are_alike(load: np.ndarray) -> None:
    """Contiguous ranks are less even than ranks of the same experts in any order; the first groups are the hottest."""
    shuffled = np.random.default_rng(1).permuted(load, axis=1)
    for n_ranks, worse in (("EP8", 0.18), ("EP32", 0.08), ("EP64", 0.04)):
        ordered, mixed = (statistics(x)[n_ranks].mean() for x in (load, shuffled))
        assert ordered < mixed - worse, n_ranks
    groups = load.reshape(58, 8, 32).mean(axis=(0, 2)) / load.mean()
    assert groups[0] > 1.4 > groups[1] > 1 > groups[6]


def test_few_layers_stand_for_all() -> None:
    """Layers of a cut model are at equal distances through the whole."""
    law: dict[str, Any] = {
        "sigma": (0.62,),
        "groups": 8,
        "group_exponent": (0.8, 0.1, 0.3, 0.85, 0.35),
        "group_sigma": (0.15,),
    }
    whole, some = (
        np.mean(
            [balancedness(lognormal_loads(seed, n, 256, **law).reshape(n, 32, 8).sum(axis=2)) for seed in range(40)]
        )
        for n in (58, 6)
    )
    assert some == pytest.approx(whole, abs=0.02)


def counted(name: str) -> np.ndarray:
    """Counts of a recording [58, 256]."""
    found, _ = read_counts(FOLDER / RECORDED.format(name), n_layers=61, moe_layers=range(3, 61), n_experts=256)
    return found


@needs_counts
def test_the_preset_has_the_statistics_of_the_counts_it_was_chosen_on(load: np.ndarray) -> None:
    """Decode: means over layers, and the spread of MaxVio over them."""
    found, real = statistics(load), statistics(counted("decode_in2000out100"))
    for name in found:
        tolerance = 0.01 if name == "entropy" else 0.08 * real[name].mean()
        assert found[name].mean() == pytest.approx(real[name].mean(), abs=tolerance), name
    for part in (0.1, 0.5, 0.9):
        assert np.quantile(found["MaxVio"], part) == pytest.approx(np.quantile(real["MaxVio"], part), rel=0.25)


@needs_counts
@pytest.mark.parametrize("name, tolerance", [("prefill_in1024", 0.12), ("prefill_in2048", 0.2)])
def test_the_preset_is_near_the_counts_it_was_not_chosen_on(load: np.ndarray, name: str, tolerance: float) -> None:
    """Prefill: of prompts of 2,048 tokens load is more unequal than in the two other recordings."""
    found, real = statistics(load), statistics(counted(name))
    for statistic in found:
        allowed = 0.015 if statistic == "entropy" else tolerance * real[statistic].mean()
        assert found[statistic].mean() == pytest.approx(real[statistic].mean(), abs=allowed), statistic


def quoted(row: str) -> dict[str, str]:
    """The cells of a row of the README's table."""
    lines = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").splitlines()
    (cells,) = (line.strip("| ").split(" | ")[1:] for line in lines if line.startswith(f"| {row} |"))
    (names,) = (line.strip("| ").split(" | ") for line in lines if line.startswith("| | MaxVio | CV |"))
    return dict(zip(names, cells, strict=True))


def test_the_readme_quotes_the_preset(load: np.ndarray) -> None:
    """Its row of the table."""
    found = statistics(load)
    for name, cell in quoted("preset, under the model's router").items():
        assert f"{found[name].mean():.{len(cell) - 2}f}" == cell, name


@needs_counts
@pytest.mark.parametrize(
    "row, name",
    [
        ("counts, decode", "decode_in2000out100"),
        ("counts, prompts of 1,024", "prefill_in1024"),
        ("counts, prompts of 2,048", "prefill_in2048"),
    ],
)
def test_the_readme_quotes_the_counts(row: str, name: str) -> None:
    """The other rows."""
    found = statistics(counted(name))
    for column, cell in quoted(row).items():
        assert f"{found[column].mean():.{len(cell) - 2}f}" == cell, column


@needs_counts
def test_counts_come_out_as_they_were_counted() -> None:
    """61 rows of which three are dense layers, under a router of groups: shares within chance, and all statistics."""
    file = FOLDER / RECORDED.format("decode_in2000out100")
    load, counts = served({"counts": str(file)}), counted("decode_in2000out100")
    share, wanted = (x / x.sum(axis=1, keepdims=True) for x in (load, counts))
    chance = np.sqrt(2 / np.pi) * np.sqrt(wanted / load.sum(axis=1, keepdims=True)).sum(axis=1).mean()
    assert np.abs(share - wanted).sum(axis=1).mean() < 1.3 * chance
    found, real = statistics(load), statistics(counts)
    for name in found:
        assert found[name].mean() == pytest.approx(real[name].mean(), rel=0.02), name
