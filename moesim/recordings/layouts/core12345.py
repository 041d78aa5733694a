"""core12345/MoE_expert_selection_trace of Hugging Face: one JSON file a query, its steps as dictionaries of layers.

A file is a list, whose element 0 is the prefill and whose others are decode steps; each is a dictionary of
"layer" -> [tokens][k] expert ids, or null for a dense layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_LAYERS, expert_ids
from moesim.recordings.layout import ChoiceBlock, ImportJob, Layout, blocks_of_tokens
from moesim.recordings.records import json_document
from moesim.recordings.sample import Sample
from moesim.types import DECODE, PREFILL

SHAPE = {2: "[tokens][k]"}


def is_query(value: Any) -> bool:
    """Whether parsed JSON looks like a query: a list of dictionaries from numbers of layers to lists or null."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict) or not value[0]:
        return False
    return all(str(key).isdecimal() and (each is None or isinstance(each, list)) for key, each in value[0].items())


def query(where: str, steps: Any) -> tuple[NDArray[np.int32], tuple[int, ...], NDArray[np.int64]]:
    """Ids [T, L, K] of the tokens of a query in order, the numbers of its layers and the step of each token.

    Raises:
        TraceError: a step of another form, or whose layers differ in their tokens or from the first step's.
    """
    if not is_query(steps):
        raise TraceError(f"{where}: wanted a list of steps, each a dictionary of layers")
    layers = sorted(int(key) for key, value in steps[0].items() if value is not None)
    if not layers:
        raise TraceError(f"{where}[0]: every layer is null, wanted the experts of at least one")
    if layers[-1] >= MAX_LAYERS:
        raise TraceError(f"{where}[0]: found layer {layers[-1]}, wanted less than {MAX_LAYERS}")
    blocks = []
    for number, step in enumerate(steps):
        at = f"{where}[{number}]"
        if not isinstance(step, dict):
            raise TraceError(f"{at}: found {type(step).__name__}, wanted a dictionary of layers")
        parts = [expert_ids(f"{at}[{str(layer)!r}]", step.get(str(layer)), SHAPE) for layer in layers]
        if len({part.shape for part in parts}) > 1:
            raise TraceError(f"{at}: layers differ in tokens or k, wanted the same of each")
        blocks.append(np.stack(parts))
    width = max(block.shape[2] for block in blocks)
    padded = [np.pad(block, ((0, 0), (0, 0), (0, width - block.shape[2])), constant_values=-1) for block in blocks]
    lengths = [block.shape[1] for block in blocks]
    expert = np.concatenate(padded, axis=1).transpose(1, 0, 2)
    return expert, tuple(layers), np.repeat(np.arange(len(blocks)), lengths)


def _recognises(sample: Sample) -> bool:
    return re.match(r'\[\s*\{\s*"\d+"\s*:\s*(\[|null)', sample.text.lstrip()) is not None


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    n_tokens = 0
    for number, path in enumerate(job.files):
        steps = json_document(path, job.progress)
        expert, layers, step = query(str(path), steps)
        dense = len(steps[0]) - len(layers)
        if dense:
            job.note(f"{dense} dense layers are null: left out")
        length = len(expert)
        yield from blocks_of_tokens(
            expert,
            layers,
            first_token=n_tokens,
            where=lambda token, path=path: f"{path}: token {token}",  # type: ignore[misc]
            sequence=np.full(length, number),
            step=step,
            position=np.arange(length),
            phase=np.where(step == 0, PREFILL, DECODE),
        )
        n_tokens += length


LAYOUT = Layout(
    name="core12345",
    summary="core12345/MoE_expert_selection_trace (a JSON file a query)",
    recognises=_recognises,
    read=_read,
)
