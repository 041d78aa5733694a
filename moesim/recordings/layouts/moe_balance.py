"""moe-balance's batches: JSON lines of `layer`, `batch_id`, `origin_rows` and `topk_experts`, and where known more.

Facts: sim/convert_npz_to_trace.py of johanna-rock/moe-balance. A line is a batch of tokens in one layer, whose n-th row
is the same token in every layer; a batch is a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_LAYERS
from moesim.recordings.layout import ChoiceBlock, ImportJob, Layout
from moesim.recordings.records import Row, blocks_of_rows, distinct, finite, json_objects, whole
from moesim.recordings.sample import Sample


def _recognises(sample: Sample) -> bool:
    return {"layer", "batch_id"} < sample.keys and bool({"origin_rows", "topk_experts"} & sample.keys)


def _rows(job: ImportJob) -> Iterator[tuple[str, Row]]:
    """The rows of all batches.

    Raises:
        TraceError: a line without its fields or with wrong ones, or a batch that differs in size by layer.
    """
    firsts: dict[tuple[int, int], tuple[int, int]] = {}
    n_tokens = 0
    requests: dict[str, int] = {}
    for number, path in enumerate(job.files):
        for where, record in json_objects(path, job.progress):
            layer = whole(f"{where}: layer", record.get("layer"), MAX_LAYERS)
            batch = whole(f"{where}: batch_id", record.get("batch_id"), 2**31)
            chosen = record.get("topk_experts")
            if not isinstance(chosen, list) or not chosen:
                raise TraceError(f"{where}: topk_experts: found {chosen!r:.40}, wanted a list of experts a token")
            if (number, batch) not in firsts:
                firsts[number, batch] = (n_tokens, len(chosen))
                n_tokens += len(chosen)
            first, size = firsts[number, batch]
            if len(chosen) != size:
                raise TraceError(f"{where}: topk_experts: found {len(chosen)} tokens, wanted {size} as in other layers")
            weights = _by_token(where, record, "topk_weights", size)
            named = _by_token(where, record, "request_id", size)
            for at, experts in enumerate(chosen):
                ids = distinct(f"{where}: topk_experts[{at}]", experts)
                own = None if weights is None else finite(f"{where}: topk_weights[{at}]", weights[at], len(ids))
                sequence = -1 if named is None else requests.setdefault(f"{named[at]!s:.200}", len(requests))
                yield where, Row(first + at, layer, ids, own, step=batch, sequence=sequence)


def _by_token(where: str, record: dict[str, Any], name: str, size: int) -> list[Any] | None:
    """A field that has an element a token, or one value for all; None where it is absent."""
    value = record.get(name)
    if value is None or (isinstance(value, list) and len(value) == size):
        return value
    if isinstance(value, list):
        raise TraceError(f"{where}: {name}: found {len(value)} elements, wanted {size}, one a token")
    return [value] * size


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    return blocks_of_rows(_rows(job))


LAYOUT = Layout(
    name="moe-balance-batches",
    summary="moe-balance's batches (JSON lines of layer, batch_id, topk_experts)",
    recognises=_recognises,
    read=_read,
)
