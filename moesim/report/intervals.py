"""What every GPU did when: the rows of a timeline with each exchange split into waiting and moving."""

from __future__ import annotations

import pandas as pd

from moesim.types import EXCHANGE_KINDS

QUEUE = "queue"
"""Kind of the rows of groups of tokens that wait for a queued expert."""


def intervals(timeline: pd.DataFrame) -> pd.DataFrame:
    """The timeline (one or more steps) with `start_s` and `end_s`, less what took no time.

    An exchange becomes two rows: kind `wait` until its last participant has
    entered, with no bytes, and the exchange itself from then on. `of` is the
    exchange that a wait belongs to, empty otherwise. Where experts are queued
    there are messages instead of exchanges, and nobody enters last. Sorted by
    start, GPU, end.
    """
    if (timeline["kind"] == QUEUE).any():
        rows = timeline.assign(of="")
        return rows[rows["end_s"] > rows["start_s"]].sort_values(["start_s", "gpu", "end_s"], ignore_index=True)
    exchange = timeline["kind"].isin(EXCHANGE_KINDS)
    moves = timeline[exchange]
    # The n-th exchange of a kind in a layer is the same one on every GPU: rows of a GPU are in program order.
    turn = moves.groupby(["step", "gpu", "layer", "kind"]).cumcount()
    same = [moves["step"], moves["layer"], moves["kind"], turn]
    last_entry = moves.groupby(same)["start_s"].transform("max").clip(upper=moves["end_s"])
    waits = moves.assign(kind="wait", of=moves["kind"], end_s=last_entry, bytes=0)
    parts = [timeline[~exchange].assign(of=""), moves.assign(of="", start_s=last_entry), waits]
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows["end_s"] > rows["start_s"]].sort_values(["start_s", "gpu", "end_s"], ignore_index=True)
