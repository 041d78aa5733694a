"""What real routers did: recordings of engines in, one documented parquet trace out, and back.

In: files that engines and tools write (`import_recordings`), or a trace in
parquet (`read_trace`). Out: a `Trace` of choices, a `CountsTrace` or a
`LogitsTrace` (`moesim/types/recording.py`), and its file (`write_trace`).
"""

from moesim.recordings.importer import ImportReport, import_recordings, read_recordings, report_of
from moesim.recordings.known_model import known_model
from moesim.recordings.layer_numbers import rows_of_layers
from moesim.recordings.layout import ImportOptions, KnownModel
from moesim.recordings.parquet import is_trace, read_trace, write_trace

__all__ = [
    "ImportOptions",
    "ImportReport",
    "KnownModel",
    "import_recordings",
    "is_trace",
    "known_model",
    "read_recordings",
    "read_trace",
    "report_of",
    "rows_of_layers",
    "write_trace",
]
