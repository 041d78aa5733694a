"""Patterns deal exact numbers of distinct experts, from workload, seed and step alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import InputError, ParameterError
from moesim.workload import PATTERNS, Batches, Dealer, DealtTokens, Pattern


def dealer(kind: str, ranks: int = 16, n_experts: int = 256, seed: int = 3, **fields: Any) -> Dealer:
    """Of 256 experts on 16 ranks."""
    return Dealer(Pattern(kind=kind, ranks=ranks, **fields), seed=seed, n_experts=n_experts)


def dealt(of: Dealer, n_tokens: int, top_k: int = 8, step: int = 0, layer: int = 0, group: int = 0) -> np.ndarray:
    """Experts of the tokens of a group, distinct for each token."""
    expert = np.full((n_tokens, top_k), -7, dtype=np.int32)
    of.fill(step, layer, group, expert)
    ordered = np.sort(expert, axis=1)
    assert ordered.min(initial=0) >= 0
    assert (ordered[:, 1:] > ordered[:, :-1]).all()
    return expert


def ranks_of(expert: np.ndarray, ranks: int = 16, n_experts: int = 256) -> np.ndarray:
    """Assignments of each rank of consecutive experts."""
    return np.bincount(expert.ravel() // (n_experts // ranks), minlength=ranks)


def experts_of(expert: np.ndarray, n_experts: int = 256) -> np.ndarray:
    """Assignments of each expert."""
    return np.bincount(expert.ravel(), minlength=n_experts)


def test_balanced_is_balanced_over_ranks_at_every_step() -> None:
    """256 experts, top-8, 16 ranks, 8 tokens: 4 choices on every rank; round robin by expert gives 8, 0, 8, 0, ..."""
    of = dealer("balanced")
    for step in range(20):
        assert ranks_of(dealt(of, 8, step=step, layer=step % 3)).tolist() == [4] * 16
    assert experts_of(dealt(of, 8)).max() == 1
    assert (dealt(of, 8, step=1) != dealt(of, 8)).any()


@given(
    local=st.integers(1, 6),
    ranks=st.integers(1, 9),
    top_k=st.integers(1, 12),
    n_tokens=st.integers(1, 60),
    step=st.integers(0, 10**7),
)
def test_balanced_in_any_shape(local: int, ranks: int, top_k: int, n_tokens: int, step: int) -> None:
    """Counts of ranks, and of experts, differ by one at most, and experts of a token by all."""
    n_experts = local * ranks
    top_k = min(top_k, n_experts)
    expert = dealt(dealer("balanced", ranks, n_experts), n_tokens, top_k, step)
    assert np.ptp(ranks_of(expert, ranks, n_experts)) <= 1
    assert np.ptp(experts_of(expert, n_experts)) <= 1


@given(
    kind=st.sampled_from(sorted(PATTERNS)),
    local=st.integers(2, 6),
    ranks=st.integers(2, 6),
    top_k=st.integers(1, 6),
    n_tokens=st.integers(1, 40),
    share=st.floats(0.01, 1.0),
    step=st.integers(0, 1000),
    seed=st.integers(0, 2**62),
)
def test_every_pattern_gives_distinct_experts(
    kind: str, local: int, ranks: int, top_k: int, n_tokens: int, share: float, step: int, seed: int
) -> None:
    """In any shape that it does not refuse."""
    of = dealer(kind, ranks, local * ranks, seed, share=share, experts=2)
    try:
        of.check(top_k)
    except ParameterError:
        return
    expert = dealt(of, n_tokens, top_k, step)
    np.testing.assert_array_equal(expert, dealt(of, n_tokens, top_k, step))


def test_a_share_of_the_tokens_goes_to_hot_experts() -> None:
    """30 % of 1,000 tokens to 16 experts: 2,400 of the assignments, 150 each; the rest evenly to 240 others."""
    expert = dealt(dealer("hot-experts", share=0.3, experts=16), 1000)
    count = np.sort(experts_of(expert))
    assert count[-16:].tolist() == [150] * 16
    assert count[:-16].sum() == 700 * 8
    assert np.ptp(count[:-16]) <= 1
    hot = np.flatnonzero(experts_of(expert) == 150)
    inside = np.isin(expert, hot)
    assert set(inside.sum(axis=1)) == {0, 8}
    assert [int(part.all(axis=1).sum()) for part in np.split(inside, 10)] == [30] * 10  # spread over the sources


def test_fewer_hot_experts_than_choices() -> None:
    """Each token of the share takes all three, and five others."""
    expert = dealt(dealer("hot-experts", share=0.25, experts=3), 400)
    count = np.sort(experts_of(expert))
    assert count[-3:].tolist() == [100] * 3
    assert np.ptp(count[:-3]) <= 1


def test_hot_sets_stay_over_steps_and_differ_by_layer() -> None:
    """The hot experts of layer 0 are the same in steps 0 and 9, those of layer 1 are others."""
    of = dealer("hot-experts", share=0.5, experts=8)

    def hot(step: int, layer: int) -> set[int]:
        return set(np.argsort(experts_of(dealt(of, 512, step=step, layer=layer)))[-8:].tolist())

    assert hot(0, 0) == hot(9, 0) != hot(0, 1)


def test_hot_rank() -> None:
    """Half of the tokens take all choices from the 16 experts of rank 5; the others go to the other ranks."""
    count = ranks_of(dealt(dealer("hot-rank", share=0.5, rank=5), 300))
    assert count[5] == 150 * 8
    assert np.delete(count, 5).sum() == 150 * 8


def test_spread_hot_experts_leave_ranks_even() -> None:
    """32 hot experts, 2 on each of 16 ranks."""
    expert = dealt(dealer("spread-hot-experts", share=0.5, experts=32), 512)
    count = experts_of(expert)
    hot = np.argsort(count)[-32:]
    assert np.bincount(hot // 16, minlength=16).tolist() == [2] * 16
    assert count[hot].tolist() == [64] * 32
    ranks = ranks_of(expert)
    assert ranks.max() / ranks.mean() < 1.05
    four = dealt(dealer("spread-hot-experts", share=0.5, experts=4), 512)
    assert len(set(np.argsort(experts_of(four))[-4:] // 16)) == 4


def test_idle_rank() -> None:
    """Rank 3 has no token, the others equally many."""
    for step in range(3):
        count = ranks_of(dealt(dealer("idle-rank", rank=3), 30, step=step))
        assert count[3] == 0
        assert np.delete(count, 3).tolist() == [16] * 15


def test_the_hot_spot_rotates() -> None:
    """A rank for four steps, then the next one, and round again."""
    of = dealer("rotating-hot-spot", ranks=4, share=0.5, every_steps=4)
    hottest = [int(ranks_of(dealt(of, 100, step=step), 4).argmax()) for step in range(20)]
    assert hottest == [step // 4 % 4 for step in range(20)]


def test_a_burst_at_the_end_of_every_period() -> None:
    """Two of five steps."""
    of = dealer("burst", share=0.5, experts=8, every_steps=5, duration_steps=2)
    hottest = [experts_of(dealt(of, 512, step=step)).max() for step in range(10)]
    assert [count > 100 for count in hottest] == [False, False, False, True, True] * 2


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0])
def test_ragged_sources(factor: float) -> None:
    """The fullest rank has factor times the mean, the total stays, choices stay balanced."""
    of = dealer("ragged-sources", ranks=8, factor=factor)
    counts = of.source_counts(8, 100)
    assert counts.sum() == 800
    assert counts.max() == 100 * factor
    assert counts.min() == 100 * (2 - factor)
    batches = Batches(seed=3, counts=counts, decodes=False, sequence_tokens=30)
    source = DealtTokens(of, batches, n_groups=1, n_ranks=8)
    batch = source.batch(4)
    assert np.bincount(batch.source, minlength=8).tolist() == counts.tolist()
    assert ranks_of(source.choices(batch, 2, 8).expert, 8).tolist() == [800] * 8
    with pytest.raises(InputError, match="no logits"):
        source.logits(batch, 0, 0, 1, np.empty((1, 256), dtype=np.float32))


def test_groups_are_dealt_for_themselves() -> None:
    """Two groups of 8 ranks: each has 4 tokens of 8 choices, 4 for each of its ranks."""
    of = dealer("balanced", ranks=8)
    batches = Batches(seed=3, counts=np.full(16, 1), decodes=True, sequence_tokens=1)
    expert = DealtTokens(of, batches, n_groups=2, n_ranks=16).choices(batches.at(0), 0, 8).expert
    for part in np.split(expert, 2):
        assert ranks_of(part, 8).tolist() == [8] * 8


@pytest.mark.parametrize(
    "kind, fields, top_k, message",
    [
        ("balanced", {"ranks": 7}, 8, "ranks: found 7, wanted a number that divides the 256"),
        ("hot-rank", {"rank": 16}, 8, "rank: found 16, wanted 0 to 15"),
        ("hot-experts", {"experts": 256}, 8, "experts: found 256, wanted 1 to 255"),
        ("hot-experts", {"experts": 250}, 8, "experts: found 250, wanted 8 experts or more.* there are 6"),
        ("idle-rank", {"ranks": 1}, 8, "ranks: found 1, wanted 8 experts or more"),
        ("burst", {"experts": 250}, 8, "experts: found 250, wanted 8 experts or more"),
    ],
)
def test_what_cannot_be_dealt_is_refused(kind: str, fields: dict[str, Any], top_k: int, message: str) -> None:
    """The parameter, what was found and what would be right."""
    with pytest.raises(ParameterError, match=message):
        dealer(kind, **fields).check(top_k)
