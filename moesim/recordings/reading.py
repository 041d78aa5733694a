"""Reading of what users have: a trace of `moesim import`, or a recording that is imported on the way."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from moesim.recordings.importer import import_recordings
from moesim.recordings.parquet import is_trace, read_trace
from moesim.types import Recording


def read_recording(*paths: str | Path) -> Recording:
    """The recording in a trace, or in files that `moesim import` reads; nothing stays on the disk.

    Raises:
        TraceError: what is wrong, with file and place.
    """
    if len(paths) == 1 and is_trace(paths[0]):
        return read_trace(paths[0])
    return _imported(paths)


def _imported(paths: Sequence[str | Path]) -> Recording:
    with tempfile.TemporaryDirectory(prefix="moesim-") as folder:
        out = Path(folder) / "trace.parquet"
        import_recordings(paths, out)
        return replace(read_trace(out), path=", ".join(map(str, paths)))
