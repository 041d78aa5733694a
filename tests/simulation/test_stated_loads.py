"""A scenario may state the load that its router gives: counted, log-normal, of hot experts, or a preset."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from moesim import Scenario, compare, simulate
from moesim.errors import ScenarioError
from moesim.scenario import presets
from moesim.scenario.schema import LOAD_KINDS, POPULARITY_FIELDS, PopularitySpec
from moesim.study import plan_sweep

BASE: dict[str, Any] = {
    "model": {"preset": "olmoe-1b-7b", "n_layers": 2},
    "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 4},
    "workload": {"steps": 4, "tokens_per_gpu": 512},
}
COUNTS = np.random.default_rng(2).lognormal(sigma=0.8, size=(2, 64)).round(3) * 1000


def stated(popularity: object, overrides: dict[str, Any] | None = None, **parts: object) -> Scenario:
    """Two layers of OLMoE, 64 experts of which a token takes 8, on four GPUs."""
    scenario = Scenario.from_dict({**BASE, **parts}, overrides={"workload.popularity": popularity})
    return scenario if overrides is None else scenario.with_overrides(overrides)


def shares(scenario: Scenario) -> np.ndarray:
    """Of the requested load [2, 64]."""
    load = simulate(scenario).experts.groupby(["layer", "expert"])["requested"].sum().to_numpy().reshape(2, -1)
    return np.asarray(load / load.sum(axis=1, keepdims=True))


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """A file of counts."""
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({"logical_count": COUNTS.tolist()}))
    return path


WANTED = COUNTS / COUNTS.sum(axis=1, keepdims=True)


def assert_counted(found: np.ndarray) -> None:
    """Within 4 % of each count and four standard deviations of chance."""
    assert (np.abs(found - WANTED) < 0.04 * WANTED + 4 * np.sqrt(WANTED / (4 * 4 * 512 * 8))).all()


def test_a_lognormal_load_runs_and_has_the_stated_deviation() -> None:
    """Logarithms: ln of the load, in the mean of two layers of 64 experts."""
    found = shares(stated({"kind": "lognormal", "sigma": 0.8}))
    assert np.log(found).std(axis=1).mean() == pytest.approx(0.8, abs=0.15)
    np.testing.assert_array_equal(found, shares(stated({"sigma": 0.8})))  # the kind is told by its field


@pytest.mark.parametrize("stated_by, cv", [({"alpha": 1.2}, None), ({"concentration": 4.0}, 0.5)])
def test_other_laws_come_out(stated_by: dict[str, Any], cv: float | None) -> None:
    """The kind is told by its field; Dirichlet's coefficient of variation is about 1 / sqrt(4)."""
    found = shares(stated(stated_by))
    deviation = (found.std(axis=1) / found.mean(axis=1)).mean()
    assert deviation == pytest.approx(cv, abs=0.12) if cv else deviation > 0.8
    assert found.max() < 1 / 8 + 0.01
    assert {**stated(stated_by).spec.workload.popularity.model_dump(), **stated_by}["kind"] in (
        "power-law",
        "dirichlet",
    )


def test_hot_experts_get_their_share() -> None:
    """A third of the load for an eighth of the experts."""
    found = np.sort(shares(stated({"kind": "hot", "share": 0.34, "experts": 8})), axis=1)
    np.testing.assert_allclose(found[:, -8:].sum(axis=1), 0.34, atol=0.01)
    assert found[:, -9].max() < found[:, -8].min()


def test_counts_come_out_and_are_named(counts: Path) -> None:
    """Within chance; file and digest in the manifest, the file in the provenance."""
    scenario = stated({"counts": str(counts)})
    result = simulate(scenario)
    digest = hashlib.sha256(counts.read_bytes()).hexdigest()
    assert result.manifest["inputs"] == [{"name": "counts.json", "sha256": digest}]
    assert "counted in counts.json" in result.manifest["provenance"]["tokens"]
    assert_counted(shares(scenario))


def test_counts_come_out_whatever_the_topics_and_the_seed_are(counts: Path) -> None:
    """Topics prefer experts, and all of them together have the stated load; here every sequence is a token."""
    topics = {"workload.topics": {"count": 4, "strength": 0.7}, "seed": 5, "workload.tokens_per_gpu": 2048}
    found = shares(stated({"counts": str(counts)}, topics))
    assert (np.abs(found - WANTED) < 0.12 * WANTED + 0.0005).all()


def test_a_path_is_relative_to_the_file_that_names_it_and_the_resolved_scenario_reproduces_it(
    counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another folder too."""
    file = tmp_path / "scenario.yaml"
    file.write_text(json.dumps({**BASE, "workload": {**BASE["workload"], "popularity": {"counts": "counts.json"}}}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    read = Scenario.from_yaml(file)
    assert read.spec.workload.popularity.counts == str(counts)
    (tmp_path / "elsewhere" / "resolved.yaml").write_text(read.resolved_yaml())
    again = Scenario.from_yaml("resolved.yaml")
    assert again.resolved() == read.resolved()
    np.testing.assert_array_equal(shares(again), shares(read))


def test_variants_with_other_routers_see_the_tokens_of_the_base(counts: Path) -> None:
    """The load is that of the base's router; a variant repeated alone from its resolved scenario is the same."""
    scenario = Scenario.from_dict(
        {
            **BASE,
            "workload": {**BASE["workload"], "popularity": {"counts": str(counts)}},
            "compare": {"own": {}, "fewer": {"routing.top_k": 1}},
        }
    )
    study = compare(scenario)
    assert [run.scenario["workload"]["popularity"]["router"]["top_k"] for run in study.results.values()] == [8, 8]
    own, fewer = study.results["own"], study.results["fewer"]
    assert fewer.summary["max_violation"]["mean"] > own.summary["max_violation"]["mean"] + 0.5  # less is spread
    alone = simulate(Scenario.from_dict(fewer.scenario))
    assert alone.experts.equals(fewer.experts)
    point = scenario.with_point({"routing.top_k": 2}).resolved()
    assert point["workload"]["popularity"]["router"]["top_k"] == 8


def test_a_router_of_the_scenario_gives_the_load_by_its_own_rules(counts: Path) -> None:
    """Top-1 of a scenario of its own: the load is as counted, too."""
    scenario = stated({"counts": str(counts)}, {"routing": {"strategy": "switch", "top_k": 1}})
    found = shares(scenario)
    assert (np.abs(found - WANTED) < 0.05 * WANTED + 4 * np.sqrt(WANTED / (4 * 4 * 512))).all()


def test_a_router_that_ignores_popularity_leaves_the_load_to_the_models_own(counts: Path) -> None:
    """The even control stays even; its variant with the model's router has the counts."""
    scenario = stated({"counts": str(counts)}, {"routing": {"strategy": "round-robin"}})
    np.testing.assert_allclose(shares(scenario), 1 / 64, atol=1e-9)
    routing = {**BASE, "routing": {"strategy": "round-robin"}, "compare": {"real": {"routing": {}}}}
    assert_counted(
        shares(Scenario.from_dict(routing, overrides={"workload.popularity.counts": str(counts)}).variant("real"))
    )


def test_sweeps_do_not_take_runs_of_another_file_for_their_own(counts: Path) -> None:
    """The digest of the counts is part of what a stored point depends on."""
    scenario = Scenario.from_dict(
        {**BASE, "workload": {"popularity": {"counts": str(counts)}}, "sweep": {"workload.steps": [1]}}
    )
    (before,) = plan_sweep(scenario)
    counts.write_text(json.dumps(np.flip(COUNTS).tolist()))
    (after,) = plan_sweep(scenario)
    assert before.inputs != after.inputs


def test_a_preset_may_be_named_or_changed() -> None:
    """By its name, as a base of other fields, or by an override below its name."""
    laws = [name for name, entry in presets("popularities").items() if entry["kind"] == "lognormal"]
    assert "deepseek-v3-served" in laws
    for preset in laws:
        named = stated(preset).spec.workload.popularity
        assert (named.name, named.kind, bool(named.source)) == (preset, "lognormal", True)
        changed = stated({"preset": preset, "sigma": 0.9}).spec.workload.popularity
        assert changed.sigma == (0.9,)
        assert changed.name == f"{preset} (changed)"
        data = {**BASE, "workload": {"popularity": preset}}
        assert (
            Scenario.from_dict(data, overrides={"workload.popularity.sigma": 0.9}).spec.workload.popularity == changed
        )


def test_every_kind_says_what_it_reads() -> None:
    """The table that tells kinds by their fields and finds those without effect."""
    assert set(POPULARITY_FIELDS) == set(get_args(PopularitySpec.model_fields["kind"].annotation))
    read = {field for fields in POPULARITY_FIELDS.values() for field in fields}
    fields = {field.alias or name for name, field in PopularitySpec.model_fields.items()}
    assert read == fields - {"name", "kind", "router", "source", "target"}
    assert set(LOAD_KINDS) < set(POPULARITY_FIELDS)


def test_stated_shares_come_out() -> None:
    """Of each layer, in any unit; one list is that of all layers. The kind is told by the field."""
    of_layers = stated({"shares": COUNTS.tolist()})
    assert of_layers.spec.workload.popularity.kind == "shares"
    assert_counted(shares(of_layers))
    one = shares(stated({"shares": COUNTS[0].tolist()}))
    assert (np.abs(one - WANTED[0]) < 0.04 * WANTED[0] + 4 * np.sqrt(WANTED[0] / (4 * 4 * 512 * 8))).all()
    assert Scenario.from_dict(of_layers.resolved()).resolved() == of_layers.resolved()


WRONG = [
    ({"kind": "lognormal"}, "sigma: found None, wanted a number, as kind lognormal needs it"),
    ({"sigma": -0.1}, "found -0.1, wanted standard deviations from 0"),
    ({"sigma": "x"}, "sigma: found 'x', wanted a number, or a list of numbers"),
    ({"sigma": 0.5, "groups": 65}, "groups: found 65, wanted at most the 64 experts"),
    ({"sigma": 0.5, "group_sigma": []}, "found 'an empty list', wanted a number"),
    ({"kind": "hot", "experts": 3}, "share: found None, wanted a share"),
    ({"share": 0.3, "experts": 64}, "experts: found 64, wanted 1 to 63"),
    ({"share": 0.3, "experts": 1}, "found 0.3 of the load of layer 0 .* at most 1 / top_k = 0.125"),
    ({"kind": "power-law"}, "alpha: found None, wanted a number, as kind power-law needs it"),
    ({"kind": "dirichlet"}, "concentration: found None, wanted a number, as kind dirichlet needs it"),
    ({"concentration": 0}, "concentration: found 0, wanted greater than or equal to 0.001"),
    ({"kind": "shares"}, "shares: found None, wanted a list of numbers"),
    ({"shares": 3}, "shares: found 3, wanted a list of numbers, or one for each MoE layer"),
    ({"shares": [1, -1]}, "shares.* found -1, wanted greater than or equal to 0"),
    ({"shares": [1, 2, 3]}, "shares: found '3 numbers in list 0', wanted 64, one for each expert"),
    ({"shares": [[1.0] * 64] * 3}, "shares: found '3 lists', wanted one, or one for each of 2"),
    ({"shares": [[1.0] * 64, [0] * 64]}, "shares: found 'only zeros in list 1', wanted a load above 0"),
    ({"shares": [9] + [0.1] * 63}, "found 0.588 of the load of layer 0 .* at most 1 / top_k = 0.125"),
    ({"kind": "counts"}, "counts: found None, wanted a file"),
    ({"kind": "zipf", "counts": "a.json"}, "kind: found 'zipf', wanted counts, since a file of counts is named"),
    ({"counts": "absent.json"}, "counts: found nothing readable .* in absent.json, wanted counts per layer"),
    ({"sigma": 0.5, "router": {"strategy": "swich"}}, "router: found swich, wanted one of .*did you mean switch"),
    ({"sigma": 0.5, "router": {"top_k": 65}}, "router.top_k: found 65, wanted at most the 64 experts"),
    ({"preset": "deepseek-v3-servd"}, "did you mean deepseek-v3-served"),
    ({"preset": "deepseek-v3-served", "exponent": 1}, "exponent: found 1, wanted one of sigma, .* over the preset"),
]


@pytest.mark.parametrize("popularity, message", WRONG)
def test_what_is_wrong_is_said(popularity: dict[str, Any], message: str) -> None:
    """The field, what was found and what would be right."""
    with pytest.raises(ScenarioError, match=message):
        simulate(stated(popularity))
