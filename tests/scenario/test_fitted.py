"""`workload.popularity: {from: FILE}`: what a fit gives a scenario, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Scenario, ScenarioError, simulate
from moesim.recordings.popularity_file import write_popularity
from moesim.scenario.fitted import fitted_path, read_popularity, rows_of_layers, shipped_fits
from moesim.types import FittedPopularity
from moesim.workload import fitted_loads

GOOD = """popularity_version: 1
source: a recording
n_experts: 4
top_k: 2
topics: {count: 3, strength: 0.5}
layers: [0, 1]
locality: [0.25, 0.5]
shares:
- [0.4, 0.3, 0.2, 0.1]
- [0.1, 0.2, 0.3, 0.4]
"""
MODEL = {"preset": "mixtral-8x7b", "n_layers": 2, "n_experts": 4}


def scenario(tmp_path: Path, text: str = GOOD, model: dict[str, Any] | None = None, **workload: Any) -> Scenario:
    """A scenario whose popularity is from a file with this text."""
    (tmp_path / "popularity.yaml").write_text(text, encoding="utf-8")
    data = {
        "model": model or MODEL,
        "cluster": {"gpu": "h100-sxm", "gpus_per_node": 4},
        "workload": {"steps": 1, "popularity": {"from": str(tmp_path / "popularity.yaml")}, **workload},
    }
    return Scenario.from_dict(data)


def test_a_fit_gives_load_topics_and_locality(tmp_path: Path) -> None:
    """The load comes out, and the resolved scenario is one that gives the same."""
    found = scenario(tmp_path, tokens_per_gpu=2048)
    workload = found.spec.workload
    assert (workload.topics.count, workload.topics.strength) == (3, 0.5)
    assert workload.locality == (0.25, 0.5)
    result = simulate(found)
    load = result.experts.groupby(["layer", "expert"])["requested"].sum().unstack()
    assert load.to_numpy() / load.to_numpy().sum(axis=1, keepdims=True) == pytest.approx(
        np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]), abs=0.02
    )
    again = Scenario.from_dict(found.resolved())
    assert again.resolved() == found.resolved()
    assert found.resolved()["workload"]["popularity"]["from"].endswith("popularity.yaml")


def test_the_scenario_goes_before_the_fit(tmp_path: Path) -> None:
    """Field by field of topics, and of locality."""
    workload = scenario(tmp_path, topics={"strength": 1.0}, locality=0.1).spec.workload
    assert (workload.topics.count, workload.topics.strength) == (3, 1.0)
    assert workload.locality == (0.1,)


def test_a_file_is_relative_to_the_scenario(tmp_path: Path) -> None:
    """As all paths are."""
    (tmp_path / "popularity.yaml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(
        "scenario_version: 1\nmodel: {preset: mixtral-8x7b, n_layers: 2, n_experts: 4}\ncluster: {gpu: h100-sxm}\n"
        "workload:\n  popularity: {from: popularity.yaml}\n",
        encoding="utf-8",
    )
    assert Scenario.from_yaml(tmp_path / "mine.yaml").spec.workload.topics.count == 3


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("popularity_version: 1", "popularity_version: 2", r"popularity.yaml:1:1: popularity_version: found 2"),
        ("top_k: 2", "top_k: 5", r"popularity.yaml:4:1: top_k: found 5, wanted at most the 4 experts"),
        ("- [0.1, 0.2, 0.3, 0.4]", "", r"popularity.yaml:8:1: shares: found 1 rows, wanted a row for each of the 2"),
        ("[0.4, 0.3, 0.2, 0.1]", "[0.4, 0.3, 0.2]", r"popularity.yaml:9:3: shares.0: found 3 shares, wanted one for"),
        ("[0.4, 0.3, 0.2, 0.1]", "[0.4, 0.3, 0.2, -1]", r"popularity.yaml:9:19: shares.0.3: found -1, wanted greater"),
        ("[0.4, 0.3, 0.2, 0.1]", "[0.4, 0.3, 0.2, 1]", r"popularity.yaml:9:3: shares.0: found shares of sum 1.9"),
        ("[0.4, 0.3, 0.2, 0.1]", "[0.4, 0.3, 0.2, .nan]", r"popularity.yaml:9:19: shares.0.3: found '.nan'"),
        ("[0.25, 0.5]", "[0.25]", r"popularity.yaml:7:1: locality: found 1 numbers, wanted a number for each of the 2"),
        ("layers: [0, 1]", "layers: [1, 0]", r"popularity.yaml:6:1: layers: found \[1, 0\], wanted layers in asc"),
        ("source: a recording", "sauce: x", r"popularity.yaml:\d:1: (source: found nothing|sauce: found an unknown)"),
        (GOOD, "- 1\n", r"popularity.yaml: found a list, wanted a mapping"),
    ],
)
def test_a_wrong_fit_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    """File, line and column of the fit, after the scenario's field."""
    with pytest.raises(ScenarioError, match=message) as error:
        scenario(tmp_path, GOOD.replace(old, new))
    assert "workload.popularity.from" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_fit_of_another_model_is_refused(tmp_path: Path) -> None:
    """Other experts; fewer layers, unless they are to be spread by depth."""
    with pytest.raises(ScenarioError, match=r"a fit of 4 experts, wanted one of the 8 experts of mixtral-8x7b"):
        scenario(tmp_path, model={"preset": "mixtral-8x7b"})
    with pytest.raises(ScenarioError, match=r"a fit of 2 layers, wanted one of the 5 MoE layers .*or by_depth: true"):
        scenario(tmp_path, model={**MODEL, "n_layers": 5})
    with pytest.raises(ScenarioError, match=r"absent.yaml: cannot be read.*'moesim fit' makes such a file"):
        scenario(tmp_path, popularity={"from": "/absent.yaml"})


def test_layers_go_by_number_or_in_order_or_by_depth(tmp_path: Path) -> None:
    """A fit with the numbers of the model, with ordinals, and of fewer layers."""
    (tmp_path / "fit.yaml").write_text(GOOD.replace("layers: [0, 1]", "layers: [3, 5]"), encoding="utf-8")
    fit, _ = read_popularity(tmp_path / "fit.yaml")
    rows, part = rows_of_layers(fit, [3, 5], by_depth=False) or pytest.fail("by number")
    assert (rows.tolist(), part.tolist()) == ([[0, 0], [1, 1]], [0, 0])
    rows, _ = rows_of_layers(fit, [0, 1], by_depth=False) or pytest.fail("in order")
    assert rows.tolist() == [[0, 0], [1, 1]]
    assert rows_of_layers(fit, [2, 3, 4, 5], by_depth=False) is None
    rows, part = rows_of_layers(fit, [2, 3, 4, 5], by_depth=True) or pytest.fail("by depth")
    assert rows.tolist() == [[0, 0], [0, 0], [0, 1], [1, 1]]
    assert part.tolist() == [0, 0, 0.5, 0]
    load = fitted_loads(1, np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.3, 0.5]]), rows, part)
    assert load[1].tolist() == [0.7, 0.1, 0.1, 0.1]
    assert sorted(load[2].round(3).tolist()) == [0.1, 0.1, 0.2, 0.6]


def test_a_fit_is_written_as_it_is_read(tmp_path: Path) -> None:
    """To five digits of a share."""
    fit = FittedPopularity(
        source="a: b", model="", n_experts=3, top_k=1, layers=(2,), shares=np.array([[0.123456, 0.876544, 0.0]])
    )
    write_popularity(fit, tmp_path / "fit.yaml")
    found, _ = read_popularity(tmp_path / "fit.yaml")
    assert found.source == "a: b"
    assert found.shares[0].tolist() == pytest.approx([0.12346, 0.87654, 0], abs=1e-9)
    assert (found.topic_count, found.locality) == (0, ())


@pytest.mark.parametrize("name", shipped_fits())
def test_what_ships_can_be_read(name: str) -> None:
    """By name; its shares are of measured skew."""
    fit, _ = read_popularity(fitted_path(name))
    assert 0.1 < (fit.shares.max(axis=1) * fit.n_experts - 1).mean() < 1
    assert fit.source
