"""An import is faster than reading the lines with pandas, and its memory does not grow as fast as the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.importing import peak_megabytes, speeds, write_recording


@pytest.mark.slow
def test_lines_are_imported_several_times_as_fast_as_pandas_reads_them(tmp_path: Path) -> None:
    """Five times on an idle machine (`python -m tests.benchmarks.importing`); with the noise of a loaded one, three."""
    assert max(speeds(tmp_path, 200_000)) > 3


@pytest.mark.slow
def test_a_large_recording_is_streamed(tmp_path: Path) -> None:
    """Beyond what a small one needs, a file of 200 MB takes less than its own size: of 2 GB that is below 1 GB."""
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    write_recording(small, 32_000)
    n_lines = write_recording(large, 1_600_000)
    size = large.stat().st_size / 1e6
    assert size > 180
    _, least = peak_megabytes(small, tmp_path / "small.parquet")
    tokens, peak = peak_megabytes(large, tmp_path / "large.parquet")
    assert tokens == n_lines // 32
    assert peak - least < 0.75 * size


@pytest.mark.slow
@pytest.mark.long
def test_two_gigabytes_are_imported_in_one(tmp_path: Path) -> None:
    """A recording of 2 GB takes at most 1 GB of memory."""
    recording = tmp_path / "recording.jsonl"
    n_lines = write_recording(recording, 17_000_000)
    assert recording.stat().st_size >= 2e9
    tokens, peak = peak_megabytes(recording, tmp_path / "trace.parquet")
    assert tokens == n_lines // 32
    assert peak < 1_000
