"""Reading of what users have: a trace of `moesim import`, or recordings that are imported on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moesim.recordings.importer import read_recordings
from moesim.recordings.parquet import is_trace, read_trace
from moesim.types import Recording


def read_recording(*paths: str | Path) -> Recording:
    """The recording in a trace, or in files that `moesim import` reads; nothing stays on the disk.

    Raises:
        TraceError: what is wrong, with file and place.
    """
    if len(paths) == 1 and is_trace(paths[0]):
        return read_trace(paths[0])
    found = read_recordings(paths)
    recording = found[0] if isinstance(found, tuple) else found
    return replace(recording, path=", ".join(str(path) for path in paths))
