"""`moesim compare`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call


def test_variants_stand_in_one_table_and_one_report(moesim: Call, small: Path, folder: Path) -> None:
    """The table has a row for each variant, in their order; the last line names the report."""
    outcome = moesim("compare", small)
    assert outcome.code == 0
    rows = [line.split("  ")[0].strip() for line in outcome.out.splitlines()]
    assert rows.index("as trained") < rows.index("tight")
    assert "drop rate" in outcome.out
    assert outcome.out.splitlines()[-1] == "report: results/small-test-compare/report.html"
    assert (folder / "results" / "small-test-compare" / "summary.parquet").exists()


def test_json_has_a_summary_a_variant(moesim: Call, small: Path) -> None:
    """Standard output is one JSON object, from names of variants to their summaries."""
    outcome = moesim("compare", small, "--json")
    summaries = json.loads(outcome.out)
    assert list(summaries) == ["as trained", "tight"]
    assert summaries["as trained"]["drop_rate"] == 0 < summaries["tight"]["drop_rate"]


def test_variants_see_the_same_tokens(moesim: Call, small: Path) -> None:
    """The requested load is the same for all variants, whatever their capacity."""
    summaries = json.loads(moesim("compare", small, "--json").out)
    same = ("max_violation", "load_cv", "load_entropy")  # of the requested load, before any capacity
    assert [summaries["as trained"][key] for key in same] == [summaries["tight"][key] for key in same]


def test_two_files(moesim: Call, small: Path, folder: Path) -> None:
    """The base scenarios of two files are compared, each under its name."""
    other = folder / "other.yaml"
    other.write_text("extends: small.yaml\nname: Other\nrouting: {strategy: random}\n", encoding="utf-8")
    outcome = moesim("compare", small, other, "--json", "-o", "out")
    assert list(json.loads(outcome.out)) == ["Small test", "Other"]


def test_quiet_prints_nothing(moesim: Call, small: Path, folder: Path) -> None:
    """Neither stream has a word in it."""
    outcome = moesim("compare", small, "--quiet", "--set", "workload.steps=1")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_without_variants_it_is_exit_2(moesim: Call, small: Path, folder: Path) -> None:
    """A single file without `compare:` is refused by name, and no folder is made."""
    text = small.read_text(encoding="utf-8")
    small.write_text(text[: text.index("compare:")], encoding="utf-8")
    outcome = moesim("compare", small)
    assert (outcome.code, outcome.out) == (2, "")
    assert "small.yaml" in outcome.err
    assert "no variants" in outcome.err
    assert not (folder / "results").exists()


def test_a_wrong_variant_stops_it_before_anything_runs(moesim: Call, small: Path, folder: Path) -> None:
    """All variants are checked first, so that none runs in vain."""
    with small.open("a", encoding="utf-8") as file:
        file.write("  broken: {routing.strategy: nonsense}\n")
    outcome = moesim("compare", small)
    assert (outcome.code, outcome.out) == (2, "")
    assert "nonsense" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (folder / "results").exists()


def test_a_folder_that_is_no_result_is_not_replaced(moesim: Call, small: Path, folder: Path) -> None:
    """What others wrote stays as it is."""
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert moesim("compare", small, "-o", "mine").code == 2
    assert [path.name for path in (folder / "mine").iterdir()] == ["thesis.txt"]


def test_what_was_finished_is_kept_when_interrupted(
    moesim: Call, small: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two variants is saved as a study that can be loaded."""
    from moesim import Study, study

    finished = study.replicate

    def interrupted(*arguments: Any, **options: Any) -> Iterator[Any]:
        yield next(finished(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "replicate", interrupted)
    outcome = moesim("compare", small)
    assert (outcome.code, outcome.out) == (130, "")
    assert "1 of 2 variants are in results/small-test-compare" in outcome.err
    assert list(Study.load(folder / "results" / "small-test-compare").results) == ["as trained"]


def test_interrupted_before_anything_was_finished_leaves_nothing(
    moesim: Call, small: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt in the first run leaves the folder of results empty."""
    from moesim import study

    def interrupted(*_: Any, **__: Any) -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(study, "replicate", interrupted)
    assert moesim("compare", small).code == 130
    assert not list((folder / "results").iterdir())
