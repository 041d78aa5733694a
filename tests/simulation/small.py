"""A small scenario that most tests of simulation change."""

from __future__ import annotations

from moesim import Scenario

SMALL = {
    "name": "small",
    "seed": 3,
    "model": {"preset": "mixtral-8x7b", "n_layers": 3, "dense_layers": [1], "intermediate_size": 4096},
    "cluster": {"gpu": "h100-sxm", "nodes": 2, "gpus_per_node": 2},
    "workload": {
        "steps": 3,
        "tokens_per_gpu": 40,
        "popularity": {"exponent": 0.8},
        "topics": {"count": 4, "strength": 0.5},
    },
}


def small(**overrides: object) -> Scenario:
    """Three layers, one of them dense, on two nodes of two GPUs."""
    return Scenario.from_dict(SMALL, overrides={key.replace("__", "."): value for key, value in overrides.items()})
