"""Patterns in a scenario: every kind runs, loads and exchanges are the dealt ones, and what needs logits is refused."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from moesim import Scenario, compare, simulate
from moesim.cli.list import entries
from moesim.errors import ScenarioError
from moesim.scenario.schema import PATTERN_FIELDS, PatternSpec
from moesim.workload import PATTERNS

BASE: dict[str, Any] = {
    "model": {"preset": "olmoe-1b-7b", "n_layers": 2},
    "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 4},
    "workload": {"steps": 3, "tokens_per_gpu": 32, "pattern": "balanced"},
}


def of(pattern: object, **overrides: Any) -> Scenario:
    """64 experts, top-8, four GPUs with 32 tokens each."""
    return Scenario.from_dict(BASE, overrides={"workload.pattern": pattern, **overrides})


def test_kinds_are_the_same_everywhere() -> None:
    """The registry, the schema, what each reads, and `moesim list patterns`."""
    assert set(PATTERNS) == set(PATTERN_FIELDS) == set(get_args(PatternSpec.model_fields["kind"].annotation))
    assert {name: entry.reads for name, entry in PATTERNS.items()} == PATTERN_FIELDS
    assert [*entries("patterns")] == [*PATTERNS]


@pytest.mark.parametrize("kind", PATTERNS)
def test_every_pattern_runs(kind: str) -> None:
    """All assignments are there, and the resolved scenario gives them again, whatever the threads."""
    scenario = of(kind)
    result = simulate(scenario, threads=2)
    assert result.experts.requested.sum() == 3 * 2 * 4 * 32 * 8
    assert f"pattern {kind}" in result.manifest["provenance"]["tokens"]
    again = simulate(Scenario.from_dict(result.scenario), threads=1)
    assert again.experts.equals(result.experts)
    assert again.links.equals(result.links)


def test_balanced_has_no_imbalance() -> None:
    """Balancedness 1 in every step and layer, MaxVio 0 and no penalty, also with few tokens."""
    for tokens in (32, 2):
        summary = simulate(of("balanced", **{"workload.tokens_per_gpu": tokens})).summary
        assert summary["balancedness"]["min"] == 1.0
    summary = simulate(of("balanced")).summary
    assert summary["max_violation"]["max"] == 0.0
    assert summary["imbalance_penalty"] == pytest.approx(1.0, abs=0.01)


def test_hot_experts_that_are_spread_leave_ranks_even() -> None:
    """As many are hot on every rank by default, also where a token chooses fewer than there are ranks."""
    pattern = {"kind": "spread-hot-experts", "ranks": 16}
    experts = simulate(of(pattern, **{"workload.tokens_per_gpu": 256})).experts
    load = experts[experts.layer == experts.layer.min()].groupby("expert").requested.sum().to_numpy()
    by_rank = load.reshape(16, -1).sum(axis=1)
    assert by_rank.max() / by_rank.mean() < 1.02
    assert load.max() / load.mean() > 1.5


def test_a_hot_rank_waits_for_nobody() -> None:
    """Half of the tokens on rank 2: it gets twice the mean, and the others wait for it."""
    result = simulate(of({"kind": "hot-rank", "share": 0.5, "rank": 2}))
    load = result.gpus.groupby("gpu").processed.sum().to_numpy()
    assert load[2] == load.sum() / 2
    assert result.summary["balancedness"]["mean"] == pytest.approx(0.5)
    assert result.gpus.groupby("gpu").wait_s.sum().idxmin() == 2


def test_ragged_sources_send_and_attend_what_they_have() -> None:
    """The fullest rank sends most and computes attention longest; a rank without tokens runs too."""
    prefill = {"workload.tokens_per_gpu": 4096, "workload.phase": "prefill"}
    result = simulate(of({"kind": "ragged-sources", "factor": 2.0}, **prefill))
    by_gpu = result.gpus.groupby("gpu")[["attention_s", "sent_bytes"]].sum()
    even = simulate(of("balanced", **prefill)).gpus.groupby("gpu")[["attention_s"]].sum()
    assert by_gpu.attention_s.max() > 1.2 * even.attention_s.max()
    assert by_gpu.attention_s.min() < 0.5 * even.attention_s.max()
    assert (result.experts.requested.to_numpy() == 4 * 4096 * 8 // 64).all()


def test_variants_see_the_same_choices() -> None:
    """A capacity and copies change what is served, a rank of its own stays where `ranks` says."""
    scenario = Scenario.from_dict(
        {
            **BASE,
            "workload": {**BASE["workload"], "pattern": {"kind": "hot-rank", "ranks": 4}},
            "compare": {"own": {}, "limited": {"routing.capacity": {"factor": 1.0}}, "two": {"parallelism.expert": 2}},
        }
    )
    runs = compare(scenario).results
    for name in ("limited", "two"):
        assert runs[name].summary["max_violation"]["mean"] == runs["own"].summary["max_violation"]["mean"] > 0.5
    assert runs["limited"].summary["drop_rate"] > 0.2


def test_an_override_below_a_name_changes_that_pattern() -> None:
    """As below the name of a preset."""
    data = {**BASE, "workload": {**BASE["workload"], "pattern": "hot-rank"}}
    changed = Scenario.from_dict(data, overrides={"workload.pattern.share": 0.25}).spec.workload.pattern
    assert changed is not None
    assert (changed.kind, changed.share) == ("hot-rank", 0.25)
    assert Scenario.from_dict(data, overrides={"workload.pattern": "none"}).spec.workload.pattern is None


WRONG: list[tuple[object, dict[str, Any], str]] = [
    ("hot-ranks", {}, "pattern.kind: found 'hot-ranks', wanted 'balanced', 'hot-experts'"),
    ({"kind": "hot-rank", "shares": 0.5}, {}, "pattern.shares: found an unknown field, wanted share"),
    ({"share": 0.5}, {}, "pattern.kind: found nothing"),
    ({"kind": "hot-rank", "share": 0}, {}, "share: found 0, wanted greater than 0"),
    ({"kind": "hot-rank", "rank": 4}, {}, "pattern.rank: found 4, wanted 0 to 3"),
    ({"kind": "hot-rank", "ranks": 5}, {}, "pattern.ranks: found 5, wanted a number that divides the 64 experts"),
    ({"kind": "hot-experts", "experts": 60}, {}, "pattern.experts: found 60, wanted 8 experts or more"),
    ({"kind": "burst", "duration_steps": 11}, {}, "duration_steps: found 11, wanted at most every_steps, 10"),
    ({"kind": "ragged-sources", "factor": 3}, {}, "factor: found 3, wanted less than or equal to 2"),
    ("balanced", {"routing.capacity": {"factor": 1.0, "overflow": "drop-by-priority"}}, "by weight, and a pattern"),
    ("balanced", {"routing.training": {"mechanism": "none"}}, "routing.training changes the logits"),
    ("balanced", {"workload.trace": "x.parquet"}, "pattern: found 'balanced', wanted none with a trace"),
]  # fmt: skip


@pytest.mark.parametrize("pattern, overrides, message", WRONG)
def test_what_is_wrong_is_said(pattern: object, overrides: dict[str, Any], message: str) -> None:
    """The field, what was found and what would be right."""
    with pytest.raises(ScenarioError, match=message):
        simulate(of(pattern, **overrides))


def test_sampling_of_a_study_does_not_depend_on_patterns() -> None:
    """A variant with a pattern draws nothing, so that auto is decided by the others."""
    base = {**BASE, "workload": {"steps": 1, "tokens_per_gpu": 8, "sampling": "auto"}}
    scenario = Scenario.from_dict({**base, "compare": {"drawn": {}, "dealt": {"workload.pattern": "balanced"}}})
    runs = compare(scenario).results
    assert {run.scenario["workload"]["sampling"] for run in runs.values()} == {"direct"}
    assert np.ptp(runs["dealt"].experts.requested) <= 1
