"""Choices drawn directly follow the law of those that are drawn through logits."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from moesim.errors import InputError
from moesim.workload import SyntheticTokens, direct
from moesim.workload.direct import DirectSampler
from moesim.workload.law import STANDING, LayerLaw

N_EXPERTS = 16


def tokens(**changes: Any) -> SyntheticTokens:
    """Two layers of 16 experts; 4 topics."""
    values: dict[str, Any] = {
        "seed": 5,
        "n_layers": 2,
        "n_experts": N_EXPERTS,
        "n_ranks": 1,
        "tokens_per_rank": 40_000,
        "phase": "decode",
        "sequence_tokens": 20,
        "zipf_exponent": 0.8,
        "topic_count": 4,
        "topic_strength": 0.5,
    }
    return SyntheticTokens(**{**values, **changes})


def directly(source: SyntheticTokens, step: int, top_k: int, first: int = 0, last: int = 40_000) -> np.ndarray:
    """Choices of layer 1."""
    out = np.empty((last - first, top_k), dtype=np.int32)
    source.experts(source.batch(step), 1, first, last, out)
    return out


def by_logits(source: SyntheticTokens, step: int, top_k: int) -> np.ndarray:
    """The largest logits of layer 1, in order."""
    logits = np.empty((40_000, N_EXPERTS), dtype=np.float32)
    source.logits(source.batch(step), 1, 0, 40_000, logits)
    return np.argsort(-logits, axis=1, kind="stable")[:, :top_k]


def drawn(logits: list[float], n_tokens: int, top_k: int) -> np.ndarray:
    """Choices of tokens of one layer with these popularities, without topics."""
    popularity = np.array(logits, dtype=np.float32)
    law = LayerLaw(popularity, np.zeros((1, len(logits)), dtype=np.float32), STANDING)
    out = np.empty((n_tokens, top_k), dtype=np.int32)
    DirectSampler(7).fill(0, 0, 0, law, np.zeros(n_tokens, dtype=np.int32), out)
    return out


def statistics(expert: np.ndarray) -> dict[str, np.ndarray]:
    """Frequencies of the first choice, of being among the choices, and of first and second choice as a pair."""
    n = len(expert)
    pair = expert[:, 0].astype(np.int64) * N_EXPERTS + expert[:, 1]
    return {
        "first": np.bincount(expert[:, 0], minlength=N_EXPERTS) / n,
        "inclusion": np.bincount(expert.ravel(), minlength=N_EXPERTS) / expert.size,
        "pair": np.bincount(pair, minlength=N_EXPERTS**2) / n,
        "last": np.bincount(expert[:, -1], minlength=N_EXPERTS) / n,
    }


@pytest.mark.parametrize("exponent", [0.2, 0.8, 3.0])
def test_the_law_is_that_of_the_logits(exponent: float) -> None:
    """Total variation distance between the two ways of at most twice that of two samples of one way (steps 0 and 1)."""
    source = tokens(zipf_exponent=exponent)
    a = statistics(directly(source, 0, 4))
    b, again = statistics(by_logits(source, 0, 4)), statistics(by_logits(source, 1, 4))
    for name, found in a.items():
        distance, noise = (0.5 * np.abs(other - b[name]).sum() for other in (found, again[name]))
        assert distance <= 2 * noise, name


def test_the_yardstick_tells_laws_apart() -> None:
    """A skew of 1.0 for 0.8 is further away than twice the noise."""
    b = statistics(by_logits(tokens(), 0, 4))
    again = statistics(by_logits(tokens(), 1, 4))
    other = statistics(directly(tokens(zipf_exponent=1.0), 0, 4))
    for name, found in other.items():
        assert 0.5 * np.abs(found - b[name]).sum() > 2 * 0.5 * np.abs(again[name] - b[name]).sum(), name


def plackett_luce(logits: list[float], top_k: int) -> dict[tuple[int, ...], float]:
    """The probability of every ordered choice."""
    weight = np.exp(np.array(logits))
    law = {}
    for order in permutations(range(len(logits)), top_k):
        left, chance = weight.sum(), 1.0
        for e in order:
            chance *= weight[e] / left
            left -= weight[e]
        law[order] = chance
    return law


@pytest.mark.parametrize("max_repeats", [0, 1, 2, 32])
def test_ordered_choices_are_plackett_luce(max_repeats: int) -> None:
    """Chi-square over all 60 ordered choices of 3 out of 5, whenever the sampler gives up repeating."""
    logits = [1.0, -0.5, 0.0, 0.3, -1.2]
    popularity = np.array(logits, dtype=np.float32)
    affinity = np.zeros((1, 5), dtype=np.float32)
    expert = np.empty((60_000, 3), dtype=np.int32)
    topic = np.zeros(len(expert), dtype=np.int32)
    tables = direct.alias_tables(popularity, affinity)
    direct.fill_choices(7, 0, 0, 0, popularity, affinity, tables, topic, max_repeats, expert)
    law = plackett_luce(logits, 3)
    counts = dict.fromkeys(law, 0)
    for order in map(tuple, expert.tolist()):
        counts[order] += 1
    expected = np.array([law[order] for order in law]) * len(expert)
    assert expected.min() > 5
    assert stats.chisquare(list(counts.values()), expected).pvalue > 1e-3


def test_a_collapsed_router_ends_and_keeps_its_law() -> None:
    """One expert has all but e^-60; the others follow it in proportion to their own weights, e : 1."""
    expert = drawn([60.0, 1.0, 0.0], 20_000, 3)
    assert (np.sort(expert, axis=1) == [0, 1, 2]).all()
    assert (expert[:, 0] == 0).all()
    second = int((expert[:, 1] == 1).sum())
    assert stats.binomtest(second, 20_000, math.e / (math.e + 1)).pvalue > 1e-3


def test_every_expert_can_be_chosen_at_once() -> None:
    """K = E is a permutation, also beyond what float64 can hold as a weight."""
    expert = drawn([0.0, -900.0, 5.0, -2000.0], 500, 4)
    assert (np.sort(expert, axis=1) == np.arange(4)).all()
    assert (expert[:, 2:] == [1, 3]).all()


def test_experts_that_nobody_wants_are_never_chosen() -> None:
    """-inf is probability 0; more choices than wanted experts are refused."""
    logits = [0.0, -np.inf, 1.0, -np.inf, 30.0]
    assert set(np.unique(drawn(logits, 3000, 3))) == {0, 2, 4}
    with pytest.raises(InputError, match="top_k: found 4, wanted at most the 3"):
        drawn(logits, 10, 4)
    for wrong in ([0.0, np.nan], [0.0, np.inf], [-np.inf, -np.inf]):
        with pytest.raises(InputError):
            drawn(wrong, 10, 1)


@pytest.mark.parametrize("exponent", [0.3, 3.0])
def test_a_token_does_not_depend_on_its_block_or_on_k(exponent: float) -> None:
    """Blocks are pieces of the whole, a smaller top_k reads the first choices, also where logits decide."""
    source = tokens(zipf_exponent=exponent)
    whole = directly(source, 3, 6, last=2000)
    for first, last in ((0, 1), (17, 60), (1999, 2000)):
        np.testing.assert_array_equal(directly(source, 3, 6, first, last), whole[first:last])
    for top_k in range(1, 6):
        np.testing.assert_array_equal(directly(source, 3, top_k, last=2000), whole[:, :top_k])
    assert (np.sort(whole, axis=1)[:, 1:] > np.sort(whole, axis=1)[:, :-1]).all()


def test_a_draw_depends_on_step_layer_and_seed() -> None:
    """Else tokens would repeat."""
    here = directly(tokens(), 3, 4)
    other_layer = np.empty_like(here)
    tokens().experts(tokens().batch(3), 0, 0, 40_000, other_layer)
    for other in (directly(tokens(), 4, 4), directly(tokens(seed=6), 3, 4), other_layer):
        assert 0.5 < (other != here).mean() < 1


def test_tables_are_the_same_every_time() -> None:
    """Bit for bit."""
    rng = np.random.default_rng(1)
    popularity, affinity = rng.normal(size=(2, 64)).astype(np.float32)[0], rng.normal(size=(3, 64)).astype(np.float32)
    np.testing.assert_array_equal(direct.alias_tables(popularity, affinity), direct.alias_tables(popularity, affinity))
