"""`moesim run`."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Call

FILES = {"summary.json", "manifest.json", "scenario.yaml", "report.html", "steps.parquet", "experts.parquet"}


def test_it_writes_a_result_folder_and_prints_the_table(moesim: Call, small: Path, folder: Path) -> None:
    """All files are there, and the last line names the report."""
    outcome = moesim("run", small)
    assert outcome.code == 0
    home = folder / "results" / "small-test"
    assert {path.name for path in home.iterdir()} >= FILES
    assert "step time" in outcome.out
    assert "drop rate" in outcome.out
    assert outcome.out.splitlines()[-1] == "report: results/small-test/report.html"


def test_json_is_summary_json_alone(moesim: Call, small: Path, folder: Path) -> None:
    """Standard output has the bytes of summary.json and nothing else."""
    outcome = moesim("run", small, "--json", "-o", "out")
    assert outcome.code == 0
    assert outcome.out == (folder / "out" / "summary.json").read_text(encoding="utf-8")
    assert json.loads(outcome.out)["n_steps"] == 2


def test_quiet_prints_nothing(subprocess_moesim: Call, small: Path, folder: Path) -> None:
    """The result is written all the same."""
    outcome = subprocess_moesim("run", small, "--quiet", "-o", "out")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert (folder / "out" / "report.html").exists()


def test_set_replaces_fields(moesim: Call, small: Path) -> None:
    """A field and a whole block, the last of which may be a mapping."""
    outcome = moesim("run", small, "--json", "--set", "workload.steps=3", "--set", "routing.capacity={factor: 1.0}")
    summary = json.loads(outcome.out)
    assert summary["n_steps"] == 3
    assert summary["drop_rate"] > 0


@pytest.mark.parametrize("setting", ["workload.steps", "=3", ".steps=3", "workload..steps=3", "seed=[1", "seed=a: b"])
def test_a_malformed_set_is_one_line(moesim: Call, small: Path, folder: Path, setting: str) -> None:
    """Settings without a value, without a field or of broken YAML."""
    outcome = moesim("run", small, "--set", setting)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: --set ")
    assert outcome.err.count("\n") == 1
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    "setting, words",
    [
        ("workload.stepz=3", ["workload.stepz", "steps"]),
        ("workload.steps=many", ["workload.steps", "many"]),
        ("model=mixtral-8x8b", ["model", "mixtral-8x8b"]),
        ("routing.strategy=swich", ["routing.strategy", "swich", "switch"]),
        ("routing.top_k=9", ["top_k", "9"]),
        ("cluster.gpus_per_node=1", ["cluster", "mixtral-8x7b", "GB"]),
        ("workload.steps=20000000", ["workload.steps", "20000000"]),
        ("workload.tokens_per_gpu=4000000000", ["workload.tokens_per_gpu", "4000000000"]),
        ("workload.popularity.exponent=.nan", ["workload.popularity.exponent", "nan"]),
        (
            "workload.popularity={counts: absent.json}",
            ["workload.popularity.counts", "absent.json", "counts per layer"],
        ),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(
    moesim: Call, small: Path, folder: Path, setting: str, words: list[str]
) -> None:
    """The message has the field, what was found and what would be right."""
    outcome = moesim("run", small, "--set", setting)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert [word for word in words if word not in outcome.err] == []
    assert not (folder / "results").exists()


def test_a_wrong_file_is_named_with_line_and_column(moesim: Call, small: Path) -> None:
    """The unknown field stands in line 10."""
    small.write_text(small.read_text(encoding="utf-8") + "modle: x\n", encoding="utf-8")
    outcome = moesim("run", small)
    assert outcome.code == 2
    assert "small.yaml:10:1: modle" in outcome.err


def test_a_missing_file(moesim: Call) -> None:
    """The error names it."""
    outcome = moesim("run", "nowhere.yaml")
    assert (outcome.code, outcome.out) == (2, "")
    assert "nowhere.yaml" in outcome.err


def test_an_unknown_shipped_scenario(moesim: Call) -> None:
    """The nearest shipped one is suggested."""
    outcome = moesim("run", "quickstrat")
    assert outcome.code == 2
    assert "quickstart" in outcome.err


def test_a_folder_that_is_no_result_is_not_replaced(moesim: Call, small: Path, folder: Path) -> None:
    """What others wrote stays as it is."""
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
    outcome = moesim("run", small, "-o", "mine")
    assert outcome.code == 2
    assert "mine: exists" in outcome.err
    assert (folder / "mine" / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_a_result_is_replaced_by_the_next(moesim: Call, small: Path, folder: Path) -> None:
    """A result that moesim wrote may be overwritten."""
    moesim("run", small, "-o", "out")
    outcome = moesim("run", small, "-o", "out", "--set", "workload.steps=1")
    assert outcome.code == 0
    assert json.loads((folder / "out" / "summary.json").read_text(encoding="utf-8"))["n_steps"] == 1


def test_an_output_below_a_file_is_refused(moesim: Call, small: Path) -> None:
    """A file cannot hold a folder."""
    outcome = moesim("run", small, "-o", small / "out")
    assert outcome.code == 2
    assert "cannot be written" in outcome.err


@pytest.mark.parametrize("command", [("run",), ("compare",), ("sweep", "--set", "sweep={seed: [1]}")])
def test_an_output_whose_name_is_too_long_is_refused(moesim: Call, small: Path, folder: Path, command: str) -> None:
    """Before anything runs, and with the reason of the file system."""
    outcome = moesim(*command, small, "-o", "a" * 300)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: {'a' * 300}: cannot be written: File name too long\n"
    assert [path.name for path in folder.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize("threads", ["abc", "0", "-1", "1.5", "²"])
def test_a_number_of_threads_that_is_none_is_refused(
    moesim: Call, small: Path, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    """Words, zero, negative numbers, fractions and other digits."""
    monkeypatch.setenv("MOESIM_THREADS", threads)
    outcome = moesim("run", small)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: MOESIM_THREADS: found {threads!r}, wanted a whole number from 1\n"


def test_off_a_terminal_nothing_is_cut(subprocess_moesim: Call, small: Path) -> None:
    """COLUMNS does not matter there, and no escapes are written."""
    narrow = subprocess_moesim("run", small, COLUMNS="20")
    assert narrow.code == 0
    assert "…" not in narrow.out
    assert "\x1b" not in narrow.out + narrow.err
    assert "mean step time / the same load spread evenly" in narrow.out


def test_the_resolved_scenario_gives_the_same_result(moesim: Call, small: Path, folder: Path) -> None:
    """scenario.yaml of a result reproduces its frames to the byte."""
    first = moesim("run", small, "--json", "-o", "first")
    second = moesim("run", folder / "first" / "scenario.yaml", "--json", "-o", "second")
    assert first.out == second.out
    for name in ("steps", "experts", "gpus", "timeline"):
        parquet = f"{name}.parquet"
        assert (folder / "first" / parquet).read_bytes() == (folder / "second" / parquet).read_bytes()


@pytest.mark.slow
def test_the_first_run_says_that_it_compiles(subprocess_moesim: Call, small: Path, folder: Path) -> None:
    """The second finds the machine code in the cache and says nothing."""
    run = ("run", small, "-o", "out", "--set", "workload.steps=1")  # of which no progress is told
    first = subprocess_moesim(*run, XDG_CACHE_HOME=str(folder))
    assert first.code == 0
    assert first.err == "compiling kernels, once for this version (up to a minute) ...\n"
    assert subprocess_moesim(*run, XDG_CACHE_HOME=str(folder)).err == ""


def test_ctrl_c_leaves_no_partial_output(small: Path, folder: Path, source_environment: dict[str, str]) -> None:
    """An interrupt ends the run with one line, exit code 130 and no folder."""
    command = [sys.executable, "-m", "moesim", "run", str(small), "--set", "workload.steps=20000", "-o", "out"]
    pipe = subprocess.PIPE
    # what runs in the background of a shell ignores interrupts, and so would its children
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=source_environment, preexec_fn=listen
    ) as process:
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode in (130, -signal.SIGINT), out) == (True, "")  # a shell shows 130 for both
    assert err.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
    assert [path.name for path in folder.iterdir()] == ["small.yaml"]


def test_a_trace_goes_into_the_result_or_where_it_is_wanted(moesim: Call, small: Path, folder: Path) -> None:
    """The same bytes, beside the report or in another folder."""
    outcome = moesim("run", small, "--trace")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == "timeline: results/small-test/timeline.json"
    written = (folder / "results" / "small-test" / "timeline.json").read_bytes()
    assert json.loads(written)["traceEvents"]
    outcome = moesim("run", small, "--trace", "there/t.json", "-o", "out")
    assert outcome.out.splitlines()[-1] == "timeline: there/t.json"
    assert (folder / "there" / "t.json").read_bytes() == written
    assert not (folder / "out" / "timeline.json").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--trace", "--set", "keep.timeline_steps=0"], ["keep.timeline_steps", "found 0", "at least 1"]),
        (["other.yaml"], ["other.yaml", "second argument", "--trace"]),
        (["--trace", "small.yaml"], ["small.yaml: exists and was not written by moesim"]),
        (["--trace", "small.yaml/t.json"], ["small.yaml/t.json: cannot be written"]),
    ],
)
def test_a_trace_that_cannot_be_written_is_refused_before_the_run(
    moesim: Call, small: Path, folder: Path, arguments: list[str], words: list[str]
) -> None:
    """Nothing is simulated, and no other file is replaced."""
    before = small.read_bytes()
    outcome = moesim("run", small, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert [word for word in words if word not in outcome.err] == []
    assert [path.name for path in folder.iterdir()] == ["small.yaml"]
    assert small.read_bytes() == before
