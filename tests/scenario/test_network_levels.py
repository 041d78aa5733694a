"""The levels of a network in a scenario: what they are by default, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from moesim import Scenario
from moesim.errors import ScenarioError
from moesim.hardware import exchange_rates

NODE, RACK, POD = {"name": "node"}, {"name": "rack", "size": 8}, {"name": "pod"}
STATED = {"name": "rack", "size": 8, "bandwidth_gb_per_s": 100.0, "latency_us": 7.0}


def scenario(*levels: dict[str, Any], **overrides: Any) -> Scenario:
    """Mixtral on 16 GPUs in nodes of 4, which NVLink and a network card join."""
    network = {"preset": "nvlink4-ib400", **({"levels": list(levels)} if levels else {})}
    data = {
        "model": {"preset": "mixtral-8x7b", "n_layers": 1},
        "cluster": {"gpu": "h100-sxm", "nodes": 4, "gpus_per_node": 4, "network": network},
        "workload": {"steps": 1, "tokens_per_gpu": 4},
        "parallelism": {"expert": 8},
    }
    return Scenario.from_dict(data, overrides={key.replace("__", "."): value for key, value in overrides.items()})


def rates(case: Scenario) -> tuple[list[int], list[int], list[int]]:
    """Of dispatch: of GPU 0's ports, latencies and uplinks, picoseconds."""
    found = exchange_rates(case.cluster, case.precision, 4096)[0]
    return found.out_ps[:, 0].tolist(), found.latency_ps.tolist(), found.uplink_ps.tolist()


def test_levels_have_the_rates_of_the_network_unless_they_state_others() -> None:
    """4,096 elements in bf16 are 8,192 bytes: 22.76 ns at 360 GB/s, 204.8 at 40, 81.92 at 100."""
    within, across = 22756, 204800
    assert rates(scenario()) == ([within, across], [15_000_000, 25_000_000], [])
    assert rates(scenario(NODE, RACK, POD)) == ([within, across], [15_000_000, 25_000_000, 25_000_000], [])
    stated = rates(scenario(NODE, STATED, {**POD, "bandwidth_gb_per_s": 40.0}))
    assert stated == ([within, 81920, across], [15_000_000, 7_000_000, 7_000_000], [])
    shared = scenario(NODE, {**RACK, "shares_port": True}, {**POD, "bandwidth_gb_per_s": 40.0})
    assert shared.cluster.levels.ports == (0, 0, 1)
    assert rates(shared)[0] == [within, across]


def test_an_uplink_carries_the_ports_above_it_by_its_oversubscription() -> None:
    """8 GPUs of 40 GB/s at 4:1 are 80 GB/s: 102.4 ns a copy; a node of 4 at 2:1 too; what is not oversubscribed, 0."""
    assert rates(scenario(NODE, {**RACK, "oversubscription": 4}, POD))[2] == [0, 102_400]
    assert rates(scenario({**NODE, "oversubscription": 2}, RACK, POD))[2] == [102_400, 0]
    assert rates(scenario({**NODE, "oversubscription": 2}, {"name": "all"}))[2] == [102_400]


def test_levels_are_of_a_fitted_network_too() -> None:
    """Its first two levels take what was fitted; the resolved scenario says the same again."""
    case = scenario(
        NODE,
        {**RACK, "oversubscription": 3},
        {**POD, "latency_us": 40.0},
        cluster__network__preset="deepep-low-latency",
    )
    assert case.cluster.levels.names == ("node", "rack", "pod")
    again = Scenario.from_dict(case.resolved())
    assert again.cluster == case.cluster
    assert case.provenance["network"].startswith("synthetic")


def test_a_cluster_may_fill_part_of_a_unit() -> None:
    """16 GPUs in a rack of 72, whose uplink nothing passes."""
    case = scenario(NODE, {"name": "rack", "size": 72, "oversubscription": 2}, POD)
    assert case.cluster.levels.between(16, 4).max() == 1


@pytest.mark.parametrize(
    "levels, message",
    [
        ([NODE], "levels: found '1 level', wanted two levels or more"),
        ([NODE, {"name": "node"}], "levels: found 'node, node', wanted levels with names that differ"),
        ([{"name": "node", "size": 8}, POD], r"levels\.0\.size: found 8, wanted 4, which is cluster.gpus_per_node"),
        ([NODE, {"name": "rack"}, POD], r"levels\.1\.size: found 'nothing', wanted the number of GPUs of a rack"),
        (
            [NODE, {"name": "rack", "size": 6}, POD],
            r"levels\.1\.size: found 6, wanted a multiple of the 4 GPUs of a node",
        ),
        (
            [NODE, {"name": "rack", "size": 12}, POD],
            r"levels\.1\.size: found 12, wanted a number that divides the 16 GPUs",
        ),
        ([NODE, RACK, {"name": "pod", "size": 8}], r"levels\.2\.size: found 8, wanted at least the 16 GPUs"),
        (
            [NODE, {**POD, "oversubscription": 2}],
            r"levels\.1\.oversubscription: found 2.0, wanted 1, as nothing leaves",
        ),
        ([NODE, {**POD, "oversubscription": 0.5}], "wanted greater than or equal to 1"),
        ([{**NODE, "shares_port": True}, POD], r"levels\.0\.shares_port: found True, wanted false"),
        (
            [NODE, {**STATED, "shares_port": True}, POD],
            r"levels\.1\.bandwidth_gb_per_s: found 100.0, wanted no bandwidth",
        ),
        (
            [NODE, RACK, {**POD, "shares_port": False}],
            r"levels\.2\.bandwidth_gb_per_s: found 'none', wanted a bandwidth",
        ),
        ([NODE, {"name": "a.b"}], r"levels\.1\.name: found 'a.b', wanted a text of the form '"),
        ([NODE, {"name": "pod", "oversubscribtion": 2}], "unknown field, wanted oversubscription"),
    ],
)
def test_levels_that_fit_nothing_are_refused(levels: list[dict[str, Any]], message: str) -> None:
    """In one sentence that names the field, what was found and what would be right."""
    with pytest.raises(ScenarioError, match=message):
        scenario(*levels)


def test_groups_are_of_whole_units_or_within_one() -> None:
    """Two groups of 8 in racks of 8 or of 16, one of 16 over both; not one of 8 in a rack and a half."""
    assert scenario(NODE, RACK, POD).cluster.n_gpus == 16
    with pytest.raises(ScenarioError, match="the 16 GPUs of an expert-parallel group are a multiple"):
        scenario(NODE, {"name": "rack", "size": 12}, POD, cluster__nodes=12, parallelism__expert=16)


def test_a_fault_names_a_level() -> None:
    """Any of the network's, or within_node and across_nodes."""
    fault = {"kind": "slow-link", "gpu": 0, "level": "rack", "factor": 2.0}
    scenario(NODE, RACK, POD, faults=[fault])
    scenario(NODE, RACK, POD, faults=[{**fault, "level": "across_nodes"}])
    with pytest.raises(ScenarioError, match=r"faults.0.level: found 'pod', wanted one of within_node, across_nodes$"):
        scenario(faults=[{**fault, "level": "pod"}])


def test_overrides_reach_one_level() -> None:
    """By its place in the list; there is no third one."""
    case = scenario(NODE, RACK, POD, cluster__network__levels__1__oversubscription=4)
    assert case.spec.cluster.network.levels[1].oversubscription == 4
    with pytest.raises(
        ScenarioError, match=r"found 3 at cluster\.network\.levels, wanted 0 to 2, an entry of that list"
    ):
        scenario(NODE, RACK, POD, cluster__network__levels__3__oversubscription=4)
