"""A placement with other experts in the slots of each layer: every stage follows it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from moesim import Scenario, simulate
from moesim.placement import place
from moesim.types import Placement

SCENARIO = {
    "model": {"preset": "olmoe-1b-7b", "n_layers": 3},
    "seed": 1,
    "cluster": {"gpu": "h100-sxm", "nodes": 2, "gpus_per_node": 4, "network": "deepep-low-latency"},
    "workload": {
        "phase": "decode",
        "steps": 2,
        "tokens_per_gpu": 16,
        "popularity": {"kind": "zipf", "exponent": 0.6},
    },
}


def shuffled(*args: Any, **sizes: Any) -> Placement:
    """The placement of a planner, the experts of each layer dealt anew to its slots."""
    planned = place(*args, **sizes)
    rng = np.random.default_rng(7)
    return dataclasses.replace(planned, expert=rng.permuted(planned.expert, axis=1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"simulation.engine": "simpy", "simulation.network": "port"},
        {"simulation.overlap": "two-batch"},
        {"simulation.experts": "queued"},
        {"faults": [{"kind": "gpu-failure", "gpu": 2, "start_s": 0.0, "orphans": "drop"}]},
        {"routing.capacity": {"factor": 1.0, "scope": "source-rank", "pad": True}},
        {"routing.capacity": {"factor": 0.8, "scope": "device"}},
        {"routing.capacity": {"factor": 0.8, "scope": "source-rank", "overflow": "expanded-drop"}},
    ],
)
def test_loads_of_gpus_are_those_of_the_experts_that_they_hold(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens ask for the same experts; what a GPU processes is the load of what it holds in each layer."""
    scenario = Scenario.from_dict(SCENARIO, overrides=changes)
    alike = simulate(scenario)
    monkeypatch.setattr("moesim.simulation.prepare.place", shuffled)
    result = simulate(scenario)
    np.testing.assert_array_equal(result.experts.requested, alike.experts.requested)
    placement = shuffled("contiguous", n_experts=64, n_layers=3, n_ranks=8)
    for step, experts in result.experts.groupby("step"):
        load = experts.sort_values(["layer", "expert"]).processed.to_numpy().reshape(3, 64)
        expected = np.zeros(8, dtype=np.int64)
        np.add.at(expected, placement.rank, np.take_along_axis(load, placement.expert, axis=1).sum(axis=0))
        assert result.gpus[result.gpus.step == step].sort_values("gpu").processed.tolist() == expected.tolist()
    assert result.gpus.processed.tolist() != alike.gpus.processed.tolist()
