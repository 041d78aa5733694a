"""Results on disk: equal after loading, whole or not at all, never in place of something else."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from moesim import Result, Scenario, Study, compare, simulate
from moesim.errors import OutputError
from moesim.results import prepare_output
from moesim.results.result import FRAMES

SCENARIO = Scenario.from_dict(
    {
        "name": "tiny",
        "model": {"preset": "olmoe-1b-7b", "n_layers": 2},
        "cluster": {"gpu": "a100-sxm", "gpus_per_node": 2},
        "workload": {"steps": 2, "tokens_per_gpu": 8},
        "compare": {"a": {}, "<b>": {"routing.capacity": {"factor": 1.0}}},
    }
)


@pytest.fixture(scope="module")
def result() -> Result:
    """A run of two steps."""
    return simulate(SCENARIO)


@pytest.fixture(scope="module")
def study() -> Study:
    """Two variants."""
    return compare(SCENARIO)


def test_a_result_loads_equal(result: Result, tmp_path: Path) -> None:
    """Frames, types, summary, scenario and manifest."""
    result.save(tmp_path / "r")
    again = Result.load(tmp_path / "r")
    assert again == result
    for name, columns in FRAMES.items():
        frame = getattr(again, name)
        assert {c: str(t) for c, t in frame.dtypes.items()} == dict(columns), name
    assert Scenario.from_yaml(tmp_path / "r" / "scenario.yaml").resolved() == result.scenario
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary == result.summary
    assert "NaN" not in (tmp_path / "r" / "summary.json").read_text()


def test_a_study_loads_equal(study: Study, tmp_path: Path) -> None:
    """Variants in order, whatever their names hold."""
    study.save(tmp_path / "s")
    again = Study.load(tmp_path / "s")
    assert again == study
    assert again != compare(SCENARIO.with_seed(5))
    assert list(again.results) == ["a", "<b>"]
    assert all(again.results[name] == study.results[name] for name in study.results)
    pd.testing.assert_frame_equal(again.summary, study.summary)
    assert (tmp_path / "s" / "02-b" / "steps.parquet").is_file()
    with pytest.raises(OutputError, match="no result of one run"):
        Result.load(tmp_path / "s")


def test_a_result_is_replaced_and_other_folders_are_not(result: Result, tmp_path: Path) -> None:
    """Nothing of the old one stays, nothing temporary is left."""
    result.save(tmp_path / "r")
    (tmp_path / "r" / "old.txt").write_text("old")
    result.save(tmp_path / "r")
    assert not (tmp_path / "r" / "old.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("mine", "file"):
        with pytest.raises(OutputError, match="holds no moesim result"):
            result.save(tmp_path / name)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine", "r"]


def test_a_save_that_fails_leaves_nothing(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a half-written folder nor a temporary one; an older result stays whole."""
    result.save(tmp_path / "r")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("moesim.results.result.write_json", full)
    for name in ("r", "new"):
        with pytest.raises(OutputError, match="No space left"):
            result.save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert Result.load(tmp_path / "r") == result


def test_an_output_that_cannot_be_written_is_known_before_the_run(tmp_path: Path) -> None:
    """A file where a folder would have to be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        prepare_output(tmp_path / "file" / "r")


@pytest.mark.parametrize("damage", ["manifest.json", "summary.json", "steps.parquet"])
def test_damaged_results_are_refused(result: Result, tmp_path: Path, damage: str) -> None:
    """With the file's name."""
    result.save(tmp_path / "r")
    (tmp_path / "r" / damage).write_text("{")
    with pytest.raises(OutputError, match="moesim result"):
        Result.load(tmp_path / "r")
    with pytest.raises(OutputError):
        Result.load(tmp_path / "absent")


@pytest.mark.parametrize("text", ["[]", "null", "3", "{}"])
@pytest.mark.parametrize("file", ["manifest.json", "summary.json", "scenario.json"])
def test_files_that_hold_something_else_are_refused(result: Result, tmp_path: Path, file: str, text: str) -> None:
    """When they are read, not when something looks for a key."""
    result.save(tmp_path / "r")
    (tmp_path / "r" / file).write_text(text)
    with pytest.raises(OutputError, match=r"is damaged|found no result"):
        Result.load(tmp_path / "r")
    if file == "manifest.json":
        (tmp_path / "r" / file).write_text('{"versions": null}')
        with pytest.raises(OutputError, match="not replaced"):
            result.save(tmp_path / "r")


def test_frames_of_other_columns_and_folders_for_frames_are_refused(result: Result, tmp_path: Path) -> None:
    """Pandas would read all files of a folder, of which an empty one has none."""
    result.save(tmp_path / "r")
    steps = tmp_path / "r" / "steps.parquet"
    steps.write_bytes((tmp_path / "r" / "gpus.parquet").read_bytes())
    with pytest.raises(OutputError, match=r"steps\.parquet: is damaged, column start_s is missing"):
        Result.load(tmp_path / "r")
    steps.unlink()
    steps.mkdir()
    with pytest.raises(OutputError, match=r"steps\.parquet: cannot be read"):
        Result.load(tmp_path / "r")


def test_variants_that_differ_in_lists_have_a_report(tmp_path: Path) -> None:
    """Faults are a list of mappings."""
    slow = {"faults": [{"kind": "slow-gpu", "gpu": 1, "factor": 1.5}]}
    data = {**SCENARIO.resolved(), "compare": {"well": {}, "slow": slow}}
    study = compare(Scenario.from_dict(data))
    study.save(tmp_path / "s")
    assert Study.load(tmp_path / "s") == study
    assert "slow" in (tmp_path / "s" / "report.html").read_text()


def test_a_frame_without_rows_says_why(result: Result, tmp_path: Path) -> None:
    """In its attributes and the manifest, also when loaded, and in the report; frames with rows say nothing."""
    why = "the router does not evolve; routing.training lets it"
    result.save(tmp_path / "r")
    for run in (result, Result.load(tmp_path / "r")):
        assert run.router.empty
        assert run.router.attrs["empty"] == run.manifest["empty_frames"]["router"] == why
        assert set(run.manifest["empty_frames"]) == {"router"}
        assert "empty" not in run.layers.attrs
    assert f"router ({why})" in (tmp_path / "r" / "report.html").read_text()
    evolving = simulate(SCENARIO.with_point({"routing.training": {"mechanism": "none"}, "keep.timeline_steps": 0}))
    assert set(evolving.manifest["empty_frames"]) == {"timeline"}
