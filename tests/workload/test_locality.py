"""Locality: tokens of a segment share noise, which keeps the law of a token and raises the overlap of near ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from moesim.workload import SyntheticTokens
from moesim.workload.logits import SEGMENT_TOKENS, fill_local_logits, fill_logits

N_EXPERTS = 16


def tokens(locality: float, **changes: Any) -> SyntheticTokens:
    """One layer of 16 experts; a rank with prompts of 64 tokens."""
    values: dict[str, Any] = {
        "seed": 5,
        "n_layers": 1,
        "n_experts": N_EXPERTS,
        "n_ranks": 1,
        "tokens_per_rank": 6400,
        "phase": "prefill",
        "sequence_tokens": 64,
        "zipf_exponent": 0.5,
        "locality": np.array([locality]),
    }
    return SyntheticTokens(**{**values, **changes})


def logits(source: SyntheticTokens, step: int = 0, first: int = 0, last: int = 6400) -> np.ndarray:
    """Logits of layer 0."""
    out = np.empty((last - first, N_EXPERTS), dtype=np.float32)
    source.logits(source.batch(step), 0, first, last, out)
    return out


def chosen(values: np.ndarray, top_k: int = 4) -> np.ndarray:
    """Whether each token chooses each expert."""
    order = np.argsort(-values, axis=1)[:, :top_k]
    mask = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(mask, order, True, axis=1)
    return mask


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Part of its experts that a token shares with another, of masks."""
    return float((one & other).sum(axis=1).mean() / one.sum(axis=1).mean())


def test_locality_of_nothing_is_no_locality() -> None:
    """The kernel with probability 0 gives the bits of the one without, also where a segment is looked at."""
    popularity = np.linspace(0, 1, N_EXPERTS).astype(np.float32)
    affinity, topic = np.zeros((1, N_EXPERTS), dtype=np.float32), np.zeros(50, dtype=np.int32)
    place = np.arange(50, dtype=np.int32)
    plain, local = np.empty((2, 50, N_EXPERTS), dtype=np.float32)
    fill_logits(3, 1, 2, 4, popularity, affinity, topic, plain)
    fill_local_logits(3, 1, 2, 4, popularity, affinity, topic, 0.0, place, place, local)
    np.testing.assert_array_equal(plain, local)


@pytest.mark.parametrize("locality", [0.1, 0.5, 1.0])
def test_a_logit_keeps_its_law(locality: float) -> None:
    """Kolmogorov-Smirnov on one token a segment, whose logits are independent; false alarms: 3 in 1,000."""
    source = tokens(locality, zipf_exponent=0.0, tokens_per_rank=64 * 400)
    sample = logits(source, last=64 * 400)[::SEGMENT_TOKENS]
    assert stats.kstest(sample.ravel(), "gumbel_r").pvalue > 1e-3
    second = logits(source, last=64 * 400)[3::SEGMENT_TOKENS]
    assert stats.kstest(second.ravel(), "gumbel_r").pvalue > 1e-3


@pytest.mark.parametrize("locality", [0.25, 0.75])
def test_the_probability_is_the_stated_one(locality: float) -> None:
    """Neighbours in a segment have a logit in common with its square; binomial, false alarms: 2 in 1,000."""
    values = logits(tokens(locality)).reshape(-1, SEGMENT_TOKENS, N_EXPERTS)
    same = values[:, 0] == values[:, 1]
    assert stats.binomtest(int(same.sum()), same.size, locality**2).pvalue > 1e-3
    assert (values[:-1, -1] != values[1:, 0]).all()  # not across the border of two segments


def test_overlap_grows_with_locality_and_loads_stay() -> None:
    """Overlap of neighbours inside segments from chance to all; the mean load of the experts is the same law."""
    found, loads = [], []
    for locality in (0.0, 0.3, 0.6, 1.0):
        masks = chosen(logits(tokens(locality))).reshape(-1, SEGMENT_TOKENS, N_EXPERTS)
        found.append(overlap(masks[:, 2], masks[:, 3]))
        loads.append(masks[:, 0].mean(axis=0))
    assert found == sorted(found)
    assert found[0] < 0.4
    assert found[-1] == 1.0
    noise = np.sqrt(0.25 / len(masks))
    assert np.abs(np.array(loads) - loads[0]).max() < 5 * np.sqrt(2) * noise


def test_in_decode_a_segment_is_steps_of_a_sequence() -> None:
    """With locality 1 a sequence chooses alike for 8 steps; sequences turn in steps of their own."""
    source = tokens(1.0, phase="decode", tokens_per_rank=400)
    runs = np.stack([logits(source, step, last=400).argmax(axis=1) for step in range(40)])
    alike = np.stack([(logits(source, s, last=400) == logits(source, s + 1, last=400)).all(axis=1) for s in range(16)])
    turns = ~alike
    assert (turns.sum(axis=0) == 2).all()  # once in 8 steps
    assert turns[:8].sum(axis=1).min() > 20  # of 400, 50 are expected in each step
    assert (runs[:, 0] != runs[:, 1]).any()
    np.testing.assert_array_equal(turns[:8], turns[8:])


def test_a_token_can_be_computed_alone() -> None:
    """Blocks are pieces of the whole, also where they begin within a segment; any step is computed alone."""
    for phase in ("prefill", "decode"):
        source = tokens(0.5, phase=phase)
        whole = logits(source, step=11)
        np.testing.assert_array_equal(logits(tokens(0.5, phase=phase), step=11, first=13, last=70), whole[13:70])
