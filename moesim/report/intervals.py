"""What every GPU did when: the rows of a timeline with each exchange split into waiting and moving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from moesim.types import EXCHANGE_KINDS

QUEUE = "queue"
"""Kind of the rows of groups of tokens that wait for a queued expert."""


def group_gpus(scenario: Mapping[str, Any]) -> int | None:
    """GPUs of an expert-parallel group of a resolved scenario; None where it says nothing, which is one group."""
    parallelism = scenario.get("parallelism") or {}
    expert = parallelism.get("expert")
    return expert * parallelism.get("expert_tp", 1) if expert else None


def intervals(timeline: pd.DataFrame, group: int | None = None) -> pd.DataFrame:
    """The timeline (one or more steps) with `start_s` and `end_s`, less what took no time.

    An exchange becomes two rows: kind `wait` until its last participant has
    entered, with no bytes, and the exchange itself from then on. `of` is the
    exchange that a wait belongs to, empty otherwise. `group` consecutive GPUs
    exchange with one another (None = all do). Where experts are queued
    there are messages instead of exchanges, and no GPU enters last. Sorted by
    start, GPU, end.
    """
    if (timeline["kind"] == QUEUE).any():
        rows = timeline.assign(of="")
        return rows[rows["end_s"] > rows["start_s"]].sort_values(["start_s", "gpu", "end_s"], ignore_index=True)
    exchange = timeline["kind"].isin(EXCHANGE_KINDS)
    moves = timeline[exchange]
    # The n-th exchange of a kind in a layer is the same one on every GPU: rows of a GPU are in program order.
    turn = moves.groupby(["step", "gpu", "layer", "kind"]).cumcount()
    own = moves["gpu"] // (group or int(timeline["gpu"].max()) + 1)
    same = [moves["step"], moves["layer"], moves["kind"], turn, own]
    last_entry = moves.groupby(same)["start_s"].transform("max").clip(upper=moves["end_s"])
    waits = moves.assign(kind="wait", of=moves["kind"], end_s=last_entry, bytes=0)
    parts = [timeline[~exchange].assign(of=""), moves.assign(of="", start_s=last_entry), waits]
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows["end_s"] > rows["start_s"]].sort_values(["start_s", "gpu", "end_s"], ignore_index=True)
