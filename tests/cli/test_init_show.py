"""`moesim init` and `moesim show`."""

from __future__ import annotations

import json

import pytest
import yaml


def test_init_writes_a_scenario_that_runs(moesim, folder):
    written = moesim("init", "mine")
    assert (written.code, written.err) == (0, "")
    assert "mine.yaml" in written.out
    outcome = moesim("compare", "mine.yaml", "--json", "--set", "workload.steps=1")
    assert outcome.code == 0
    assert len(json.loads(outcome.out)) == 3
    assert (folder / "results" / "mine-compare").is_dir()


@pytest.mark.parametrize("name", ["plain", "plain.yaml", "plain.yml", "a: #b"])
def test_the_name_of_the_file_is_the_name_of_the_scenario(moesim, folder, name):
    assert moesim("init", name).code == 0
    (path,) = folder.iterdir()
    assert path.name == (name if name.startswith("plain.") else f"{name}.yaml")
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["name"] == path.stem


def test_init_never_overwrites(moesim, folder):
    (folder / "mine.yaml").write_text("precious", encoding="utf-8")
    outcome = moesim("init", "mine")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: mine.yaml: exists and is not overwritten; choose another name\n"
    assert (folder / "mine.yaml").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("name", ["nowhere/mine", "nul\0"])
def test_init_where_nothing_can_be_written(moesim, name):
    outcome = moesim("init", name)
    assert outcome.code == 2
    assert "cannot be written" in outcome.err


def test_show_prints_a_scenario_that_shows_the_same(moesim, small, folder):
    first = moesim("show", small, "--set", "workload.steps=7")
    assert first.code == 0
    assert yaml.safe_load(first.out)["workload"]["steps"] == 7
    (folder / "resolved.yaml").write_text(first.out, encoding="utf-8")
    assert moesim("show", "resolved.yaml").out == first.out


def test_show_checks_what_only_the_stages_know(moesim, small):
    outcome = moesim("show", small, "--set", "routing.strategy=nonsense")
    assert (outcome.code, outcome.out) == (2, "")
    assert "nonsense" in outcome.err


def test_show_prints_measured_tables_with_their_whole_path(moesim, small, folder):
    from hardware.measured_rows import experts, save

    save(folder / "tables", moe=experts({64: 1.0}))
    first = moesim("show", small, "--set", "cluster.kernels={table: tables}")
    assert first.code == 0
    assert yaml.safe_load(first.out)["cluster"]["kernels"] == {"table": str(folder / "tables"), "family": None}
    (folder / "resolved.yaml").write_text(first.out, encoding="utf-8")
    assert moesim("show", "resolved.yaml").out == first.out
    wrong = moesim("show", small, "--set", "cluster.kernels={table: nowhere}")
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err.startswith(
        "error: override cluster.kernels: cluster.kernels.table: found nowhere, wanted a measured"
    )
    assert wrong.err.count("\n") == 1
