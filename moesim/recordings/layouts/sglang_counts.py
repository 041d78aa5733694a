"""SGLang's expert distribution recorder, modes stat and stat_approx: counts of logical experts, summed over all ranks.

Facts: python/sglang/srt/eplb/expert_distribution.py of sgl-project/sglang (02295fe). `logical_count` is [steps, layers,
experts], or [layers, experts] of a whole run; layers are all of the model's, so that dense ones are rows of zeros, and
steps that the circular buffer never held are zeros. A CSV of an earlier version
is a plain table of counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import whole_numbers
from moesim.recordings.layout import ImportJob, Layout
from moesim.recordings.layouts.arrays import counts_trace
from moesim.recordings.records import json_document
from moesim.recordings.sample import Sample
from moesim.recordings.tensor_files import TORCH, load_torch, torch_names
from moesim.types import CountsTrace

SHAPES = {2: "[layers, experts]", 3: "[steps, layers, experts]"}


def _recognises(sample: Sample) -> bool:
    return "logical_count" in sample.keys or b"logical_count" in torch_names(sample.path)


def _read(job: ImportJob) -> CountsTrace:
    """The counts of all files, a file's steps after those of the file before.

    Raises:
        TraceError: a value that is no count, or files whose layers or experts differ.
    """
    parts: list[NDArray[np.int64]] = []
    for path in job.files:
        where = f"{path}: logical_count"
        value = load_torch(path) if Sample(path).kind in TORCH else json_document(path, job.progress)
        count = whole_numbers(where, value.get("logical_count") if isinstance(value, dict) else None, SHAPES)
        count = count[None] if count.ndim == 2 else count
        if parts and count.shape[1:] != parts[0].shape[1:]:
            found, wanted = list(count.shape[1:]), list(parts[0].shape[1:])
            raise TraceError(f"{where}: found [layers, experts] = {found}, wanted {wanted} as in the file before")
        parts.append(count)
    return counts_trace(np.concatenate(parts), job)


LAYOUT = Layout(
    name="sglang-counts",
    summary="SGLang's expert distribution recorder, stat and stat_approx (.pt or JSON)",
    recognises=_recognises,
    read=_read,
)
