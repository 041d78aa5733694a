"""The fit of the generator's parameters: what was put in comes out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.recordings.drawing import drawn_trace
from moesim.recordings.fitting import between_sequences, fit_popularity
from moesim.recordings.parquet import read_trace, write_trace
from moesim.recordings.shrinkage import noise_of_shares, shrunk_shares
from moesim.scenario.fitted import fitted_path, read_popularity
from moesim.types import CountsTrace, FittedPopularity, LogitsTrace, token_columns

SHIPPED = Path(__file__).parents[2] / "scenarios" / "mixtral-synthetic.parquet"


def law(strength: float, locality: float, n_layers: int = 6) -> FittedPopularity:
    """Two experts in 16 with three times the load of the others, others in each layer."""
    shares = np.ones((n_layers, 16))
    for layer, row in enumerate(shares):
        row[[layer, layer + 7]] = 3
    return FittedPopularity(
        source="",
        model="",
        n_experts=16,
        top_k=2,
        layers=tuple(range(n_layers)),
        shares=shares / shares.sum(axis=1, keepdims=True),
        locality=(locality,) * n_layers,
        topic_count=32 if strength else 0,
        topic_strength=strength,
    )


def test_what_was_put_in_comes_out() -> None:
    """Strength and locality within a tenth, shares within their sampling error, from 32 sequences of 128 tokens."""
    stated = law(strength=0.6, locality=0.5)
    found = fit_popularity(drawn_trace(stated, name="law", n_sequences=32, sequence_tokens=128, seed=5))
    assert found.topic_count == 16  # of the 32 topics those that 32 sequences were hashed to
    assert found.topic_strength == pytest.approx(0.6, rel=0.15)
    assert np.mean(found.locality) == pytest.approx(0.5, abs=0.05)
    assert np.abs(found.shares - stated.shares).max() < 0.06


def test_topics_are_as_many_as_wanted_or_as_there_are_sequences() -> None:
    """Where none were recorded; fewer and stronger ones would make sequences differ as far."""
    drawn = drawn_trace(law(strength=0.6, locality=0.0, n_layers=3), name="law", n_sequences=12, sequence_tokens=64)
    unknown = dataclasses.replace(drawn, topic=np.full_like(drawn.topic, -1))
    assert fit_popularity(unknown).topic_count == 12
    assert fit_popularity(unknown, topics=4).topic_count == 4


def test_nothing_comes_out_where_nothing_was_put_in() -> None:
    """Neither topics nor locality of an even router, and shares that are even to within 3 % of the mean."""
    even = FittedPopularity(
        source="", model="", n_experts=16, top_k=2, layers=(0, 1, 2), shares=np.full((3, 16), 1 / 16)
    )
    found = fit_popularity(drawn_trace(even, name="even", n_sequences=16, sequence_tokens=128))
    assert (found.topic_count, found.topic_strength) == (0, 0)
    assert max(found.locality) < 0.12
    assert np.abs(found.shares * 16 - 1).max() < 0.12
    assert any("no topics" in note for note in found.notes)


def test_shrinkage_takes_out_the_noise() -> None:
    """In the mean of 400 recordings the spread of shrunk shares is that of the true ones, the raw one is larger."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.full(32, 8.0))
    draws = [rng.multinomial(16, true, size=(40, 1)) for _ in range(400)]  # 40 groups of one layer
    spread = np.mean([((shrunk_shares(counts)[0] - 1 / 32) ** 2).sum() for counts in draws])
    raw = np.mean([((counts.sum(axis=(0, 1)) / counts.sum() - 1 / 32) ** 2).sum() for counts in draws])
    assert spread == pytest.approx(((true - 1 / 32) ** 2).sum(), rel=0.05)
    assert raw > 1.1 * spread
    noise = np.mean([noise_of_shares(counts)[0] for counts in draws])
    assert noise == pytest.approx((1 - (true**2).sum()) / (16 * 40), rel=0.05)


def test_counts_give_shares_alone() -> None:
    """Without the layers of zeros."""
    counts = np.zeros((1, 3, 4), dtype=np.int64)
    counts[0, 1:] = [[6000, 2000, 1000, 1000], [1000, 1000, 2000, 6000]]
    recording = CountsTrace(
        count=counts, step=np.array([0]), phase=np.array([-1], dtype=np.int8), layer_ids=(0, 1, 2), n_experts=4
    )
    found = fit_popularity(recording)
    assert found.layers == (1, 2)
    assert found.shares[0] == pytest.approx([0.6, 0.2, 0.1, 0.1], abs=1e-3)
    assert (found.topic_count, found.locality) == (0, ())


def test_logits_are_refused() -> None:
    """One sentence."""
    logits = LogitsTrace(logits=np.zeros((1, 2, 4), np.float32), **token_columns(2), layer_ids=(0,), n_experts=4)
    with pytest.raises(TraceError, match="found logits, wanted choices or counts"):
        fit_popularity(logits)


def test_differences_between_sequences_are_free_of_sampling_noise() -> None:
    """Near zero where all sequences have one law, however short they are."""
    rng = np.random.default_rng(1)
    expert = rng.random((4, 2048, 8)).argsort(axis=2)[..., :2].astype(np.int32)
    found, n_sequences = between_sequences(expert, np.arange(2048, dtype=np.int32) // 32, 8)
    assert n_sequences == 64
    assert abs(found.mean()) < 0.01


def test_the_shipped_recording_is_drawn_by_its_command(tmp_path: Path) -> None:
    """The bytes of the trace that mixtral-recorded replays; it says that it is no recording."""
    fit, _ = read_popularity(fitted_path("mixtral-8x7b-gsm8k"))
    drawn = drawn_trace(fit, name="mixtral-8x7b-gsm8k", n_sequences=8, sequence_tokens=64)
    write_trace(drawn, tmp_path / "trace.parquet")
    found, shipped = read_trace(tmp_path / "trace.parquet"), read_trace(SHIPPED)
    assert shipped.synthetic
    assert "no recording" in shipped.notes[0]
    assert found == shipped or np.array_equal(found.expert, shipped.expert)  # type: ignore[union-attr]
