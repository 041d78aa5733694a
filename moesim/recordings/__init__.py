"""What real routers did: recordings of engines in, one documented parquet trace out, and back.

In: files that engines and tools write (`import_recordings`), or a trace in
parquet (`read_trace`). Out: a `Trace` of choices, a `CountsTrace` or a
`LogitsTrace` (`moesim/types/recording.py`), and its file (`write_trace`).
"""

from moesim.recordings.importer import ImportReport, import_recordings
from moesim.recordings.parquet import is_trace, read_trace, write_trace

__all__ = ["ImportReport", "import_recordings", "is_trace", "read_trace", "write_trace"]
