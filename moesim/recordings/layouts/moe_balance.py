"""moe-balance's batches: JSON lines of `layer`, `batch_id`, `origin_rows` and `topk_experts`, and where known more.

Facts: sim/convert_npz_to_trace.py of johanna-rock/moe-balance. A line is a batch of tokens in one layer, whose n-th row
is the same token in every layer; a batch is a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_LAYERS, expert_ids
from moesim.recordings.json_lines import KeyCodes
from moesim.recordings.layout import ChoiceBlock, ImportJob, Layout
from moesim.recordings.records import json_objects, whole
from moesim.recordings.sample import Sample

SHAPE = {2: "[tokens][k]"}


def _recognises(sample: Sample) -> bool:
    return {"layer", "batch_id"} < sample.keys and bool({"origin_rows", "topk_experts"} & sample.keys)


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    """A block a line.

    Raises:
        TraceError: a line without its fields or with wrong ones, or a batch that differs in size by layer.
    """
    batches: dict[tuple[int, int], tuple[int, int]] = {}
    n_tokens = 0
    requests = KeyCodes()
    for number, path in enumerate(job.files):
        for where, record in json_objects(path, job.progress):
            layer = whole(f"{where}: layer", record.get("layer"), MAX_LAYERS)
            batch = whole(f"{where}: batch_id", record.get("batch_id"), 2**31)
            expert = expert_ids(f"{where}: topk_experts", record.get("topk_experts"), SHAPE, low=0)
            size = len(expert)
            first, wanted = batches.setdefault((number, batch), (n_tokens, size))
            if size != wanted:
                raise TraceError(f"{where}: topk_experts: found {size} tokens, wanted {wanted} as in other layers")
            n_tokens = max(n_tokens, first + size)
            named = _by_token(where, record, "request_id", size)
            yield ChoiceBlock(
                token=first + np.arange(size),
                layer=np.full(size, layer),
                expert=expert,
                weight=_weights(where, record, expert.shape),
                sequence=None if named is None else requests.of([f"{each!s:.200}" for each in named]),
                step=np.full(size, batch),
                where=lambda row, where=where: f"{where}: topk_experts[{row}]",  # type: ignore[misc]
            )


def _weights(where: str, record: dict[str, Any], shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """The weights of a line's choices, None where they are absent."""
    value = record.get("topk_weights")
    if value is None:
        return None
    try:
        weight = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        weight = np.empty(0)
    if weight.shape != shape:
        raise TraceError(f"{where}: topk_weights: found {value!r:.40}, wanted numbers {list(shape)} as topk_experts")
    return weight


def _by_token(where: str, record: dict[str, Any], name: str, size: int) -> list[Any] | None:
    """A field that has an element a token, or one value for all; None where it is absent."""
    value = record.get(name)
    if value is None or (isinstance(value, list) and len(value) == size):
        return value
    if isinstance(value, list):
        raise TraceError(f"{where}: {name}: found {len(value)} elements, wanted {size}, one a token")
    return [value] * size


LAYOUT = Layout(
    name="moe-balance-batches",
    summary="moe-balance's batches (JSON lines of layer, batch_id, topk_experts)",
    recognises=_recognises,
    read=_read,
)
