"""What a sweep costs beside its runs: python -m tests.benchmarks.sweep [--points 40] [--seconds 1].

Bookkeeping: a sweep of 1,000 runs that take no time, and the same again from
its folder, per run (goal 10 ms). Efficiency: the time of one single-threaded
process over twice that of two (goal 0.85), from start to exit, on the same
points; measure it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from moesim import Scenario, simulate, sweep
from moesim.study import execute

SCENARIO = {
    "name": "benchmark",
    "model": "mixtral-8x7b",
    "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 8},
    "workload": {"steps": 20, "tokens_per_gpu": 64, "popularity": {"exponent": 0.3}},
}


def bookkeeping(folder: Path) -> None:
    """Everything but simulating, per run."""
    exponents, tokens = [i / 100 for i in range(50)], list(range(1, 11))
    scenario = Scenario.from_dict(
        {
            **SCENARIO,
            "compare": {"dropless": {}, "tight": {"routing.capacity": {"factor": 1.0}}},
            "sweep": {"workload.popularity.exponent": exponents, "workload.tokens_per_gpu": tokens},
        }
    )
    result = simulate(scenario.with_overrides({"workload.steps": 1}))
    with mock.patch.object(execute, "simulate", return_value=result):
        for what in ("first time", "from its folder"):
            start, busy = time.perf_counter(), time.process_time()
            n = len(sweep(scenario, folder=folder).points)
            wall, busy = (
                (now - then) / n * 1e3 for now, then in ((time.perf_counter(), start), (time.process_time(), busy))
            )
            print(f"bookkeeping, {what:16} {wall:6.2f} ms a run, {busy:.2f} of them computing; {n} runs (goal 10)")


def efficiency(folder: Path, points: int, seconds: float) -> None:
    """Two processes against one."""
    base = Scenario.from_dict(SCENARIO)
    simulate(base, threads=1)
    start = time.perf_counter()
    simulate(base, threads=1)
    steps = max(1, round(20 * seconds / (time.perf_counter() - start)))
    exponents = [i / 100 for i in range(points)]
    changed = base.with_overrides({"workload.steps": steps, "keep.timeline_steps": 0})
    text = changed.resolved_yaml() + f"sweep: {{workload.popularity.exponent: {exponents}}}\n"
    (folder / "sweep.yaml").write_text(text, encoding="utf-8")
    wall, cpu = {}, {}
    for workers in (1, 2):
        command: list[Any] = [sys.executable, "-m", "moesim", "sweep", "sweep.yaml", "-q", "-o", f"out{workers}"]
        start, busy = time.perf_counter(), _children_s()
        environment = {**os.environ, "MOESIM_THREADS": "1"}
        subprocess.run([*command, "--workers", str(workers)], cwd=folder, env=environment, check=True)
        wall[workers], cpu[workers] = time.perf_counter() - start, _children_s() - busy
    same = len({(folder / f"out{workers}" / "summary.parquet").read_bytes() for workers in wall}) == 1
    print(
        f"{points} points: {wall[1]:.1f} s with one process ({wall[1] / points:.2f} s a point), {wall[2]:.1f} with two"
    )
    print(f"efficiency {wall[1] / 2 / wall[2]:.2f} (goal 0.85), {'the same bytes' if same else 'DIFFERENT RESULTS'}")
    print(f"processor time {cpu[1]:.1f} s with one process, {cpu[2]:.1f} with two")
    print(f"load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


def _children_s() -> float:
    """Processor seconds of the processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Both, in a temporary folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bookkeeping(Path(name) / "bookkeeping")
        efficiency(Path(name), arguments.points, arguments.seconds)


if __name__ == "__main__":
    main()
