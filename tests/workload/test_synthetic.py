"""Synthetic tokens follow the law they state, and any of them can be computed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from moesim.workload import SyntheticTokens


def tokens(**changes: Any) -> SyntheticTokens:
    """Two ranks, three layers, eight experts."""
    values: dict[str, Any] = {
        "seed": 5,
        "n_layers": 3,
        "n_experts": 8,
        "n_ranks": 2,
        "tokens_per_rank": 50,
        "phase": "decode",
        "sequence_tokens": 20,
    }
    return SyntheticTokens(**{**values, **changes})


def logits(source: SyntheticTokens, step: int = 0, layer: int = 0, first: int = 0, last: int = 100) -> np.ndarray:
    """Logits as a new array."""
    out = np.empty((last - first, 8), dtype=np.float32)
    source.logits(source.batch(step), layer, first, last, out)
    return out


def test_without_skew_logits_are_standard_gumbel() -> None:
    """Kolmogorov-Smirnov against the law."""
    sample = logits(tokens(tokens_per_rank=2000), last=4000).ravel()
    assert stats.kstest(sample, "gumbel_r").pvalue > 1e-3


def test_top_1_is_drawn_in_proportion_to_the_zipf_popularity() -> None:
    """Exponent 1: the shares of the experts, sorted, are 1, 1/2, 1/3, ... of their sum."""
    choice = logits(tokens(tokens_per_rank=20_000, zipf_exponent=1.0), last=40_000).argmax(axis=1)
    counts = np.sort(np.bincount(choice, minlength=8))[::-1]
    share = 1 / np.arange(1, 9)
    assert stats.chisquare(counts, 40_000 * share / share.sum()).pvalue > 1e-3


def test_layers_have_an_order_of_experts_of_their_own() -> None:
    """The hottest expert is not the same in every layer."""
    source = tokens(n_layers=16, zipf_exponent=2.0, tokens_per_rank=500)
    hottest = {int(np.bincount(logits(source, layer=i, last=1000).argmax(axis=1)).argmax()) for i in range(16)}
    assert len(hottest) > 3


def test_blocks_are_pieces_of_the_whole() -> None:
    """A token's logits do not depend on who is computed with it."""
    source = tokens(topic_count=4, topic_strength=1.0, zipf_exponent=0.5)
    whole = logits(source, step=3, layer=1)
    np.testing.assert_array_equal(logits(source, step=3, layer=1, first=17, last=60), whole[17:60])
    assert (logits(source, step=4, layer=1) != whole).any()
    assert (logits(source, step=3, layer=2) != whole).any()
    assert (
        logits(tokens(seed=6, topic_count=4, topic_strength=1.0, zipf_exponent=0.5), step=3, layer=1) != whole
    ).any()


def test_decode_keeps_its_sequences_and_prefill_brings_new_ones() -> None:
    """50 tokens a rank in sequences of 20: 20, 20 and 10."""
    decode = tokens()
    np.testing.assert_array_equal(decode.batch(0).sequence, np.arange(100))
    np.testing.assert_array_equal(decode.batch(9).sequence, np.arange(100))
    prefill = tokens(phase="prefill")
    first, second = prefill.batch(0), prefill.batch(1)
    assert np.bincount(first.sequence).tolist() == [20, 20, 10, 20, 20, 10]
    np.testing.assert_array_equal(second.sequence, first.sequence + 6)
    np.testing.assert_array_equal(first.source, np.repeat([0, 1], 50))


def test_tokens_of_a_sequence_share_a_topic() -> None:
    """With strong topics and no popularity the mean logits of two sequences of one topic agree."""
    source = tokens(phase="prefill", tokens_per_rank=4000, sequence_tokens=500, topic_count=2, topic_strength=3.0)
    batch = source.batch(0)
    values = logits(source, last=8000)
    means = np.array([values[batch.sequence == s].mean(axis=0) for s in np.unique(batch.sequence)])
    distances = np.abs(means[:, None] - means[None]).max(axis=2)
    same = distances < 0.5
    assert 1 < len({tuple(row) for row in same}) <= 2  # two topics, each sequence in one of them
    assert (distances[~same] > 1).all()


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_topic_shifts_nothing_between_sequences(count: int) -> None:
    """Without topics the sequence has no influence on the logits."""
    a = logits(tokens(topic_count=count, topic_strength=0.0, phase="prefill"))
    b = logits(tokens(topic_count=count, topic_strength=0.0, phase="decode"))
    np.testing.assert_array_equal(a, b)


def test_no_topics_are_as_topics_without_strength() -> None:
    """A strength acts through topics: with none of them it is not one topic of all tokens."""
    none, weak = tokens(topic_count=0, topic_strength=2.0), tokens(topic_count=3, topic_strength=0.0)
    np.testing.assert_array_equal(logits(none), logits(weak))
    assert (logits(tokens(topic_count=1, topic_strength=2.0)) != logits(weak)).any()
    choices = [np.empty((100, 2), dtype=np.int32) for _ in range(2)]
    for source, own in zip((none, weak), choices, strict=True):
        source.experts(source.batch(0), 0, 0, 100, own)
    np.testing.assert_array_equal(choices[0], choices[1])
