"""What is changed on top of a file: overrides, variants and files that extend others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moesim import Scenario
from moesim.errors import ScenarioError
from tests.scenario.files import write


def test_what_says_how_files_are_read_is_no_override(tmp_path: Path) -> None:
    """Nor part of a variant."""
    path = write(tmp_path, "compare:\n  a: {extends: x.yaml}\n  b: {compare: {}}\n")
    with pytest.raises(ScenarioError, match=r"override extends: extends: found .* wanted it in a scenario file"):
        Scenario.from_yaml(path, overrides={"extends": "x.yaml"})
    scenario = Scenario.from_yaml(path)
    with pytest.raises(ScenarioError, match=r"s\.yaml:4:7 \(variant a\): extends: .* wanted it in a scenario file"):
        scenario.variant("a")
    with pytest.raises(ScenarioError, match=r"s\.yaml:5:7 \(variant b\): compare: .* wanted it outside of variants"):
        scenario.variant("b")


def test_overrides_replace_and_are_named_in_errors(tmp_path: Path) -> None:
    """A dotted override begins mappings below none and changes presets below their names."""
    path = write(tmp_path, "routing: {capacity: none}\n")
    scenario = Scenario.from_yaml(
        path,
        overrides={"routing.capacity.factor": 1.5, "model.top_k": 4, "cluster.network.copies": "per-selection"},
    )
    assert scenario.spec.routing.capacity is not None
    assert scenario.spec.routing.capacity.factor == 1.5
    assert (scenario.model.top_k, scenario.model.hidden_size) == (4, 4096)
    assert scenario.cluster.network.copies == "per-selection"
    assert scenario.cluster.network.dispatch_bandwidth_gb_per_s == (360, 40)
    assert scenario.provenance["network"].startswith("synthetic")
    with pytest.raises(ScenarioError, match=r"override workload.steps: workload.steps: found 'x'"):
        Scenario.from_yaml(path, overrides={"workload.steps": "x"})
    with pytest.raises(ScenarioError, match=r"--set: seed\.x: found 1 at seed"):
        Scenario.from_yaml(write(tmp_path, "seed: 1"), overrides={"seed.x": 1})
    removed = Scenario.from_yaml(
        write(tmp_path, "routing: {capacity: {factor: 2}}"), overrides={"routing.capacity": None}
    )
    assert removed.spec.routing.capacity is None


def test_variants_change_the_base_and_are_named_in_errors(tmp_path: Path) -> None:
    """In order; each from the base with the overrides of the command line."""
    path = write(tmp_path, "compare:\n  base:\n  top-1: {routing.top_k: 1}\n")
    variants = Scenario.from_yaml(path, overrides={"seed": 7}).variants()
    assert list(variants) == ["base", "top-1"]
    assert [v.spec.routing.top_k for v in variants.values()] == [2, 1]
    assert {v.spec.seed for v in variants.values()} == {7}
    wrong = write(tmp_path, "compare:\n  a: {routing.topk: 1}\n")
    with pytest.raises(ScenarioError, match=r"s\.yaml:4:7 \(variant a\): routing\.topk: .*wanted top_k"):
        Scenario.from_yaml(wrong).variants()
    with pytest.raises(ScenarioError, match=r"override compare\.b \(variant b\): routing\.topk: .*wanted top_k"):
        Scenario.from_yaml(wrong, overrides={"compare.b": {"routing.topk": 1}}).variant("b")


def test_extends_merges_and_paths_are_relative_to_who_names_them(tmp_path: Path) -> None:
    """The trace is looked for beside the file that names it."""
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", "workload: {trace: t.parquet, steps: 3}\nseed: 4\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base/s.yaml\nworkload: {steps: 5}\n")
    spec = Scenario.from_yaml(child).spec
    assert (spec.seed, spec.workload.steps) == (4, 5)
    assert spec.workload.trace == str(tmp_path / "base" / "t.parquet")


def test_paths_of_variants_and_axes_are_relative_to_their_file_and_of_the_command_line_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever moesim is started."""
    (tmp_path / "files").mkdir()
    config = {"model_type": "mixtral", "hidden_size": 512, "num_hidden_layers": 4, "num_local_experts": 8}
    config |= {"num_experts_per_tok": 2, "vocab_size": 999, "num_attention_heads": 8, "intermediate_size": 256}
    (tmp_path / "files" / "config.json").write_text(json.dumps(config))
    path = write(
        tmp_path / "files",
        "compare: {a: {workload.trace: a.parquet}, b: {workload: {trace: b.parquet}}, c: {model: ./config.json}}\n"
        "sweep: {workload.trace: [s.parquet], cluster.kernels: [./k.yaml], model: [./config.json]}\n",
    )
    (tmp_path / "child.yaml").write_text("extends: files/s.yaml\n")
    monkeypatch.chdir(tmp_path)
    for scenario in (Scenario.from_yaml(path), Scenario.from_yaml("child.yaml")):
        a, b, c = scenario.variants().values()
        assert [v.spec.workload.trace for v in (a, b)] == [str(tmp_path / "files" / f"{v}.parquet") for v in "ab"]
        assert c.model.hidden_size == 512
        (place,) = scenario.points()
        point = scenario.with_point(place)
        assert point.spec.workload.trace == point.variant("c").spec.workload.trace == str(path.parent / "s.parquet")
        assert point.variant("a").spec.workload.trace == a.spec.workload.trace
        assert point.spec.cluster.kernels == str(path.parent / "k.yaml")
        assert point.model.hidden_size == point.with_overrides({"model.n_layers": 2}).model.hidden_size == 512
        set_here = scenario.with_overrides({"workload.trace": "s.parquet"})
        assert set_here.spec.workload.trace == str(tmp_path / "s.parquet")
        assert point.with_overrides({"workload.trace": "t.parquet"}).spec.workload.trace == str(tmp_path / "t.parquet")
