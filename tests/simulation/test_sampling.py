"""How choices are drawn is decided once for a study, only where it is exact, and can be read from its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Scenario, compare, simulate
from moesim.errors import ScenarioError
from moesim.routing import route
from moesim.routing.registry import STRATEGIES, parameters_for, strategy
from moesim.simulation import check, resolve_sampling
from moesim.study import plan_sweep

SMALL = {
    "model": {"preset": "mixtral-8x7b", "n_layers": 3},
    "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 4},
    "workload": {
        "steps": 2,
        "tokens_per_gpu": 500,
        "popularity": {"exponent": 0.8},
        "topics": {"count": 4, "strength": 0.5},
    },
}


def small(overrides: dict[str, Any] | None = None, **parts: object) -> Scenario:
    """Three layers on four GPUs."""
    return Scenario.from_dict({**SMALL, **parts}, overrides=overrides)


AUTO = {"workload.sampling": "auto"}
DIRECT = {"workload.sampling": "direct"}


def sampling(scenario: Scenario) -> str:
    """What a scenario asks for."""
    return scenario.spec.workload.sampling


def of_order(name: str) -> bool:
    """Whether a strategy's defaults make it choose the largest logits."""
    found = strategy(name)
    return found.order_only(parameters_for(found, {}))


@pytest.mark.parametrize("name", [name for name in STRATEGIES if of_order(name)])
def test_a_router_of_order_chooses_the_largest_logits(name: str) -> None:
    """Whatever the distances between them are."""
    top_k = 1 if name == "switch" else 3
    logits = np.random.default_rng(1).normal(size=(200, 16)).astype(np.float32)
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    for scale in (1.0, 30.0):
        np.testing.assert_array_equal(route(logits * scale, strategy=name, top_k=top_k).expert, expected)


def test_the_default_is_logits() -> None:
    """So that another variant in a comparison changes nothing in the results of the first."""
    assert sampling(small()) == "logits"
    assert simulate(small()).manifest["provenance"]["tokens"] == "synthetic: seeded logits of a stated skew"


def test_both_ways_give_the_same_loads_but_for_noise() -> None:
    """The load of each expert over 4000 tokens, within five standard deviations."""
    through, directly = (simulate(small({"workload.sampling": how})) for how in ("logits", "direct"))
    assert directly.manifest["provenance"]["tokens"].endswith("drawn directly")
    by = ["layer", "expert"]
    a, b = (result.experts.groupby(by).requested.sum().to_numpy() for result in (through, directly))
    assert (a != b).any()
    assert (np.abs(a - b) < 5 * np.sqrt(a + b)).all()
    assert through.summary["step_time_s"]["mean"] == pytest.approx(directly.summary["step_time_s"]["mean"], rel=0.05)


@pytest.mark.parametrize(
    "overrides, expected",
    [
        ({}, "direct"),
        ({"routing.strategy": "switch", "routing.top_k": 1}, "direct"),
        ({"routing.capacity": {"factor": 1.0, "overflow": "drop-at-random"}}, "direct"),
        ({"routing.capacity": {"factor": 1.0, "overflow": "drop-by-choice"}}, "direct"),
        ({"routing.capacity": {"factor": 1.0, "overflow": "drop-by-probability"}}, "logits"),
        ({"routing.capacity": {"factor": 1.0, "overflow": "drop-by-priority"}}, "logits"),
        ({"routing.strategy": "deepseek-v3"}, "logits"),
        ({"routing.strategy": "top-p"}, "logits"),
        ({"routing.strategy": "random"}, "logits"),
        ({"routing.strategy": "expert-choice"}, "logits"),
    ],
)
def test_auto_draws_directly_where_that_is_exact(overrides: dict[str, Any], expected: str) -> None:
    """And asking for it elsewhere is an error that names the field and what needs the logits."""
    assert sampling(resolve_sampling({"a": small({**AUTO, **overrides})})["a"]) == expected
    if expected == "direct":
        check(small({**DIRECT, **overrides}))
    else:
        with pytest.raises(ScenarioError, match=r"workload\.sampling: found direct, wanted logits or auto: routing\."):
            check(small({**DIRECT, **overrides}))


def test_a_fit_with_locality_is_named_where_it_needs_logits() -> None:
    """One who did not write the locality reads where it comes from."""
    with pytest.raises(ScenarioError, match="which the popularity mixtral-8x7b-gsm8k states"):
        check(Scenario.from_yaml("scenarios/quickstart.yaml").with_overrides(DIRECT))


def test_a_run_alone_decides_and_says_so(tmp_path: Path) -> None:
    """The scenario that is saved holds the decision, so it reproduces the run."""
    result = simulate(small(AUTO))
    assert result.scenario["workload"]["sampling"] == "direct"
    result.save(tmp_path / "run")
    again = simulate(Scenario.from_yaml(tmp_path / "run" / "scenario.yaml"))
    assert again.experts.equals(result.experts)
    assert simulate(small(DIRECT)).experts.equals(result.experts)


def test_a_study_decides_for_all_of_its_variants() -> None:
    """One that needs logits makes all of them use logits; each alone gives the same tokens again."""
    fine = {"base": {}, "top-1": {"routing.strategy": "switch", "routing.top_k": 1}}
    weighed = {"weighed": {"routing.capacity": {"factor": 1.0, "overflow": "drop-by-probability"}}}
    for variants, expected in ((fine, "direct"), ({**fine, **weighed}, "logits")):
        study = compare(small(AUTO, compare=variants))
        found = {name: result.scenario["workload"]["sampling"] for name, result in study.results.items()}
        assert found == dict.fromkeys(variants, expected)
        base, first = study.results["base"], study.results["top-1"]
        assert (first.experts.requested <= base.experts.requested).all()  # first choices are among the two
        assert simulate(Scenario.from_dict(first.scenario)).experts.equals(first.experts)


def test_one_who_asks_for_logits_decides_for_all() -> None:
    """Of several files, and of the points of a grid."""
    study = compare(small(AUTO, name="a"), small(name="b"))
    assert [result.scenario["workload"]["sampling"] for result in study.results.values()] == ["logits", "logits"]
    grid = {"routing.strategy": ["mixtral", "deepseek-v3"]}
    cells = plan_sweep(small(AUTO, sweep=grid))
    assert [sampling(cell.scenario) for cell in cells if cell.scenario is not None] == ["logits", "logits"]


def test_a_recorded_trace_is_not_drawn(tmp_path: Path) -> None:
    """Auto does nothing there, direct is refused before the trace is looked for in vain."""
    trace = {"workload": {"trace": str(tmp_path / "absent.parquet")}}
    assert sampling(resolve_sampling({"a": small(AUTO, **trace)})["a"]) == "logits"
    with pytest.raises(ScenarioError, match=r"override workload\.sampling: .*trace holds the choices"):
        check(small(DIRECT, **trace))


def test_results_do_not_depend_on_threads(tmp_path: Path) -> None:
    """Layers are drawn apart."""
    one, four = (simulate(small(DIRECT), threads=n) for n in (1, 4))
    assert one.experts.equals(four.experts)
