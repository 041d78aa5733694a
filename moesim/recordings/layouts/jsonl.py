"""JSON lines, one line a (token, layer), with the weights of its choices where they are known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moesim.recordings.json_lines import LAYER, MAX_WEIGHT, Field, KeyCodes, expert_list, read_rows
from moesim.recordings.layout import TOKEN_BITS, ChoiceBlock, ImportJob, Layout
from moesim.recordings.sample import Sample

FIELDS = (
    Field(name="problem_id", kind="key"),
    Field(name="token_idx"),
    LAYER,
    expert_list("experts"),
    Field(name="gating_probs", kind="numbers", maximum=MAX_WEIGHT, as_long_as="experts", optional=True),
)


def _recognises(sample: Sample) -> bool:
    return sample.has("problem_id") or sample.has("token_idx", "layer", "experts")


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    """Tokens keep the order of their first line; the problems of a file are not those of another."""
    first_sequence = 0
    for path in job.files:
        problems = KeyCodes()
        for rows in read_rows(path, FIELDS, keys={"problem_id": problems}, progress=job.progress):
            sequence = rows["problem_id"] + first_sequence
            weight = rows.get("gating_probs")
            if weight is None:
                job.note("no weights were recorded")
            yield ChoiceBlock(
                token=(sequence << TOKEN_BITS) + rows["token_idx"],
                layer=rows["layer"],
                expert=rows["experts"].astype(np.int32, copy=False),
                weight=weight,
                sequence=sequence,
                position=rows["token_idx"],
                where=rows.where,
            )
        first_sequence += len(problems.codes)


JSON_LINES = Layout(
    name="jsonl",
    summary="JSON lines with problem_id, token_idx, layer, experts and, where known, gating_probs",
    recognises=_recognises,
    read=_read,
)
