"""Routed experts of a sequence in an `.npz`: vLLM's `CompletionOutput.routed_experts`, and moe-balance's files.

`routed_experts` is [tokens, layers, k] of any integer type; `prompt_token_ids`, `output_token_ids` and `request_id` may
stand beside it. A file is a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from moesim.errors import TraceError
from moesim.recordings.checked import expert_ids
from moesim.recordings.layout import ChoiceBlock, ImportJob, Layout
from moesim.recordings.sample import Sample
from moesim.recordings.sequences import Routes, blocks_of_sequences, with_counts
from moesim.recordings.tensor_files import npz_arrays

NAME = "routed_experts"


def _recognises(sample: Sample) -> bool:
    return sample.kind == "npz" and f"{NAME}.npy" in sample.names


def _routes(path: Path) -> Routes:
    arrays = npz_arrays(path)
    if NAME not in arrays:
        raise TraceError(f"{path}: found {', '.join(arrays)[:100] or 'nothing'}, wanted an array {NAME}")
    expert = expert_ids(f"{path}: {NAME}", arrays[NAME], {3: "[tokens, layers, k]"})
    names = ("prompt_token_ids", "output_token_ids")
    n_prompt, n_output = (np.size(arrays[name]) if name in arrays else None for name in names)
    return with_counts(str(path), expert, n_prompt, n_output)


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    return blocks_of_sequences(job, ((str(path), _routes(path)) for path in job.files))


LAYOUT = Layout(
    name="routed-experts-arrays",
    summary="routed_experts [tokens, layers, k] of a sequence (.npz of vLLM or moe-balance)",
    recognises=_recognises,
    read=_read,
)
