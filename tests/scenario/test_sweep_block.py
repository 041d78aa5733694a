"""The forms of a `sweep:` block, and what is wrong with others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from moesim import Scenario, ScenarioError

BASE = {"model": "mixtral-8x7b", "cluster": {"gpu": "h100-sxm"}}


def points(sweep: Any) -> list[dict[str, Any]]:
    """The points of a sweep."""
    return Scenario.from_dict({**BASE, "sweep": sweep}).points()


def test_a_grid_runs_its_last_axis_fastest() -> None:
    """With or without its name; a value that stands twice counts once."""
    axes = {"routing.top_k": [1, 2, 1], "seed": [3, 4]}
    found = [{"routing.top_k": k, "seed": s} for k in (1, 2) for s in (3, 4)]
    assert points(axes) == points({"grid": axes}) == found


def test_a_list_goes_as_it_is() -> None:
    """Fields that change together."""
    listed = [{"cluster.nodes": 1, "workload.tokens_per_gpu": 64}, {"workload.tokens_per_gpu": 32, "cluster.nodes": 2}]
    assert points({"list": listed}) == listed


def test_random_points_stay_where_they_are_when_there_are_more_of_them() -> None:
    """Each axis by its own numbers: another axis, or a larger n, moves none."""
    axes = {
        "workload.popularity.exponent": {"low": 0, "high": 1.5},
        "workload.tokens_per_gpu": {"low": 1, "high": 1024, "scale": "log", "integer": True},
        "cluster.gpu": ["h100-sxm", "h200-sxm"],
    }
    found = points({"random": {"n": 400, "seed": 5, "axes": axes}})
    assert points({"random": {"n": 20, "seed": 5, "axes": axes}}) == found[:20]
    assert points({"random": {"n": 20, "seed": 6, "axes": axes}}) != found[:20]
    fewer = {name: axes[name] for name in ("workload.tokens_per_gpu",)}
    alone = points({"random": {"n": 20, "seed": 5, "axes": fewer}})
    tokens = [point["workload.tokens_per_gpu"] for point in found]
    assert {point["workload.tokens_per_gpu"] for point in alone} == set(tokens[:20])
    assert all(isinstance(n, int) and 1 <= n <= 1024 for n in tokens)
    assert 0.4 < sum(n < math.sqrt(1024) for n in tokens) / 400 < 0.6  # as many below 32 as above
    exponents = [point["workload.popularity.exponent"] for point in found]
    assert 0 <= min(exponents) < 0.05
    assert 1.45 < max(exponents) <= 1.5
    assert 150 < sum(point["cluster.gpu"] == "h100-sxm" for point in found) < 250


def test_parts_are_multiplied() -> None:
    """List outside, then random, the grid inside."""
    found = points(
        {
            "grid": {"routing.top_k": [1, 2]},
            "list": [{"cluster.nodes": 1}, {"cluster.nodes": 2}],
            "random": {"n": 2, "axes": {"workload.topics.strength": {"low": 0, "high": 1}}},
        }
    )
    assert [(p["cluster.nodes"], p["routing.top_k"]) for p in found] == [(n, k) for n in (1, 1, 2, 2) for k in (1, 2)]
    assert len({p["workload.topics.strength"] for p in found}) == 2
    assert list(found[0]) == ["cluster.nodes", "workload.topics.strength", "routing.top_k"]


def test_variants_and_points_have_no_sweep_of_their_own() -> None:
    """Nor do scenarios without one."""
    scenario = Scenario.from_dict({**BASE, "sweep": {"seed": [1, 2]}, "compare": {"a": {}}})
    assert scenario.with_overrides({"seed": 3}).points() == scenario.variants()["a"].points() == []
    assert Scenario.from_dict(BASE).points() == []


AXIS = {"workload.topics.strength": {"low": 0, "high": 1}}


@pytest.mark.parametrize(
    "sweep, message",
    [
        ([1], r"sweep: found \[1\], wanted a mapping"),
        ({"seed": 3}, r"sweep\.seed: found 3, wanted a list"),
        ({"seed": []}, r"sweep\.seed: found \[\], wanted a list"),
        ({"compare": [1]}, r"sweep\.compare: found compare as an axis, wanted a field of what is simulated"),
        ({"compare": [{"a": {}}]}, r"sweep\.compare: found compare as an axis"),
        ({"compare.a.seed": [1]}, r"sweep\.compare\.a\.seed: found compare as an axis"),
        ({"grid": {"sweep": [1]}}, r"sweep\.grid\.sweep: found sweep as an axis"),
        ({"list": [{"extends": "x"}]}, r"sweep\.list\.0\.extends: found extends as an axis"),
        ({"random": {"n": 1, "axes": {"scenario_version": [1]}}}, r"axes\.scenario_version: found scenario_version as"),
        ({"grid": {"seed": {}}}, r"sweep\.grid\.seed: found {}, wanted a list"),
        (
            {"grid": {"seed": [1]}, "routing.top_k": [1]},
            r"sweep\.routing\.top_k: .* next to the parts grid, wanted it in sweep\.grid",
        ),
        ({"list": {}}, r"sweep\.list: found {}, wanted a list of mappings"),
        ({"list": [3]}, r"sweep\.list\.0: found 3"),
        (
            {"list": [{"seed": 1}, {"name": "x"}]},
            r"sweep\.list\.1: found the fields name, wanted those of the first: seed",
        ),
        ({"list": [{"seed": 1}], "grid": {"seed": [1]}}, r"sweep\.grid: found seed, which stands in sweep\.list too"),
        ({"random": {"n": 3}}, r"sweep\.random: .*wanted n, seed and axes"),
        ({"random": {"n": 0, "axes": AXIS}}, r"sweep\.random\.n: found 0"),
        ({"random": {"n": True, "axes": AXIS}}, r"sweep\.random\.n: found True"),
        ({"random": {"n": 3, "seed": -1, "axes": AXIS}}, r"sweep\.random\.seed: found -1"),
        ({"random": {"n": 3, "sead": 1, "axes": AXIS}}, r"sweep\.random\.sead: .*wanted n, seed or axes"),
        ({"random": {"n": 3, "axes": {"seed": {"low": 1}}}}, r"sweep\.random\.axes\.seed: .*low: 0\.1, high: 10"),
        ({"random": {"n": 3, "axes": {"seed": {"low": 2, "high": 1}}}}, "low below high"),
        ({"random": {"n": 3, "axes": {"seed": {"low": 0, "high": 1, "scale": "log"}}}}, "log with low above 0"),
        ({"random": {"n": 3, "axes": {"seed": {"low": 1, "high": 2, "scale": "cubic"}}}}, "scale linear, or log"),
        (
            {"grid": {"seed": list(range(400)), "routing.top_k": list(range(400))}},
            "more points, wanted at most 100,000",
        ),
        ({"random": {"n": 3, "axes": {"seed": {"low": 1, "high": 2.5, "integer": True}}}}, "two whole numbers"),
        ({"grid": {"seed": list(range(400))}, "list": [{"name": str(i)} for i in range(400)]}, "160,000 points"),
    ],
)
def test_other_forms_are_refused_with_their_place(sweep: Any, message: str) -> None:
    """One line."""
    with pytest.raises(ScenarioError, match=message) as caught:
        points(sweep)
    assert "\n" not in str(caught.value)


def test_the_place_is_a_line_of_the_file(tmp_path: Path) -> None:
    """Of the axis that is wrong."""
    path = tmp_path / "s.yaml"
    path.write_text("model: mixtral-8x7b\ncluster: {gpu: h100-sxm}\nsweep:\n  grid:\n    seed: 3\n", encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"s\.yaml:5:5: sweep\.grid\.seed: found 3"):
        Scenario.from_yaml(path)
