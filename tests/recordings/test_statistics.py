"""Statistics of recorded choices, by hand and beside what was published of the recordings."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from moesim.recordings.sampling import even_router, groups_of
from moesim.recordings.statistics import (
    LayerStatistics,
    counted_layer_statistics,
    even_destinations,
    layer_statistics,
    pair_counts,
    pair_lifts,
    previous_tokens,
    token_relations,
)

DATA = Path(os.environ.get("MOESIM_DATA", "/nowhere")) / "traces" / "routing"
recorded = pytest.mark.skipif(not DATA.exists(), reason="MOESIM_DATA has no recordings")


def of(
    expert: NDArray[np.int32], n_experts: int, sequence: NDArray[np.int32] | None = None, n_ranks: int | None = None
) -> LayerStatistics:
    """The statistics of a layer whose steps are unknown."""
    sequence = np.zeros(len(expert), dtype=np.int32) if sequence is None else sequence
    unknown = np.full(len(expert), -1, dtype=np.int32)
    return layer_statistics(
        expert,
        layer=0,
        phase="decode",
        n_experts=n_experts,
        tokens=token_relations(sequence, unknown, unknown),
        n_ranks=n_ranks,
    )


def test_a_layer_by_hand() -> None:
    """Loads 3, 2, 1, 0; two of four repeated choices; experts 0 and 1 on one rank, 2 and 3 on the other."""
    found = of(np.array([[0, 1], [0, 2], [0, 1]], dtype=np.int32), 4, n_ranks=2)
    assert found.load.tolist() == [3, 2, 1, 0]
    assert found.values["max_violation"].value == pytest.approx(1.0)
    assert found.values["dead_experts"].value == 1
    assert found.values["overlap"].value == pytest.approx(2 / 4)
    assert found.values["overlap"].even == pytest.approx(2 / 4)
    assert found.values["destination_ranks"].value == pytest.approx(4 / 3)
    assert found.values["rank_balancedness"].value == pytest.approx(3 / 5)


def test_neighbours_are_of_one_sequence() -> None:
    """Interleaved sequences; a missing position parts two tokens."""
    sequence = np.array([0, 1, 0, 1, 0], dtype=np.int32)
    unknown = np.full(5, -1, dtype=np.int32)
    assert previous_tokens(sequence, unknown).tolist() == [-1, -1, 0, 1, 2]
    position = np.array([0, 0, 1, 2, 2], dtype=np.int32)
    assert previous_tokens(sequence, position).tolist() == [-1, -1, 0, -1, 2]


def test_what_was_not_recorded_counts_nowhere() -> None:
    """A token without choices has no overlap with its neighbours."""
    found = of(np.array([[0, 1], [-1, -1], [0, 1]], dtype=np.int32), 4)
    assert found.n_tokens == 2
    assert found.load.sum() == 4
    assert np.isnan(found.values["overlap"].value)


def test_destinations_by_chance() -> None:
    """Two of four experts on two ranks: both on one in a third of the cases, 5/3 ranks."""
    assert even_destinations(4, 2, 2) == pytest.approx(5 / 3)
    assert even_destinations(8, 8, 2) == pytest.approx(2)


def test_pairs_beside_their_loads() -> None:
    """Experts 0 and 1 always together, 2 and 3 too: of 6 equally likely pairs two have all tokens."""
    expert = np.array([[0, 1], [3, 2]] * 50, dtype=np.int32)
    pairs = pair_counts(expert, 4)
    assert pairs[0, 1] == pairs[1, 0] == 50
    lifts = pair_lifts(pairs, np.array([50, 50, 50, 50]))
    assert lifts[0, 1] == pytest.approx(3)
    assert lifts[0, 2] == 0
    found = of(expert, 4)
    assert found.pair == (0, 1)
    assert found.pair_lift.value == pytest.approx(3)


def test_an_even_router_shows_what_chance_shows() -> None:
    """Its MaxVio and CV are those of drawn choices of distinct experts, within a twentieth."""
    rng = np.random.default_rng(1)
    n_tokens, top_k, n_experts = 200, 2, 8
    drawn = rng.random((300, n_tokens, n_experts)).argsort(axis=2)[..., :top_k]
    loads = np.stack([np.bincount(each.ravel(), minlength=n_experts) for each in drawn])
    for name in ("max_violation", "cv"):
        from moesim.recordings.statistics import load_statistics

        statistic = load_statistics(n_experts)[name]
        expected = float(statistic(loads).mean())
        assert even_router(statistic, n_tokens, top_k, n_experts)[0] == pytest.approx(expected, rel=0.06)


def test_standard_errors_are_those_of_repeated_recordings() -> None:
    """The CV of 60 recordings of 64 sequences scatters as the mean standard error says, within a third."""
    rng = np.random.default_rng(2)
    chance = rng.dirichlet(np.full(16, 3.0))
    found = []
    for _ in range(60):
        expert = rng.choice(16, size=(2048, 1), p=chance).astype(np.int32)
        found.append(of(expert, 16, np.arange(2048, dtype=np.int32) // 32).values["cv"])
    errors = np.array([each.error for each in found])
    assert np.std([each.value for each in found], ddof=1) == pytest.approx(float(errors.mean()), rel=0.33)


def test_groups_are_whole_sequences_where_there_are_enough() -> None:
    """Eight sequences are groups; two are cut into runs of tokens."""
    group, words = groups_of(np.repeat(np.arange(8), 4).astype(np.int32))
    assert group.tolist() == np.repeat(np.arange(8), 4).tolist()
    assert "sequences" in words
    group, words = groups_of(np.repeat(np.arange(2), 64).astype(np.int32))
    assert len(np.unique(group)) == 8
    assert "runs" in words


def test_counts_of_several_steps_have_errors() -> None:
    """Of steps; the mean over steps beside the whole."""
    count = np.random.default_rng(3).poisson(20, size=(50, 8))
    found = counted_layer_statistics(count, layer=3, phase="decode", top_k=2, n_ranks=4)
    assert found.n_steps == 50
    assert found.n_tokens == count.sum() // 2
    assert found.values["step_max_violation"].value > found.values["max_violation"].value
    assert 0 < found.values["cv"].error < 0.1
    assert np.isnan(counted_layer_statistics(count[:1], layer=3, phase="decode", top_k=2).values["cv"].error)


QWEN = {0: (0.41, 0.16, 0.996, 0.11), 12: (0.45, 0.16, 0.997, 0.13), 23: (0.59, 0.23, 0.993, 0.11)}
"""MaxVio, CV, entropy and adjacent overlap by layer, from the table beside the recordings."""


@recorded
@pytest.mark.parametrize("layer", QWEN)
def test_qwen_is_as_published(layer: int) -> None:
    """Without the 8,448 lines of warm-up."""
    with gzip.open(DATA / f"qwen1.5_moe_a2.7b_gsm8k_layer{layer}.jsonl.gz", "rt") as lines:
        routes = [json.loads(line) for line in lines][1:]
    expert = np.array([route["topk_ids"] for route in routes[8448:]], dtype=np.int32)
    found = of(expert, 60).values
    names = ("max_violation", "cv", "entropy", "overlap")
    for name, published, unit in zip(names, QWEN[layer], (0.01, 0.01, 0.001, 0.01), strict=True):
        assert found[name].value == pytest.approx(published, abs=unit / 2 + 1e-3), name


@recorded
def test_deepseek_is_as_published() -> None:
    """MaxVio 5.1 (1.6 to 9.5), CV 0.83, entropy 0.953, balancedness of 32 ranks 0.43, top share 0.34."""
    with gzip.open(DATA / "deepseek_v3_sglang_ep_statistics_decode_in2000out100.json.gz") as file:
        count = np.array(json.load(file)["logical_count"], dtype=np.int64)
    rows = [
        counted_layer_statistics(load[None], layer=i, phase="decode", top_k=8, n_ranks=32).values
        for i, load in enumerate(count)
        if load.any()
    ]
    assert len(rows) == 58
    mean = {name: float(np.mean([row[name].value for row in rows])) for name in rows[0]}
    violations = [row["max_violation"].value for row in rows]
    assert mean["max_violation"] == pytest.approx(5.1, abs=0.05)
    assert (min(violations), max(violations)) == pytest.approx((1.6, 9.5), abs=0.05)
    assert mean["cv"] == pytest.approx(0.83, abs=0.005)
    assert mean["entropy"] == pytest.approx(0.953, abs=0.0005)
    assert mean["rank_balancedness"] == pytest.approx(0.43, abs=0.005)
    assert mean["top_share"] == pytest.approx(0.34, abs=0.005)
