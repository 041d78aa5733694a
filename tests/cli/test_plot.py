"""`moesim plot`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from moesim import Scenario, compare
from moesim.report import FIGURES, POINT_FIGURES, figure_data
from moesim.results import Result, Study
from tests.browser import needs_chromium
from tests.cli.conftest import SCENARIO, Call


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small scenario's variants, saved once for all tests, which only read it."""
    folder = tmp_path_factory.mktemp("compared") / "study"
    compare(Scenario.from_dict(yaml.safe_load(SCENARIO))).save(folder)
    return folder


def test_the_data_are_those_of_the_figure_in_python(moesim: Call, study: Path, folder: Path) -> None:
    """The CSV has the same bytes, and its values are those of the summary."""
    outcome = moesim("plot", study, "--figure", "capacity_drops", "-o", folder / "drops.csv")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"{folder / 'drops.csv'}\n", "")
    loaded = Study.load(study)
    figure_data(loaded.plot.capacity_drops()).to_csv(folder / "wanted.csv", index=False)
    assert (folder / "drops.csv").read_bytes() == (folder / "wanted.csv").read_bytes()
    drops = pd.read_csv(folder / "drops.csv").set_index(["panel", "x"])["y"]
    assert drops["dropped assignments", "none"] == 0
    assert drops["dropped assignments", "1"] == loaded.results["tight"].summary["drop_rate"]


def test_one_run_of_a_study_is_a_result_too(moesim: Call, study: Path, folder: Path) -> None:
    """The folder of a variant is plotted like the result of a run."""
    one = study / "01-as-trained"
    assert moesim("plot", one, "--figure", "timeline", "-o", folder / "t.csv").code == 0
    rows = figure_data(Result.load(one).plot.timeline())
    assert len(pd.read_csv(folder / "t.csv")) == len(rows)


def test_list_names_the_figures(moesim: Call, study: Path) -> None:
    """All figures of a study, in their order."""
    listed = moesim("plot", study, "--list").out
    assert [line.split()[0] for line in listed.splitlines()] == list(FIGURES)


def test_of_a_sweep_there_are_the_figures_of_points(moesim: Call, folder: Path) -> None:
    """Figures that need frames are refused for a sweep, which has none."""
    points = pd.DataFrame(
        {
            "routing.capacity": ['{"factor": 1.0}', '{"factor": 1.25}', "none"],
            "variant": "only",
            "seed": 1,
            "drop_rate": [0.2, 0.1, 0.0],
            "token_drop_rate": 0.0,
        }
    )
    (folder / "swept").mkdir()
    points.to_parquet(folder / "swept" / "summary.parquet", index=False)
    listed = moesim("plot", folder / "swept", "--list").out
    assert [line.split()[0] for line in listed.splitlines()] == list(POINT_FIGURES)
    assert moesim("plot", folder / "swept", "--figure", "capacity_drops", "-o", folder / "d.csv").code == 0
    shown = pd.read_csv(folder / "d.csv", dtype=str)
    assert shown["x"].tolist()[:3] == ["1", "1.25", "none"]
    refused = moesim("plot", folder / "swept", "--figure", "timeline", "-o", folder / "t.csv")
    assert refused.code == 2
    assert "of a sweep's points alone: capacity_drops" in refused.err


def test_a_page_of_one_figure_needs_no_browser(moesim: Call, study: Path, folder: Path) -> None:
    """The page holds Plotly itself and loads nothing."""
    assert moesim("plot", study, "--figure", "pareto", "-o", folder / "p.html").code == 0
    assert "cdn." not in (folder / "p.html").read_text(encoding="utf-8").partition("<div")[0]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--figure", "paretto", "-o", "p.csv"), "did you mean 'pareto'?"),
        (("--figure", "pareto", "-o", "p.gif"), "wanted one of .svg, .png, .pdf, .html, .csv"),
        (("--figure", "pareto", "-o", "small.yaml/p.csv"), "cannot be written"),
        ((), "wanted one of latency_breakdown"),
    ],
)
def test_what_is_wrong_is_one_line(
    moesim: Call, study: Path, small: Path, folder: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Unknown figures and formats, unwritable files, and a missing choice; nothing is written."""
    outcome = moesim("plot", study, *arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not list(folder.glob("p.*"))


def test_no_result_is_an_error(moesim: Call, folder: Path) -> None:
    """An empty folder holds nothing to plot."""
    outcome = moesim("plot", folder, "--list")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1


def test_a_figure_with_nothing_to_show_says_so(moesim: Call, study: Path, folder: Path) -> None:
    """The skew is the same in both variants; the command succeeds."""
    outcome = moesim("plot", study, "--figure", "skew_balance", "-o", folder / "s.csv")
    assert outcome.code == 0
    assert outcome.err == "nothing to show: The skew of the popularity does not vary.\n"


def test_without_a_browser_the_error_says_what_to_do(
    moesim: Call, study: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image needs Chromium, and no half an image is left."""
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", "/nonexistent")
    outcome = moesim("plot", study, "--figure", "pareto", "-o", folder / "p.svg")
    assert outcome.code == 1
    assert "none was found: install chromium" in outcome.err
    assert not (folder / "p.svg").exists()


@needs_chromium
def test_images_have_their_format_and_size(moesim: Call, study: Path, folder: Path) -> None:
    """SVG, PNG and PDF start as their formats do; the width is the one asked for."""
    pytest.importorskip("kaleido")
    for kind, begins in (("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF")):
        file = folder / f"p.{kind}"
        assert moesim("plot", study, "--figure", "pareto", "-o", file, "--width", 700).code == 0
        assert file.read_bytes().startswith(begins)
    assert 'width="700"' in (folder / "p.svg").read_text(encoding="utf-8")[:300]


def test_results_whose_name_is_too_long(moesim: Call) -> None:
    """The error of the file system is told in one line."""
    outcome = moesim("plot", "a" * 300, "--list")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: {'a' * 300}: cannot be read: File name too long\n"
