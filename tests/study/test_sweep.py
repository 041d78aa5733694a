"""Sweeps: what is run, what is kept, what is never computed twice."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from joblib.externals.loky import get_reusable_executor

from moesim import (
    InputError,
    OutputError,
    RunError,
    Scenario,
    Study,
    compare,
    simulate,
    sweep,
)
from moesim.recordings import import_recordings
from moesim.study import execute, plan_sweep
from moesim.study.store import Store


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[Scenario]:
    """What is simulated in this process, as it happens."""
    ran: list[Scenario] = []

    def watched(scenario: Scenario, **options: Any) -> Any:
        ran.append(scenario)
        return simulate(scenario, **options)

    monkeypatch.setattr(execute, "simulate", watched)
    return ran


def test_points_times_variants_times_seeds(make: Any, tmp_path: Path) -> None:
    """One row a run: axes, variant, seed, summary keys; each as it would be alone."""
    study = sweep(make(), folder=tmp_path / "s", seeds=2)
    frame = pd.read_parquet(tmp_path / "s" / "summary.parquet")
    assert list(frame.columns[:4]) == ["workload.popularity.exponent", "routing.top_k", "variant", "seed"]
    assert [tuple(row) for row in frame.iloc[:, :4].itertuples(index=False)] == [
        (exponent, k, variant, seed)
        for exponent in (0.0, 0.5)
        for k in (1, 2)
        for variant in ("dropless", "tight")
        for seed in (3, 4)
    ]
    alone = simulate(
        Scenario.from_dict(
            {**make().resolved(), "seed": 4},
            overrides={
                "workload.popularity.exponent": 0.5,
                "routing.top_k": 2,
                "routing.capacity": {"factor": 1.0},
            },
        )
    )
    last = frame.iloc[-1]
    assert last["step_time_s.mean"] == alone.summary["step_time_s"]["mean"]
    assert last["drop_rate"] == alone.summary["drop_rate"] > 0
    assert not [name for name in frame.columns if "profile" in name or "wall" in name]
    pd.testing.assert_frame_equal(frame, study.points)
    assert len(study.summary) == 8
    assert study.summary.index[1] == "exponent=0, top_k=1, tight"


def test_a_sweep_agrees_with_a_comparison(make: Any) -> None:
    """The same runs, seeds and intervals, reached by both."""
    study = sweep(make(sweep={"workload.tokens_per_gpu": [16]}), seeds=3)
    other = compare(make(), seeds=3)
    pd.testing.assert_frame_equal(
        study.points.drop(columns="workload.tokens_per_gpu").sort_values(["seed", "variant"], ignore_index=True),
        other.points.sort_values(["seed", "variant"], ignore_index=True),
    )
    pd.testing.assert_frame_equal(study.paired.drop(columns="workload.tokens_per_gpu"), other.paired)
    assert set(other.paired["n"]) == {3}
    assert len(other.summary) == 2


def test_what_is_finished_is_not_run_again(make: Any, tmp_path: Path, simulated: list[Scenario]) -> None:
    """Neither in a repetition, nor where the grid or the seeds grow; other values are."""
    first = sweep(make(), folder=tmp_path)
    assert len(simulated) == 8
    before = (tmp_path / "summary.parquet").read_bytes()
    again = sweep(make(), folder=tmp_path)
    assert len(simulated) == 8
    assert (tmp_path / "summary.parquet").read_bytes() == before
    pd.testing.assert_frame_equal(again.points, first.points)
    grown = make(sweep={"workload.popularity.exponent": [0.2, 0, 0.5], "routing.top_k": [1, 2]})
    study = sweep(grown, folder=tmp_path)
    assert len(simulated) == 12
    assert {run.spec.workload.popularity.exponent for run in simulated[8:]} == {0.2}
    pd.testing.assert_frame_equal(study.points.iloc[4:].reset_index(drop=True), first.points)
    sweep(make(), folder=tmp_path, seeds=2)
    assert [run.spec.seed for run in simulated[12:]] == [4] * 8
    assert (tmp_path / "summary.parquet").read_bytes() != before


@pytest.mark.parametrize("damage", ["", '{"key": "', "{}", "[]", '{"key": "other", "summary": {}}'])
def test_a_point_that_is_half_written_does_not_count(
    make: Any, tmp_path: Path, simulated: list[Scenario], damage: str
) -> None:
    """It is run again, and the file is whole afterwards; what a killed process left behind goes."""
    first = sweep(make(), folder=tmp_path)
    file = min((tmp_path / "points").glob("*.json"))
    whole = file.read_bytes()
    file.write_text(damage)
    (tmp_path / "points" / f".{file.stem}.99.partial").write_text(damage)
    again = sweep(make(), folder=tmp_path)
    assert len(simulated) == 9
    assert file.read_bytes() == whole
    assert not list((tmp_path / "points").glob(".*"))
    pd.testing.assert_frame_equal(again.points, first.points)


def test_the_number_of_workers_changes_nothing(make: Any, tmp_path: Path) -> None:
    """Byte for byte."""
    for workers in (1, 2):
        sweep(make(), folder=tmp_path / str(workers), seeds=2, workers=workers)
    for name in ("summary.parquet", "paired.parquet", "errors.json", "manifest.json"):
        assert len({(tmp_path / str(workers) / name).read_bytes() for workers in (1, 2)}) == 1, name


def test_errors_of_single_points_are_kept_and_the_others_go_on(make: Any, tmp_path: Path) -> None:
    """Of what cannot be, before anything runs; the baseline of the other points is still the first variant."""
    study = sweep(make(sweep={"routing.top_k": [9, 2]}), folder=tmp_path, seeds=2)
    assert [(error["routing.top_k"], error["variant"]) for error in study.errors] == [("9", "dropless"), ("9", "tight")]
    assert "at most the 8 experts" in study.errors[0]["error"]
    assert set(study.points["routing.top_k"]) == {2}
    assert set(study.paired["variant"]) == {"tight"}
    assert json.loads((tmp_path / "errors.json").read_text()) == list(study.errors)


@pytest.mark.parametrize("raised", [RunError("17 tokens were lost"), MemoryError(), ZeroDivisionError("by zero")])
def test_errors_of_runs_are_kept_and_run_again(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    """Whatever is raised; the next time the run has another chance."""

    def fails(scenario: Scenario, **options: Any) -> Any:
        if scenario.spec.routing.capacity is not None and scenario.spec.routing.top_k == 1:
            raise raised
        return simulate(scenario, **options)

    with monkeypatch.context() as patched:
        patched.setattr(execute, "simulate", fails)
        study = sweep(make(), folder=tmp_path)
    assert len(study.points) == 6
    assert [error["variant"] for error in study.errors] == ["tight", "tight"]
    assert study.errors[0]["error"]
    assert len(Study.load(tmp_path).errors) == 2
    again = sweep(make(), folder=tmp_path)
    assert (len(again.points), again.errors) == (8, [])


def test_a_sweep_loads_equal(make: Any, tmp_path: Path) -> None:
    """From its folder, and from one that `save` wrote; axes of words and of none as well."""
    scenario = make(sweep={"routing.capacity": ["none", {"factor": 1.25}], "seed": [3, 4]}, compare=None)
    study = sweep(scenario, folder=tmp_path / "s")
    assert list(study.points["routing.capacity"]) == ["none", "none", '{"factor": 1.25}', '{"factor": 1.25}']
    assert set(study.points["variant"]) == {"small"}
    assert study.axes == ("routing.capacity",)
    study.save(tmp_path / "t")
    for folder in ("s", "t"):
        again = Study.load(tmp_path / folder)
        assert (again.name, again.axes, list(again.errors)) == ("small", study.axes, [])
        pd.testing.assert_frame_equal(again.points, study.points)
        pd.testing.assert_frame_equal(again.paired, study.paired)
        pd.testing.assert_frame_equal(again.summary, study.summary)


def test_seeds_until_the_interval_is_narrow(make: Any) -> None:
    """At least five; more where a width asks for them, and no more than allowed; each point by itself."""
    wide = sweep(make(sweep={"workload.popularity.exponent": [0]}), until_ci=0.5)
    assert set(wide.paired["n"]) == {5}
    narrow = sweep(make(sweep={"workload.popularity.exponent": [0, 1.5]}), until_ci=0.005, seeds=12)
    counts = narrow.points.groupby(["workload.popularity.exponent", "variant"]).size()
    dropless, tight = counts.xs("dropless", level="variant"), counts.xs("tight", level="variant")
    assert dropless.tolist() == tight.tolist()
    assert 5 <= counts.min() < counts.max() <= 12
    step = narrow.paired[narrow.paired["metric"] == "step_time_s.mean"]
    half = (step["ci_high"] - step["ci_low"]) / 2
    assert ((half <= 0.00501 * step["baseline_mean"]) | (step["n"] == 12)).all()


def test_another_result_is_not_touched(make: Any, tmp_path: Path) -> None:
    """A comparison's folder, one of something else, a file."""
    compare(make()).save(tmp_path / "compared")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    for name in ("compared", "mine", "file"):
        with pytest.raises(OutputError):
            sweep(make(), folder=tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_a_sweep_is_refused(make: Any, tmp_path: Path) -> None:
    """Before anything runs or is written."""
    wrong: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"sweep": None}, {}, "sweep: found no axes"),
        ({"sweep": {"routing.top_k": [9, 10]}}, {}, "at most the 8 experts"),
        ({"sweep": {"routing.topk": [1]}}, {}, "wanted top_k"),
        ({"sweep": {"routing.capacity.factor": [1.0]}}, {}, r"variant tight\): routing\.capacity: found .*sets too"),
        ({"sweep": {"seed": [1, 2]}}, {"seeds": 3}, r"sweep\.seed: found seeds in the sweep"),
        ({"compare": {"a": {}, "b": {"seed": 7}}}, {"seeds": 3}, "variants with seeds of their own"),
        ({}, {"seeds": 0}, "seeds: found 0"),
        ({}, {"seeds": 4, "until_ci": 0.02}, "at least 5"),
        ({}, {"until_ci": 2}, "until_ci: found 2"),
        ({}, {"workers": 0}, "workers: found 0"),
    ]
    for changes, options, message in wrong:
        with pytest.raises(InputError, match=message):
            sweep(make(**changes), folder=tmp_path / "s", **options)
    assert not list(tmp_path.iterdir())


def test_a_variant_may_refine_what_the_sweep_sets(make: Any) -> None:
    """A field below the swept one, or beside it."""
    scenario = make(
        sweep={"routing.capacity.factor": [1.0, 1.5]},
        compare={"position": {}, "random": {"routing.capacity.overflow": "drop-at-random"}},
    )
    found = [
        (capacity.factor, capacity.overflow)
        for c in plan_sweep(scenario)
        if c.scenario is not None and (capacity := c.scenario.spec.routing.capacity) is not None
    ]
    assert found == [(f, o) for f in (1.0, 1.5) for o in ("drop-by-position", "drop-at-random")]


def test_seeds_of_what_is_not_random_are_refused(make: Any, tmp_path: Path) -> None:
    """Recorded tokens are the same under every seed, unless drops or faults are drawn."""
    record = {"problem_id": 0, "experts": [1, 0], "gating_probs": [0.75, 0.25]}
    lines = [json.dumps({**record, "token_idx": i, "layer": layer}) for i in range(8) for layer in (0, 1)]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    import_recordings([tmp_path / "r.jsonl"], tmp_path / "t.parquet")
    recorded = {"steps": 2, "tokens_per_gpu": 4, "trace": str(tmp_path / "t.parquet")}
    axes = {"routing.capacity.factor": [1.0, 1.5]}
    variants: dict[str, Any] = {"dropless": {}, "tight": {"routing.capacity": {"factor": 1.0}}}
    with pytest.raises(InputError, match="seeds: found several, wanted 1: the tokens are recorded"):
        compare(make(workload=recorded, sweep=None, compare=variants), seeds=3)
    same = make(workload=recorded, sweep=axes, compare=None)
    with pytest.raises(InputError, match="seeds: found several, wanted 1: the tokens are recorded"):
        sweep(same, seeds=3)
    assert len(sweep(same).points) == 2
    jitter = [{"kind": "compute-jitter", "cv": 0.1}]
    assert len(sweep(make(workload=recorded, sweep=axes, compare=None, faults=jitter), seeds=2).points) == 4
    variants["tight"]["routing.capacity"]["overflow"] = "drop-at-random"
    assert len(compare(make(workload=recorded, sweep=None, compare=variants), seeds=2).points) == 4


@pytest.mark.slow
def test_a_process_that_is_killed_costs_its_own_run_alone(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL, as the system sends it where memory ends: one error that says so, the rest is kept and goes on."""
    (tmp_path / "deadly.py").write_text(
        "import os, signal\nfrom pathlib import Path\nimport numpy as np\n"
        "from moesim import Assignment, register_strategy\n"
        "@register_strategy('deadly')\ndef kill(logits, top_k, parameters, state, draw):\n"
        "    if Path('armed').exists():\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    first = np.zeros((len(logits), top_k), dtype=np.int32)\n"
        "    return Assignment.of(first, np.ones(first.shape, dtype=np.float32))\n"
    )
    (tmp_path / "armed").touch()
    monkeypatch.chdir(tmp_path)
    get_reusable_executor().shutdown()  # processes of other tests stand in other folders
    monkeypatch.setattr("moesim.study.execute.compile_for", lambda runs: None)  # it would die here
    scenario = make(
        sweep={"routing.strategy": ["mixtral", "deadly:kill", "switch", "random"], "routing.top_k": [1]}, compare=None
    )
    study = sweep(scenario, folder=tmp_path / "s", workers=2)
    assert list(study.points["routing.strategy"]) == ["mixtral", "switch", "random"]
    (error,) = study.errors
    assert (error["routing.strategy"], "process was killed" in error["error"]) == ("deadly:kill", True)
    assert "too little memory" in error["error"]
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "s" / "points").glob("*.json")}
    assert len(kept) == 3
    (tmp_path / "armed").unlink()
    again = sweep(scenario, folder=tmp_path / "s")
    assert (len(again.points), again.errors) == (4, [])
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())


def test_more_workers_than_memory_has_room_for_are_refused(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that fits alone but not twice; one after the other they run, and then nothing is left to refuse."""
    one = max(cell.bytes for cell in plan_sweep(make()))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1.9 * one))
    with pytest.raises(InputError, match=r"workers: found 4, wanted at most 1: a run takes up to \S+ GB of the "):
        sweep(make(), folder=tmp_path, workers=4)
    assert not list((tmp_path / "points").glob("*.json"))
    assert len(sweep(make(), folder=tmp_path, workers=1).points) == 8
    assert len(sweep(make(), folder=tmp_path, workers=4).points) == 8


def test_finished_runs_are_kept_in_memory_without_a_folder() -> None:
    """And are not written anywhere."""
    store = Store(None)
    store.put("a", {"x": 1.5})
    assert (store.get("a"), store.get("b")) == ({"x": 1.5}, None)
