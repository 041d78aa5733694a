"""A sweep that is killed at any moment, again and again, ends as one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest

from moesim import Scenario

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
SWEEP = """
compare: {dropless: {}, tight: {routing.capacity: {factor: 1.0}}}
sweep: {workload.popularity.exponent: [0, 0.5, 1, 1.5], routing.top_k: [1, 2]}
"""


@pytest.mark.slow
def test_a_sweep_that_was_killed_20_times_is_whole(make: Callable[..., Scenario], tmp_path: Path) -> None:
    """SIGKILL at a random moment of each life; points that were finished are the same files as before.

    Every third life has two workers, the others one.
    """
    rng = random.Random(1)
    (tmp_path / "small.yaml").write_text(make(workload={"steps": 3, "tokens_per_gpu": 32}).resolved_yaml() + SWEEP)

    def command(folder: str, workers: int = 1) -> list[str]:
        options = ["--seeds", "5", "--workers", str(workers), "--quiet", "-o", folder]
        return [sys.executable, "-m", "moesim", "sweep", "small.yaml", *options]

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MOESIM_THREADS": "1"}
    subprocess.run(command("whole"), cwd=tmp_path, env=environment, check=True, timeout=900)
    points, killed = tmp_path / "cut" / "points", 0
    kept: dict[str, int] = {}
    for life in range(KILLS):
        workers = 2 if life % 3 == 2 else 1
        process = subprocess.Popen(command("cut", workers), cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
        wanted = len(kept) + rng.randint(0, 3)  # 0: while it starts
        while len(list(points.glob("*.json"))) < wanted and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive, "processes outlive the sweep that started them"
        found = {file.name: file.stat().st_mtime_ns for file in points.glob("*.json")} if points.exists() else {}
        assert kept.items() <= found.items(), "a finished point was lost, or computed again"
        kept = found
    print(f"{killed} of {KILLS} lives ended by SIGKILL, {len(kept)} of 80 points after them")
    assert killed == KILLS
    assert 0 < len(kept) < 80
    done = subprocess.run(command("cut"), cwd=tmp_path, env=environment, check=True, timeout=900)
    assert done.returncode == 0
    for name in ("summary.parquet", "paired.parquet", "errors.json", "manifest.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(pd.read_parquet(tmp_path / "cut" / "summary.parquet")) == 80
    assert not list((tmp_path / "cut").rglob("*.partial"))
    after = {file.name: file.stat().st_mtime_ns for file in points.glob("*.json")}
    assert kept.items() <= after.items()
