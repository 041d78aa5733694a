"""The kept steps as a trace for Perfetto (ui.perfetto.dev) and chrome://tracing: JSON of the Trace Event Format.

GPUs are processes, their streams threads, and what they did slices; counters
follow the bytes that a GPU sends and the tokens that wait for its experts.
Times are microseconds of the simulation, in whole nanoseconds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, TextIO

import pandas as pd

from moesim.errors import InputError
from moesim.report.intervals import QUEUE, group_gpus, intervals
from moesim.report.run import RunLike
from moesim.types import EXCHANGE_KINDS

OPENING = '{"displayTimeUnit": "ns", "traceEvents": ['
"""How every file begins."""
STREAMS = {0: "compute", 1: "exchange"}
Event = dict[str, Any]


def write_trace(run: RunLike, out: TextIO) -> None:
    """Write the trace of a run, an event a line; the same run gives the same bytes.

    Raises:
        InputError: the run kept no timeline.
    """
    if run.timeline.empty:
        raise InputError(f"{run.name}: found no timeline to trace, wanted a run with keep.timeline_steps of at least 1")
    out.write(OPENING)
    out.writelines(f"{',' if i else ''}\n{json.dumps(event)}" for i, event in enumerate(events(run)))
    out.write("\n]}\n")


def events(run: RunLike) -> Iterator[Event]:
    """All events: the names of processes and threads, then the slices and the counters of each GPU."""
    rows = intervals(run.timeline, group_gpus(run.scenario))
    for side in ("start", "end"):
        rows[side] = _nanoseconds(rows[f"{side}_s"])
    # of the waits in queues, dozens at a time, the counter says enough
    waiting, rows = rows[rows["kind"] == QUEUE], rows[rows["kind"] != QUEUE].copy()
    rows["lane"] = _lanes(rows)
    threads = sorted({(int(stream), int(lane)) for stream, lane in zip(rows["stream"], rows["lane"], strict=True)})
    # Viewers take a thread numbered as its process for its main one, and thread 0 for the idle one.
    tid = {thread: i for i, thread in enumerate(threads, start=int(rows["gpu"].max()) + 1)}
    node = dict(zip(run.gpus["gpu"].tolist(), run.gpus["node"].tolist(), strict=True))
    for gpu, own in rows.groupby("gpu"):
        pid = int(str(gpu))
        used = set(zip(own["stream"].tolist(), own["lane"].tolist(), strict=True))
        yield from _names(pid, node.get(gpu), {thread: i for thread, i in tid.items() if thread in used})
        yield from _slices(pid, own, tid)
        moving = own[own["kind"].isin(EXCHANGE_KINDS)]
        yield from _counter(pid, "in flight", moving, "bytes")
        if "tokens" in waiting:
            yield from _counter(pid, "waiting for experts", waiting[waiting["gpu"] == gpu], "tokens")


def _nanoseconds(seconds: pd.Series) -> pd.Series:
    """The whole nanoseconds of times that are whole picoseconds; their order stays, so nothing comes to overlap."""
    return (seconds * 1e12).round().astype("int64") // 1000


def _lanes(rows: pd.DataFrame) -> list[int]:
    """Slices of a thread must not overlap: those of a stream that do are told apart, the first free lane each."""
    busy_until: dict[tuple[int, int], list[int]] = defaultdict(list)
    result = []
    columns = (rows[name].tolist() for name in ("gpu", "stream", "start", "end"))
    for gpu, stream, start, end in zip(*columns, strict=True):
        lanes = busy_until[gpu, stream]
        lane = next((i for i, until in enumerate(lanes) if until <= start), len(lanes))
        lanes[lane : lane + 1] = [end]
        result.append(lane)
    return result


def _names(pid: int, node: int | None, threads: dict[tuple[int, int], int]) -> Iterator[Event]:
    """What to call a GPU and its streams, and in which order they stand."""

    def say(what: str, args: Event, tid: int | None = None) -> Event:
        thread = {} if tid is None else {"tid": tid}
        return {"ph": "M", "name": what, "pid": pid, **thread, "args": args}

    yield say("process_name", {"name": "GPU"})  # viewers show the number behind it
    yield say("process_sort_index", {"sort_index": pid})
    if node is not None:
        yield say("process_labels", {"labels": f"node {node}"})
    for (stream, lane), tid in threads.items():
        name = STREAMS.get(stream, f"stream {stream}")
        yield say("thread_name", {"name": f"{name} {lane + 1}" if lane else name}, tid)
        yield say("thread_sort_index", {"sort_index": tid}, tid)


def _slices(pid: int, rows: pd.DataFrame, tid: dict[tuple[int, int], int]) -> Iterator[Event]:
    """A slice a row."""
    names = ("kind", "start", "end", "stream", "lane", "step", "layer", "bytes", "of")
    for kind, start, end, stream, lane, step, layer, size, of in zip(*(rows[n].tolist() for n in names), strict=True):
        args = {"step": step, "layer": layer}
        if of:
            args["for"] = of
        elif kind in EXCHANGE_KINDS:
            args["bytes"] = size
        yield {
            "ph": "X",
            "name": kind,
            "pid": pid,
            "tid": tid[stream, lane],
            "ts": start / 1000,
            "dur": (end - start) / 1000,
            "args": args,
        }


def _counter(pid: int, name: str, rows: pd.DataFrame, unit: str) -> Iterator[Event]:
    """The sum of a column over the rows that hold at a time, wherever it changes."""
    change: dict[int, int] = defaultdict(int)
    for start, end, amount in zip(*(rows[n].tolist() for n in ("start", "end", unit)), strict=True):
        change[start] += amount
        change[end] -= amount
    total = 0
    for at in sorted(change):
        if change[at]:
            total += change[at]
            yield {"ph": "C", "name": name, "pid": pid, "ts": at / 1000, "args": {unit: total}}
