"""Counts that users save themselves: DeepSpeed's `exp_counts`, and tensors of torch.save.

DeepSpeed (deepspeed/moe/sharded_moe.py) counts the first choice of each token alone, before any capacity; the engine
saves nothing itself, so `exp_counts` as [steps, layers, experts] is what its users write.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

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

NAME = "exp_counts"
SHAPES = {2: "[layers, experts]", 3: "[steps, layers, experts]"}
OTHER_NAMES = (b"logical_count", b"last_physical_to_logical_map", b"physical_to_logical_map")


def _has_deepspeed(sample: Sample) -> bool:
    return NAME in sample.keys or NAME.encode() in torch_names(sample.path)


def _read_deepspeed(job: ImportJob) -> CountsTrace:
    return replace(counts_of_files(job, NAME), first_choice=True)


def _has_tensor(sample: Sample) -> bool:
    return sample.kind in TORCH and not any(name in torch_names(sample.path) for name in (*OTHER_NAMES, NAME.encode()))


def _read_tensor(job: ImportJob) -> CountsTrace:
    return counts_of_files(job, None)


def counts_of_files(job: ImportJob, name: str | None) -> CountsTrace:
    """The counts of all files under a name, or of tensors alone, a file's steps after those of the file before.

    Raises:
        TraceError: a value that is no count, or files whose layers or experts differ.
    """
    parts: list[NDArray[np.int64]] = []
    for path in job.files:
        value = _value(path, job)
        where = str(path)
        if name is not None:
            where, value = f"{path}: {name}", value.get(name) if isinstance(value, dict) else None
        elif not isinstance(value, np.ndarray):
            raise TraceError(
                f"{path}: found a file of torch.save with {_kinds(value)}, wanted a tensor of counts "
                "[steps, layers, experts] or a recording of SGLang"
            )
        elif value.size and value.dtype.kind == "i" and value.min() < 0:
            raise TraceError(
                f"{path}: found a tensor with negative numbers, which may be a placement (vLLM's expert_map); "
                "wanted counts from 0"
            )
        count = whole_numbers(where, value, SHAPES)
        count = count[None] if count.ndim == 2 else count
        if parts and count.shape[1:] != parts[0].shape[1:]:
            found, wanted = list(count.shape[1:]), list(parts[0].shape[1:])
            raise TraceError(f"{where}: found [layers, experts] = {found}, wanted {wanted} as in the file before")
        parts.append(count)
    return counts_trace(np.concatenate(parts), job)


def _value(path: Path, job: ImportJob) -> Any:
    return load_torch(path) if Sample(path).kind in TORCH else json_document(path, job.progress)


def _kinds(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dictionary of {', '.join(map(str, value))[:60] or 'nothing'}"
    return f"a {type(value).__name__}"


LAYOUTS = (
    Layout(
        name="deepspeed-counts",
        summary="DeepSpeed's exp_counts [steps, layers, experts] (JSON or .pt), first choices alone",
        recognises=_has_deepspeed,
        read=_read_deepspeed,
    ),
    Layout(
        name="counts-tensor",
        summary="a tensor of counts [steps, layers, experts] of torch.save (.pt)",
        recognises=_has_tensor,
        read=_read_tensor,
    ),
)
