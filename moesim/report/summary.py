"""The summary of one run as people read it, the same on the terminal and in HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moesim.report.columns import COLUMNS, unrecorded
from moesim.report.keys import lookup
from moesim.report.units import bytes_text, count, number, percent, time_text
from moesim.types import PARTS


def _queue_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Of expert queues, where there are any."""
    if lookup(summary, "queue.wait_mean_s") is None:
        return []
    return [
        ("wait in expert queues, mean", time_text(lookup(summary, "queue.wait_mean_s")), "of a token"),
        ("wait in expert queues, max", time_text(lookup(summary, "queue.wait_max_s")), ""),
        ("longest expert queue", f"{count(lookup(summary, 'queue.tokens_max'))} tokens", ""),
    ]


def _level_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What each level of a network of more than two carries, and how busy the uplinks that can be full are."""
    carried = summary.get("bytes_by_level", {})
    rows = [(f"bytes over level {name}", bytes_text(amount), "per step") for name, amount in carried.items()]
    busy = summary.get("uplink_busy_by_level", {})
    note = "of the step, the busiest one, up or down"
    return rows + [(f"uplink of a {name} busy", f"{percent(share)} %", note) for name, share in busy.items()]


def _unrouted_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Of tokens that no expert takes, where there are any."""
    rate, note = lookup(summary, "unrouted_token_rate"), "among the tokens dropped: those that no expert took"
    return [("tokens unrouted", f"{percent(rate)} %", note)] if rate else []


def _recorded_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Of a recording that lacks layers."""
    value, _, note = unrecorded(summary).partition(" MoE layers are recorded: ")
    return [("MoE layers recorded", value, note)] if value else []


def _few_steps_note(summary: Mapping[str, Any]) -> str:
    """What to think of a percentile of too few steps."""
    column = next(column for column in COLUMNS if column.min_steps)
    return (
        f"of fewer than {column.min_steps} steps: little else than the slowest" if column.too_few_steps(summary) else ""
    )


def summary_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, note) of each row."""

    def of(key: str) -> float | None:
        return lookup(summary, key)

    step = of("step_time_s.mean")
    rows = [
        ("step time, mean", time_text(step), f"over {count(of('n_steps'))} measured steps"),
        ("step time, p50", time_text(of("step_time_s.p50")), ""),
        ("step time, p95", time_text(of("step_time_s.p95")), ""),
        ("step time, p99", time_text(of("step_time_s.p99")), _few_steps_note(summary)),
        ("step time, max", time_text(of("step_time_s.max")), ""),
        ("tokens/s/GPU", number(of("tokens_per_s_per_gpu")), ""),
        *_recorded_rows(summary),
        ("imbalance penalty", number(of("imbalance_penalty")), "mean step time / the same load spread evenly"),
        ("MaxVio, mean", number(of("max_violation.mean")), "max / mean - 1 of the requested expert load"),
        ("MaxVio, max", number(of("max_violation.max")), ""),
        ("balancedness, mean", number(of("balancedness.mean")), "mean / max of the processed load over GPUs"),
        ("balancedness, min", number(of("balancedness.min")), ""),
        ("balancedness, requested", number(of("balancedness_requested.mean")), "the same of what was asked for"),
        ("drop rate", f"{percent(of('drop_rate'))} %", "of the requested assignments"),
        ("tokens dropped", f"{percent(of('token_drop_rate'))} %", "tokens that no expert serves"),
        *_unrouted_rows(summary),
        ("reroute rate", f"{percent(of('reroute_rate'))} %", ""),
        *_queue_rows(summary),
        ("bytes within nodes", bytes_text(of("bytes.within_node")), "per step"),
        ("bytes across nodes", bytes_text(of("bytes.across_nodes")), "per step"),
        *_level_rows(summary),
    ]
    for part in PARTS:
        time = of(f"breakdown_s.{part}")
        if time:  # a part that never runs says nothing
            share = f"{percent(time / step)} % of the step" if step else ""
            rows.append((part.replace("_", " "), time_text(time), share))
    return rows
