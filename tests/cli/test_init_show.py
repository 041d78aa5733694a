"""`moesim init` and `moesim show`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Call


def test_init_writes_a_scenario_that_runs(moesim: Call, folder: Path) -> None:
    """All three variants of the template run as they were written."""
    written = moesim("init", "mine")
    assert (written.code, written.err) == (0, "")
    assert "mine.yaml" in written.out
    outcome = moesim("compare", "mine.yaml", "--json", "--set", "workload.steps=1")
    assert outcome.code == 0
    assert len(json.loads(outcome.out)) == 3
    assert (folder / "results" / "mine-compare").is_dir()


@pytest.mark.parametrize("name", ["plain", "plain.yaml", "plain.yml", "a: #b"])
def test_the_name_of_the_file_is_the_name_of_the_scenario(moesim: Call, folder: Path, name: str) -> None:
    """The ending .yaml is added where there is none."""
    assert moesim("init", name).code == 0
    (path,) = folder.iterdir()
    assert path.name == (name if name.startswith("plain.") else f"{name}.yaml")
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["name"] == path.stem


def test_init_never_overwrites(moesim: Call, folder: Path) -> None:
    """A file of that name is left alone and named in the error."""
    (folder / "mine.yaml").write_text("precious", encoding="utf-8")
    outcome = moesim("init", "mine")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: mine.yaml: exists and is not overwritten; choose another name\n"
    assert (folder / "mine.yaml").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("name", ["nowhere/mine", "nul\0"])
def test_init_where_nothing_can_be_written(moesim: Call, name: str) -> None:
    """The folder is missing, or the name has a character that no file has."""
    outcome = moesim("init", name)
    assert outcome.code == 2
    assert "cannot be written" in outcome.err


@pytest.mark.parametrize("name", ["", ".", "..", "x/", ".yaml", "x/.yml", " "])
def test_init_without_a_name_writes_nothing(moesim: Call, folder: Path, name: str) -> None:
    """Empty names, dots and folders are no names."""
    outcome = moesim("init", name)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: NAME: found {name!r}, wanted the name of a scenario or the path of a file to write\n"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["x y", 'a"b', "it's"])
def test_the_command_that_init_prints_can_be_pasted(moesim: Call, name: str) -> None:
    """Names with spaces and quotes are quoted for a shell."""
    command = moesim("init", name).out.strip().partition("run it with: ")[2]
    assert shlex.split(command) == ["moesim", "compare", f"{name}.yaml"]


def test_show_prints_a_scenario_that_shows_the_same(moesim: Call, small: Path, folder: Path) -> None:
    """What is shown, saved and shown again, is the same to the byte."""
    first = moesim("show", small, "--set", "workload.steps=7")
    assert first.code == 0
    assert yaml.safe_load(first.out)["workload"]["steps"] == 7
    (folder / "resolved.yaml").write_text(first.out, encoding="utf-8")
    assert moesim("show", "resolved.yaml").out == first.out


def test_show_checks_what_only_the_stages_know(moesim: Call, small: Path) -> None:
    """The name of a router is wrong only to the registry of routers."""
    outcome = moesim("show", small, "--set", "routing.strategy=nonsense")
    assert (outcome.code, outcome.out) == (2, "")
    assert "nonsense" in outcome.err


@pytest.mark.parametrize(
    "setting, message",
    [
        ("compare=[1, 2]", "override compare: compare: found [1, 2], wanted a mapping of names"),
        ("compare={a: 1}", "override compare: compare.a: found 1, wanted a mapping of names"),
        ("compare.x={foo: 1}", "override compare.x (variant x): foo: found an unknown field"),
        ("compare.x={routing.strategy: swich}", "override compare.x (variant x): routing.strategy: found swich"),
        ("sweep={foo: [1]}", "override sweep (sweep): foo: found an unknown field"),
        ("sweep={grid: {seed: [1, 2], workload.steps: [1, x]}}", "override sweep (sweep): workload.steps: found 'x'"),
    ],
)
def test_show_checks_variants_and_axes(moesim: Call, small: Path, setting: str, message: str) -> None:
    """A wrong variant or axis is named with the override that brought it."""
    outcome = moesim("show", small, "--set", setting)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {message}")
    assert outcome.err.count("\n") == 1


def test_show_says_where_an_axis_stands(moesim: Call, small: Path) -> None:
    """The error has the line and column of the axis in the file."""
    small.write_text(small.read_text(encoding="utf-8") + "sweep:\n  seed: [1]\n  foo: [1]\n", encoding="utf-8")
    outcome = moesim("show", small)
    assert outcome.code == 2
    assert "small.yaml:12:3 (sweep): foo: found an unknown field" in outcome.err


def test_show_prints_measured_tables_with_their_whole_path(moesim: Call, small: Path, folder: Path) -> None:
    """The resolved scenario finds its tables from any folder."""
    from tests.hardware.measured_rows import experts, save

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
