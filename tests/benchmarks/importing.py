"""What importing JSON lines costs: python -m tests.benchmarks.importing [--lines 1000000] [--gigabytes 2].

Speed: `import_recordings`, from the file to the trace in parquet, beside
pandas' `read_json(lines=True)`, which only reads (goal: 5 times as fast), in
wall time and in processor time; the better of two each. Memory: the largest
resident size of a process that imports a file of so many gigabytes (goal: 1 GB
for 2 GB).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

LAYERS, TOKENS, EXPERTS = 32, 1_000, 8
_IMPORT = """
import sys
from pathlib import Path
from moesim.recordings import import_recordings
print(import_recordings(sys.argv[1:2], sys.argv[2]).n_tokens)
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def write_recording(path: Path, n_lines: int) -> int:
    """Write about so many lines: problems of 1,000 tokens in 32 layers, all alike but for their number; the lines."""
    rng = np.random.default_rng(0)
    n_rows = TOKENS * LAYERS
    experts = np.argsort(rng.random((n_rows, EXPERTS)), axis=1)[:, :2].tolist()
    first = rng.random(n_rows).tolist()
    problem = "".join(
        f'{{"problem_id": 0000000, "token_idx": {i // LAYERS}, "layer": {i % LAYERS}, "experts": {experts[i]}, '
        f'"gating_probs": [{first[i]!r}, {1 - first[i]!r}]}}\n'
        for i in range(n_rows)
    ).encode()
    n_problems = max(1, round(n_lines / n_rows))
    with path.open("wb") as file:
        for number in range(n_problems):
            file.write(problem.replace(b'"problem_id": 0000000', b'"problem_id": %d' % (1_000_000 + number)))
    return n_problems * n_rows


def peak_megabytes(recording: Path, trace: Path) -> tuple[int, float]:
    """Tokens, and the largest resident size of a process that imports a recording, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, str(recording), str(trace)], check=True, capture_output=True, text=True
    )
    tokens, kilobytes = done.stdout.split()
    return int(tokens), int(kilobytes) / 1e3


def best(of: Callable[[], object], repeats: int = 2) -> tuple[float, float]:
    """The best wall and processor times of some calls, in seconds."""
    wall, busy = [], []
    for _ in range(repeats):
        start, started = time.perf_counter(), time.process_time()
        of()
        wall.append(time.perf_counter() - start)
        busy.append(time.process_time() - started)
    return min(wall), min(busy)


def speeds(folder: Path, n_lines: int) -> tuple[float, float]:
    """How many times as fast as pandas reads the lines they are imported, by wall and by processor time."""
    import pandas as pd

    from moesim.recordings import import_recordings

    recording = folder / "recording.jsonl"
    write_recording(recording, n_lines)
    ours = best(lambda: import_recordings([recording], folder / "trace.parquet"))
    theirs = best(lambda: pd.read_json(recording, lines=True))
    return theirs[0] / ours[0], theirs[1] / ours[1]


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moesim-") as name:
        folder = Path(name)
        wall, busy = speeds(folder, arguments.lines)
        print(f"{arguments.lines:,} lines: {wall:.1f} times as fast as pandas reads them, {busy:.1f} by processor time")
        recording = folder / "large.jsonl"
        write_recording(recording, round(arguments.gigabytes * 1e9 / 120))
        start = time.perf_counter()
        tokens, megabytes = peak_megabytes(recording, folder / "large.parquet")
        size, seconds = recording.stat().st_size / 1e9, time.perf_counter() - start
        print(f"{size:.2f} GB, {tokens:,} tokens: {seconds:.0f} s, at most {megabytes:,.0f} MB resident")


if __name__ == "__main__":
    main()
