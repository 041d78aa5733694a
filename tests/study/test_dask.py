"""A sweep on a real Dask scheduler with two workers, one of which is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from moesim import Scenario

pytest.importorskip("distributed")
ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import os, signal, sys
from dask.distributed import LocalCluster
from moesim import Scenario, sweep

def main():
    scenario = Scenario.from_yaml("small.yaml")
    sweep(scenario, folder="here", seeds=4)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        before = {worker.pid for worker in cluster.workers.values()}
        assert len(before) == 2

        def watch(name, done, total):
            if done == 3:
                os.kill(min(before), signal.SIGKILL)

        study = sweep(scenario, folder="there", seeds=4, dask=cluster.scheduler_address, progress=watch)
        after = {worker.pid for worker in cluster.workers.values()}
        assert min(before) not in after, "it was not killed"
        print(len(study.points), len(study.errors))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_nothing_is_lost_with_a_worker(make: Callable[..., Scenario], tmp_path: Path) -> None:
    """Its runs go to the other, or to the one that takes its place; the bytes are those of one process."""
    (tmp_path / "small.yaml").write_text(make(workload={"steps": 20, "tokens_per_gpu": 64}).resolved_yaml() + SWEEP)
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["32", "0"]
    for name in ("summary.parquet", "paired.parquet", "errors.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert len(pd.read_parquet(tmp_path / "there" / "summary.parquet")) == 32


SWEEP = """
compare: {dropless: {}, tight: {routing.capacity: {factor: 1.0}}}
sweep: {workload.popularity.exponent: [0, 0.5], routing.top_k: [1, 2]}
"""
