"""Memory of a run: it grows with its steps by the rows that the user keeps, and by nothing else."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from moesim import Scenario, simulate

LAYERS, GPUS, EXPERTS = 2, 64, 8
MATRIX = 8 * LAYERS * GPUS * GPUS
"""Bytes of the copies between all GPUs in a step."""


def growth(n_steps: int, **keep: object) -> float:
    """Bytes that a step leaves behind, on average from the fifth to the last."""
    scenario = Scenario.from_dict(
        {
            "model": {"preset": "mixtral-8x7b", "n_layers": LAYERS},
            "cluster": {"gpu": "h100-sxm", "nodes": 8, "gpus_per_node": 8},
            "workload": {"steps": n_steps, "tokens_per_gpu": 2},
            "simulation": {"network": "port"},
            "placement": {"redundant_experts": GPUS - EXPERTS},
            "keep": {"timeline_steps": 0, **keep},
        }
    )
    simulate(Scenario.from_dict(scenario.resolved(), overrides={"workload.steps": 1}), threads=1)  # compiles
    held: list[int] = []
    tracemalloc.start()
    try:
        simulate(scenario, progress=lambda *_: held.append(tracemalloc.get_traced_memory()[0]), threads=1)
    finally:
        tracemalloc.stop()
    return (held[-1] - held[4]) / (n_steps - 5)


def test_a_step_leaves_rows_of_frames_behind_and_no_matrix() -> None:
    """Rows are 11 kB in 80 small arrays, 26 kB in all; one matrix that were held would be 66 kB more."""
    assert growth(25) < 0.75 * MATRIX


def test_loads_of_experts_are_kept_only_if_wanted() -> None:
    """They are 8 columns of every layer and expert; the other frames stay."""
    scenario = Scenario.from_dict(
        {
            "model": {"preset": "mixtral-8x7b", "n_layers": LAYERS},
            "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 4},
            "workload": {"steps": 3, "tokens_per_gpu": 8},
        }
    )
    kept = simulate(scenario)
    bare = simulate(Scenario.from_dict(scenario.resolved(), overrides={"keep.experts": "none"}))
    assert len(kept.experts) == 3 * LAYERS * EXPERTS
    assert bare.experts.empty
    assert list(bare.experts.columns) == list(kept.experts.columns)
    assert bare.layers.equals(kept.layers)
    assert bare.summary == kept.summary


def test_a_report_without_loads_of_experts_says_so(tmp_path: Path) -> None:
    """The figures and the worst steps do without."""
    scenario = Scenario.from_dict(
        {
            "model": {"preset": "mixtral-8x7b", "n_layers": LAYERS},
            "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 4},
            "workload": {"steps": 2, "tokens_per_gpu": 8},
            "keep": {"experts": "none", "links": "none", "timeline_steps": 0},
        }
    )
    simulate(scenario).save(tmp_path / "bare")
    assert (tmp_path / "bare" / "report.html").exists()


@pytest.mark.parametrize("keep", [{"experts": "none"}, {"experts": "steps"}], ids=str)
def test_keep_words_survive_a_round_trip(keep: dict[str, str]) -> None:
    """The resolved scenario is itself a scenario; `none` stays a word."""
    scenario = Scenario.from_dict(
        {"model": "mixtral-8x7b", "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 8}, "keep": keep}
    )
    assert Scenario.from_dict(scenario.resolved()).spec.keep.experts == keep["experts"]
