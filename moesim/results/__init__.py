"""What a run leaves behind: tidy frames, a summary, files that are complete or absent.

In: the routed tokens, program and timeline of each step. Out: `Result` (one
run) and `Study` (several on the same tokens), which save to and load from
folders. `collect` fills the frames, `summary` makes the keys that scripts
rely on, `files` writes atomically.
"""

from moesim.results.collect import Collector, frames_bytes
from moesim.results.files import prepare_file, prepare_output, versions
from moesim.results.result import TRACE, Result
from moesim.results.study import Study

__all__ = [
    "TRACE",
    "Collector",
    "Result",
    "Study",
    "frames_bytes",
    "prepare_file",
    "prepare_output",
    "versions",
]
