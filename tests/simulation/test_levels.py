"""Runs on networks of more than two levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from moesim import Result, simulate
from moesim.report.summary import summary_rows
from tests.simulation.small import small

LEVELS: list[dict[str, Any]] = [{"name": "node"}, {"name": "rack", "size": 4}, {"name": "pod"}]


def run(levels: list[dict[str, Any]] | None, **overrides: Any) -> Result:
    """Eight GPUs in nodes of two and racks of two nodes."""
    network = {"preset": "nvlink4-ib400", **({} if levels is None else {"levels": levels})}
    base = {"cluster.nodes": 4, "cluster.network": network, "workload.steps": 1, **overrides}
    return simulate(small(**{key.replace(".", "__"): value for key, value in base.items()}))


def oversubscribed(ratio: float) -> list[dict[str, Any]]:
    """The uplinks of the racks."""
    node, rack, pod = LEVELS
    return [node, {**rack, "oversubscription": ratio}, pod]


PORT = {"simulation.network": "port"}
QUEUED = {"simulation.experts": "queued"}
TWO_HOP = {"cluster.network.copies": "per-node"}
ALL = {"cluster.network.copies": "all"}


@pytest.mark.parametrize("how", [{}, PORT, QUEUED, TWO_HOP, TWO_HOP | PORT, ALL], ids=str)
def test_levels_without_oversubscription_change_nothing_and_with_it_cost_time(how: dict[str, Any]) -> None:
    """Of one port and one latency; the bytes are the same ones, told apart."""
    plain, alike, slow = (run(levels, **how) for levels in (None, oversubscribed(1), oversubscribed(500)))
    pd.testing.assert_frame_equal(alike.steps, plain.steps)
    pd.testing.assert_frame_equal(alike.gpus, plain.gpus)
    assert alike.summary["bytes"] == plain.summary["bytes"] == slow.summary["bytes"]
    by_level = alike.summary["bytes_by_level"]
    assert list(by_level) == ["node", "rack", "pod"]
    assert by_level["node"] == plain.summary["bytes"]["within_node"]
    assert by_level["rack"] + by_level["pod"] == plain.summary["bytes"]["across_nodes"]
    assert plain.summary["bytes_by_level"] == {}
    assert plain.summary["uplink_busy"] is None
    assert set(alike.links.level) == {"node", "rack", "pod"}
    of_level = alike.links.groupby("level")["bytes"].sum()
    assert {level: float(of_level[level]) for level in by_level} == by_level
    assert slow.summary["step_time_s"]["mean"] > 1.5 * plain.summary["step_time_s"]["mean"]
    assert 0.5 < slow.summary["uplink_busy"] <= 1
    assert slow.summary["uplink_busy_by_level"] == {"rack": slow.summary["uplink_busy"]}


def test_both_engines_agree_with_faults_on_a_level() -> None:
    """A slow port of one GPU above the nodes, message jitter, and an uplink that is full."""
    faults = [
        {"kind": "slow-link", "gpu": 1, "level": "pod", "factor": 8.0},
        {"kind": "message-jitter", "cv": 0.5},
    ]
    how = {**PORT, "faults": faults}
    ill, simpy = (run(oversubscribed(20), **how, **{"simulation.engine": name}) for name in ("compiled", "simpy"))
    pd.testing.assert_frame_equal(ill.steps, simpy.steps)
    well = run(oversubscribed(20), **PORT)
    assert ill.summary["step_time_s"]["mean"] > well.summary["step_time_s"]["mean"]


def test_groups_in_racks_of_their_own_pass_no_uplink() -> None:
    """Two groups of a rack each; a step takes the same time however oversubscribed the uplinks are."""
    few, many = (run(oversubscribed(ratio), **{"parallelism.expert": 4}) for ratio in (1, 900))
    pd.testing.assert_frame_equal(few.steps, many.steps)
    assert many.summary["bytes_by_level"]["pod"] == 0


def test_groups_of_two_racks_pass_them() -> None:
    """Two groups of 8 on 16 GPUs in racks of 4: the same time as one of them alone with the same tokens."""
    both = run(oversubscribed(50), **{"cluster.nodes": 8, "parallelism.expert": 8})
    assert both.summary["uplink_busy"] > 0.1
    assert np.isclose(both.summary["bytes_by_level"]["pod"], both.links.bytes[both.links.level == "pod"].sum())


def test_the_report_tells_levels_apart() -> None:
    """Above the matrix of traffic, and in the summary on the terminal."""
    result = run(oversubscribed(4))
    assert "over level pod" in result.report_html()
    rows = {name for name, _, _ in summary_rows(result.summary)}
    assert {"bytes over level pod", "uplink of a rack busy"} <= rows
