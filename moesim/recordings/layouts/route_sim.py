"""Traces of route_sim.py: JSON lines of `t` (the token), `layer`, `experts` and, where known, `phase`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moesim.recordings.json_lines import LAYER, Field, KeyCodes, expert_list, read_rows
from moesim.recordings.layout import TOKEN_BITS, ChoiceBlock, ImportJob, Layout
from moesim.types import DECODE, PREFILL, UNKNOWN

PHASES = {"prefill": PREFILL, "decode": DECODE}


def _read(job: ImportJob) -> Iterator[ChoiceBlock]:
    fields = (Field(name="t"), LAYER, expert_list("experts"), Field(name="phase", kind="text", optional=True))
    phases = KeyCodes()
    for number, path in enumerate(job.files):
        for rows in read_rows(path, fields, keys={"phase": phases}, progress=job.progress):
            phase = rows.get("phase")
            known = np.array([PHASES.get(each, UNKNOWN) for each in phases.codes] or [UNKNOWN])
            yield ChoiceBlock(
                token=(number << TOKEN_BITS) + rows["t"],
                layer=rows["layer"],
                expert=rows["experts"],
                step=rows["t"] if phase is not None and (known[phase] == DECODE).all() else None,
                phase=None if phase is None else known[phase],
                where=rows.where,
            )


LAYOUT = Layout(
    name="route-sim",
    summary="route_sim.py's lines of t, layer, experts (JSON lines)",
    recognises=lambda sample: sample.has("t", "layer", "experts"),
    read=_read,
)
