"""Skew that changes over the steps, from a scenario: what is refused, and that variants and threads change nothing."""

from __future__ import annotations

from typing import Any

import pytest

from moesim import Scenario, compare, simulate
from moesim.errors import ScenarioError

MIXTURE = [{"step": 0, "weights": [1, 0]}, {"step": 5, "weights": [1, 3]}]
BASE: dict[str, Any] = {
    "model": {"preset": "mixtral-8x7b", "n_layers": 2},
    "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 4},
    "workload": {
        "steps": 6,
        "tokens_per_gpu": 64,
        "popularity": {"exponent": 0.5},
        "locality": [0.2, 0.6],
        "generated_tokens": 4,
        "topics": {"count": 2, "strength": 0.5, "mixture": MIXTURE},
        "drift": {"half_life_steps": 4},
        "bursts": {"share": 0.5, "experts": 2, "every_steps": 3},
    },
}  # fmt: skip


def test_variants_threads_and_the_resolved_file_see_the_same_tokens() -> None:
    """Capacity changes what is served, nothing of what is asked for."""
    scenario = Scenario.from_dict({**BASE, "compare": {"own": {}, "limited": {"routing.capacity": {"factor": 1.0}}}})
    study = compare(scenario)
    own, limited = study.results["own"], study.results["limited"]
    assert "stated skew, with locality, drift, bursts, a mixture of topics" in own.manifest["provenance"]["tokens"]
    assert own.experts["requested"].equals(limited.experts["requested"])
    assert not own.experts["processed"].equals(limited.experts["processed"])
    assert simulate(scenario.variant("own"), threads=1).experts.equals(own.experts)
    assert simulate(Scenario.from_dict(own.scenario), threads=2).experts.equals(own.experts)


WRONG = [
    ({"workload.drift": {}}, "drift.half_life_steps: found nothing"),
    ({"workload.drift.half_life_steps": 0}, "found 0, wanted greater than 0"),
    ({"workload.drift.half_life": 3}, "unknown field, wanted half_life_steps"),
    ({"workload.bursts.share": 1.5}, "share: found 1.5, wanted less than or equal to 1"),
    ({"workload.bursts.experts": 9}, "experts: found 9, wanted at most the 8 experts of mixtral-8x7b"),
    ({"workload.bursts.duration_steps": 4}, "duration_steps: found 4, wanted at most every_steps, 3"),
    ({"workload.generated_tokens": None}, "mixture: found '2 entries', wanted one entry, or workload.generated_tokens"),
    ({"workload.topics.count": 3}, "mixture.0.weights: found '2 weights', wanted 3, one for each topic"),
    ({"workload.topics.mixture": [{"step": 0, "weights": [0, 0]}]}, "mixture.0.weights: .* wanted a weight above 0"),
    ({"workload.topics.mixture": [{"step": 0}]}, "mixture.0.weights: found nothing"),
    ({"workload.topics.mixture": [{"stop": 0, "weights": [1, 1]}]}, "mixture.0.stop: .*unknown field, wanted step"),
    (
        {"workload.topics.mixture": [{"step": 5, "weights": [1, 1]}, {"step": 5, "weights": [1, 0]}]},
        "mixture: found .*5.*5.*, wanted entries of ascending steps",
    ),
]  # fmt: skip


@pytest.mark.parametrize("overrides, message", WRONG)
def test_what_is_wrong_is_said(overrides: dict[str, Any], message: str) -> None:
    """The field, what was found and what would be right."""
    with pytest.raises(ScenarioError, match=message):
        Scenario.from_dict(BASE, overrides=overrides)
