"""Drift, bursts and mixtures of topics over the steps; each step can be computed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from moesim.workload import Bursts, Mixture, SyntheticTokens
from moesim.workload.dynamics import burst_at, burst_experts
from moesim.workload.law import Law

N_EXPERTS = 64


def tokens(**changes: Any) -> SyntheticTokens:
    """Two layers of 64 experts; 1,000 sequences that decode."""
    values: dict[str, Any] = {
        "seed": 5,
        "n_layers": 2,
        "n_experts": N_EXPERTS,
        "n_ranks": 1,
        "tokens_per_rank": 1000,
        "phase": "decode",
        "sequence_tokens": 50,
        "zipf_exponent": 0.8,
    }
    return SyntheticTokens(**{**values, **changes})


def logits(source: SyntheticTokens, step: int, layer: int = 0) -> np.ndarray:
    """Logits of all tokens of a step."""
    out = np.empty((source.tokens_per_step, N_EXPERTS), dtype=np.float32)
    source.logits(source.batch(step), layer, 0, len(out), out)
    return out


def law(**changes: Any) -> Law:
    """400 layers of 64 experts of a Zipf law."""
    values: dict[str, Any] = {"seed": 3, "n_layers": 400, "n_experts": N_EXPERTS, "n_topics": 1, "strength": 0.0}
    return Law(**{**values, "popularity": 0.7, "half_life_steps": 100.0, **changes})


@pytest.mark.parametrize("step, wanted", [(0, 1.0), (50, np.cos(np.pi / 6)), (100, 0.5), (150, 0.0), (900, 0.0)])
def test_correlation_with_the_start_is_one_half_after_the_half_life(step: int, wanted: float) -> None:
    """Mean over 400 layers, each of chance 1 / sqrt(63): within 4 of its standard errors, 1 false alarm in 16,000."""
    drifting = law()
    found = [np.corrcoef(drifting.popularity[layer], drifting.at(step, layer).popularity)[0, 1] for layer in range(400)]
    assert np.mean(found) == pytest.approx(wanted, abs=4 / np.sqrt(63 * 400))


@pytest.mark.parametrize("step", [17, 150, 333])
def test_drift_keeps_how_unequal_experts_are(step: int) -> None:
    """Mean and standard deviation of the popularity stay; experts without load have none later."""
    stated = np.array([[1.0, 2.0, -50.0, 0.5, 0.1, -50.0]], dtype=np.float32)
    drifting = law(n_layers=1, n_experts=6, popularity=lambda affinity: stated)
    moved = drifting.at(step, 0).popularity
    assert (moved[[2, 5]] == -50).all()
    alive = [0, 1, 3, 4]
    assert moved[alive].std() == pytest.approx(stated[0, alive].std(), rel=1e-5)
    assert moved[alive].mean() == pytest.approx(stated[0, alive].mean(), rel=1e-5)
    assert np.abs(moved[alive] - stated[0, alive]).max() > 0.05


def test_without_drift_nothing_moves() -> None:
    """Bit for bit, and the first step of a drift is the popularity itself."""
    np.testing.assert_array_equal(law(half_life_steps=None).at(77, 3).popularity, law().popularity[3])
    np.testing.assert_array_equal(law().at(0, 3).popularity, law().popularity[3])
    np.testing.assert_array_equal(logits(tokens(half_life_steps=9.0), 0), logits(tokens(), 0))


def test_choices_drawn_directly_drift_too() -> None:
    """First choices of 20,000 tokens by logits and directly, in a step of a burst and a drift; chi-square, 1e-3."""
    changes = {"half_life_steps": 5.0, "bursts": Bursts(share=0.4, experts=5, every_steps=1, duration_steps=1)}
    source = tokens(n_ranks=20, **changes)
    expert = np.empty((20_000, 3), dtype=np.int32)
    for step in (3, 4):
        batch = source.batch(step)
        source.experts(batch, 1, 0, 20_000, expert)
        table = [np.bincount(first, minlength=N_EXPERTS) for first in (expert[:, 0], logits(source, step, 1).argmax(1))]
        assert stats.chi2_contingency(np.array(table) + 1e-9).pvalue > 1e-3


def test_one_burst_in_every_so_many_steps() -> None:
    """Three steps in a row out of ten, not always the same ones."""
    bursts = Bursts(share=0.5, experts=4, every_steps=10, duration_steps=3)
    number = np.array([burst_at(5, bursts, step) for step in range(1000)]).reshape(100, 10)
    assert ((number == np.arange(100)[:, None]).sum(axis=1) == 3).all()
    first = (number >= 0).argmax(axis=1)
    assert set(first) == set(range(8))
    assert (np.diff(np.flatnonzero(number[0] >= 0)) == 1).all()


def test_a_share_of_the_tokens_turns_to_a_few_experts() -> None:
    """All their choices are among them; binomial share, false alarms 1 in 1,000. The others choose as ever."""
    bursts = Bursts(share=0.3, experts=6, every_steps=20, duration_steps=2)
    source = tokens(n_ranks=10, bursts=bursts)
    step = next(step for step in range(20) if burst_at(5, bursts, step) == 0)
    hot = burst_experts(5, bursts, 0, 1, N_EXPERTS)
    values = logits(source, step, 1)
    chosen = np.argsort(-values, axis=1)[:, :6]
    turned = np.isin(chosen, hot).all(axis=1)
    assert stats.binomtest(int(turned.sum()), 10_000, 0.3).pvalue > 1e-3
    calm = logits(tokens(n_ranks=10), step, 1)
    np.testing.assert_array_equal(values[~turned], calm[~turned])
    np.testing.assert_array_equal(values[:, hot], calm[:, hot])
    np.testing.assert_array_equal(logits(source, 19, 1), logits(tokens(n_ranks=10), 19, 1))
    assert set(burst_experts(5, bursts, 1, 1, N_EXPERTS)) != set(hot)


def mixture() -> Mixture:
    """Topic 0 alone until step 100, topic 2 alone from step 200."""
    return Mixture(steps=np.array([100, 200]), weights=np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 5.0]]))


@pytest.mark.parametrize("step, wanted", [(0, 1.0), (100, 1.0), (150, 0.5), (180, 0.2), (200, 0.0), (999, 0.0)])
def test_the_topics_of_new_sequences_follow_the_mixture(step: int, wanted: float) -> None:
    """Prompts: part of 2,000 sequences that are of topic 0; binomial, false alarms 1 in 1,000."""
    source = tokens(
        phase="prefill", n_ranks=100, sequence_tokens=50, topic_count=3, topic_strength=1.0, mixture=mixture()
    )
    batch = source.batch(step)
    topic = np.array([np.unique(batch.topic[batch.sequence == s]).item() for s in np.unique(batch.sequence)[:400]])
    assert set(topic) <= {0, 2}
    assert stats.binomtest(int((topic == 0).sum()), len(topic), wanted).pvalue > 1e-3


def test_in_decode_topics_change_as_sequences_end() -> None:
    """Each place has a new sequence every 40 steps; the old topic is gone 40 steps after no sequence begins with it."""
    source = tokens(topic_count=3, topic_strength=1.0, mixture=mixture(), generated_tokens=40)
    share = {step: (source.batch(step).topic == 0).mean() for step in (90, 150, 199, 239)}
    assert share[90] == 1.0
    assert 0.6 < share[150] < 0.8  # begun in steps 111 to 150: 0.89 to 0.5
    assert 0.1 < share[199] < 0.3
    assert share[239] == 0.0
    before, after = source.batch(60), source.batch(61)
    renewed = before.sequence != after.sequence
    assert 8 < renewed.sum() < 50  # 25 of 1,000 are expected
    assert len(set(after.sequence)) == 1000
    assert not np.isin(after.sequence[renewed], before.sequence).any()


def test_a_sequence_has_one_topic_in_every_phase() -> None:
    """Prompts and decoding sequences of the same numbers."""
    decode = tokens(topic_count=7, topic_strength=1.0).batch(3)
    prefill = tokens(topic_count=7, topic_strength=1.0, phase="prefill").batch(2)
    topic = dict(zip(decode.sequence.tolist(), decode.topic.tolist(), strict=True))
    assert len(set(prefill.topic)) > 3
    assert all(topic[s] == of for s, of in zip(prefill.sequence.tolist(), prefill.topic.tolist(), strict=True))


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_any_step_alone_is_that_of_the_run(phase: str) -> None:
    """With everything at once, after 30 other steps and without them, in blocks and whole."""
    changes: dict[str, Any] = {
        "phase": phase,
        "half_life_steps": 11.0,
        "bursts": Bursts(share=0.4, experts=5, every_steps=4, duration_steps=2),
        "topic_count": 3,
        "topic_strength": 0.5,
        "mixture": mixture(),
        "generated_tokens": 6,
        "locality": np.array([0.4, 0.0]),
    }
    run, alone = tokens(**changes), tokens(**changes)
    for step in range(30):
        run.logits(run.batch(step), 0, 0, 1000, np.empty((1000, N_EXPERTS), dtype=np.float32))
    for layer in (0, 1):
        whole = logits(run, 30, layer)
        part = np.empty((77, N_EXPERTS), dtype=np.float32)
        alone.logits(alone.batch(30), layer, 500, 577, part)
        np.testing.assert_array_equal(part, whole[500:577])
