"""Results that version 0.1.0 saved, with its names of fields and a frame more: they load, plot and run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from moesim import Result, Scenario, Study
from moesim.cli.plot import open_results

SAVED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/saved_by_0_1_0.json").read_text(encoding="utf-8"))
"""What version 0.1.0 saved of a run and of a sweep: frames as columns, the rest as it was."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of the run, as version 0.1.0 left it."""
    saved = SAVED["run"]
    for name, frame in saved["frames"].items():
        pd.DataFrame(frame["columns"]).astype(frame["types"]).to_parquet(tmp_path / f"{name}.parquet")
    for name in ("manifest", "summary", "scenario"):
        (tmp_path / f"{name}.json").write_text(json.dumps(saved[name]), encoding="utf-8")
    (tmp_path / "scenario.yaml").write_text(saved["scenario.yaml"], encoding="utf-8")
    return tmp_path


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """The folder of the sweep, with one metric of its differences."""
    saved = SAVED["sweep"]
    for name in ("manifest", "errors"):
        (tmp_path / f"{name}.json").write_text(json.dumps(saved[name]), encoding="utf-8")
    for name, frame in (("summary", "points"), ("paired", "paired")):
        pd.DataFrame(saved[frame]).to_parquet(tmp_path / f"{name}.parquet")
    return tmp_path


def test_a_run_loads_with_the_present_names(run: Path) -> None:
    """The frame that was always empty is not missed; the text of the scenario stays what was saved."""
    result = Result.load(run)
    assert result.scenario["parallelism"]["expert_tp"] == result.scenario["parallelism"]["attention_tp"] == 1
    assert result.scenario["routing"]["training"]["mechanism"] == "none"
    assert result.scenario["faults"][0]["kind"] == "gpu-failure"
    assert result.scenario["faults"][0]["start_s"] == 50
    assert "expert_tensor" in result.scenario_yaml
    assert result.manifest["empty_frames"] == {}
    assert "gpu-failure" not in result.report_html()  # the page shows the text that was saved
    assert result.plot.timeline().data


def test_a_run_saves_and_loads_equal(run: Path, tmp_path: Path) -> None:
    """What was loaded is a result like any other."""
    result = Result.load(run)
    assert Result.load(result.save(tmp_path / "again")) == result


def test_the_saved_scenario_runs_again(run: Path) -> None:
    """With a notice for each of its old names."""
    scenario = Scenario.from_yaml(run / "scenario.yaml")
    loaded = Result.load(run).scenario
    for part in ("parallelism", "faults", "routing"):
        assert scenario.resolved()[part] == loaded[part]
    assert all("is now called" in notice.text for notice in scenario.warnings)


def test_a_sweep_loads_with_the_present_names_of_its_axes(swept: Path) -> None:
    """In points, differences and errors, and in what `moesim plot` opens."""
    study = Study.load(swept)
    assert study.axes == ("parallelism.expert_tp", "placement.strategy")
    assert list(study.points.columns[:4]) == [*study.axes, "variant", "seed"]
    assert list(study.paired.columns[:2]) == [*study.axes]
    assert study.errors[0]["parallelism.expert_tp"] == "2"
    runs, points = open_results(swept)
    assert not runs
    assert points is not None
    assert list(points.columns[:2]) == [*study.axes]
    assert len(study.summary) == len(study.points)
