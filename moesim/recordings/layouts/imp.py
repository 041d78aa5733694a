"""Traces of imp (kekzl/imp): lists `[layer, e0, ..., ek-1]` of decode tokens, in one JSON document or a line each."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_LAYERS
from moesim.recordings.layout import ChoiceBlock, ImportJob, Layout
from moesim.recordings.records import Row, blocks_of_rows, distinct, json_values, whole
from moesim.recordings.sample import Sample
from moesim.types import DECODE

_START = r"\[\s*(\[\s*)?\d+\s*(,\s*\d+\s*)+\]"


def _recognises(sample: Sample) -> bool:
    import re

    return re.match(_START, sample.text.lstrip()) is not None


def _rows(job: ImportJob) -> Iterator[tuple[str, Row]]:
    """A row a list; a token begins where the layers do not go on ascending.

    Raises:
        TraceError: something else than such lists.
    """
    token = -1
    for path in job.files:
        last = MAX_LAYERS
        for where, value in json_values(path, job.progress):
            nested = isinstance(value, list) and bool(value) and isinstance(value[0], list)
            for number, each in enumerate(value if nested else [value]):
                at = f"{where}[{number}]" if nested else where
                if not isinstance(each, list) or len(each) < 2:
                    raise TraceError(f"{at}: found {each!r:.40}, wanted a list [layer, expert, expert, ...]")
                layer = whole(f"{at}: layer", each[0], MAX_LAYERS)
                token += layer <= last
                last = layer
                yield at, Row(token, layer, distinct(at, each[1:]), phase=DECODE, step=token)


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    job.note("a token begins where the layers begin again; all are decode tokens")
    return blocks_of_rows(_rows(job))


LAYOUT = Layout(
    name="imp-json",
    summary="imp's lists [layer, expert, expert, ...] of decode tokens (JSON)",
    recognises=_recognises,
    read=_read,
)
