"""A small sweep."""

from __future__ import annotations

from typing import Any

import pytest

from moesim import Scenario

SWEEP = {
    "name": "small",
    "seed": 3,
    "model": {"preset": "mixtral-8x7b", "n_layers": 2},
    "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 4},
    "workload": {"steps": 2, "tokens_per_gpu": 16, "popularity": {"exponent": 0.4}},
    "compare": {"dropless": {}, "tight": {"routing.capacity": {"factor": 1.0}}},
    "sweep": {"workload.popularity.exponent": [0, 0.5], "routing.top_k": [1, 2]},
}


@pytest.fixture
def make() -> Any:
    """The sweep with other blocks."""

    def scenario(**changes: Any) -> Scenario:
        return Scenario.from_dict({**SWEEP, **changes})

    return scenario
