"""`moesim sweep`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from moesim.cli.options import parse_percent
from moesim.errors import InputError
from tests.cli.conftest import Call


@pytest.fixture
def swept(small: Path, folder: Path) -> Path:
    """The small scenario with two skews and an impossible top-k."""
    with small.open("a", encoding="utf-8") as file:
        file.write("sweep: {workload.popularity.exponent: [0, 0.5], routing.top_k: [2, 9]}\n")
    return small


@pytest.fixture
def fine(small: Path) -> Path:
    """The small scenario with two skews."""
    with small.open("a", encoding="utf-8") as file:
        file.write("sweep: {workload.popularity.exponent: [0, 0.5]}\n")
    return small


def test_a_sweep_is_a_table_and_a_file(moesim: Call, fine: Path, folder: Path) -> None:
    """Means with intervals are printed; the last lines name the points and the report."""
    outcome = moesim("sweep", fine, "--seeds", "2", "--workers", "1")
    assert (outcome.code, outcome.err) == (0, "")
    assert "exponent" in outcome.out
    assert "95 % CI" in outcome.out
    assert outcome.out.splitlines()[-2:] == [
        "8 runs: results/small-test-sweep/summary.parquet",
        "report: results/small-test-sweep/report.html",
    ]
    assert "<h1>Small test" in (folder / "results" / "small-test-sweep" / "report.html").read_text(encoding="utf-8")
    assert len(pd.read_parquet(folder / "results" / "small-test-sweep" / "summary.parquet")) == 8


def test_json_is_a_record_a_run(moesim: Call, fine: Path) -> None:
    """Axes come first, then variant and seed."""
    rows = json.loads(moesim("sweep", fine, "--json", "--workers", "1").out)
    assert [row["variant"] for row in rows] == ["as trained", "tight"] * 2
    assert list(rows[0])[:3] == ["workload.popularity.exponent", "variant", "seed"]


def test_what_failed_is_shown_at_the_end(moesim: Call, swept: Path) -> None:
    """The points that ran are saved; those that failed are named with the reason."""
    outcome = moesim("sweep", swept, "--workers", "1", "-o", "out")
    assert outcome.code == 1
    assert "4 runs: out/summary.parquet" in outcome.out
    assert "4 of 8 runs failed:" in outcome.err
    assert "routing.top_k=9, variant=tight: " in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("options", [("--until-ci", "2"), ("--seeds", "0"), ("--workers", "0"), ("-o", "small.yaml")])
def test_wrong_options_are_exit_2(moesim: Call, fine: Path, folder: Path, options: tuple[str, ...]) -> None:
    """Nothing runs, and nothing is written."""
    outcome = moesim("sweep", fine, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["small.yaml"]


def test_a_scheduler_that_does_not_answer_is_exit_2(moesim: Call, fine: Path) -> None:
    """Its address is in the message."""
    outcome = moesim("sweep", fine, "--dask", "tcp:/nonsense")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: dask tcp:/nonsense: ")
    assert outcome.err.count("\n") == 1


def test_percentages() -> None:
    """A percent sign is asked for, and a share between 0 and 100."""
    assert (parse_percent(None), parse_percent("2%"), parse_percent(" 0.5 %")) == (None, 0.02, 0.005)
    for text in ("2", "%", "0%", "100%", "-1%", "2%%", "nan%", "two%"):
        with pytest.raises(InputError, match="--until-ci"):
            parse_percent(text)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_keeps_what_was_finished(
    fine: Path, folder: Path, source_environment: dict[str, str], workers: int
) -> None:
    """SIGINT goes to all processes of the terminal's group; then the same command ends the sweep."""
    command = [sys.executable, "-m", "moesim", "sweep", str(fine), "-o", "out", "--workers", str(workers)]
    command += ["--set", "workload.steps=20", "--seeds", "10"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=source_environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    try:
        deadline = time.monotonic() + 240
        while not list((folder / "out" / "points").glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    kept = len(pd.read_parquet(folder / "out" / "summary.parquet"))
    assert 1 <= kept < 40
    kept_there = f"interrupted; {kept} runs are in out, the same command goes on from there"
    assert err.splitlines() == [kept_there, "error: interrupted"]
    done = subprocess.run(command, capture_output=True, text=True, env=source_environment, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "40 runs: out/summary.parquet" in done.stdout


def test_a_width_that_the_cap_missed_is_told(moesim: Call, small: Path) -> None:
    """In one line on stderr: where, what was reached, what it takes; of a comparison as well."""
    outcome = moesim("compare", small, "--until-ci", "0.01%", "--seeds", "5")
    assert re.fullmatch(
        r"--until-ci: tight is known to \+-[\d.]+ % after the 5 seeds that are allowed, \+-0.01 % take \d+ seeds\n",
        outcome.err,
    )
    with small.open("a", encoding="utf-8") as file:
        file.write("sweep: {workload.popularity.exponent: [0, 1]}\n")
    outcome = moesim("sweep", small, "--until-ci", "0.01%", "--seeds", "5", "--workers", "1")
    assert re.fullmatch(
        r"--until-ci: tight at exponent=[01] is known to .* take \d+ seeds; 1 more miss it too\n", outcome.err
    )
