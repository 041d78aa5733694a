"""Routers beside the first few equal plain NumPy references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.optimize import linear_sum_assignment

from moesim import route
from moesim.errors import InputError
from tests.interpreted import enough

LOGITS = st.tuples(st.integers(1, 10), st.just(12)).flatmap(
    lambda shape: arrays(
        np.float32,
        shape,
        elements=st.one_of(st.floats(-20, 20, width=32), st.sampled_from([0.0, 1.0, 1e4, -1e4])),
    )
)


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """The k best columns of each row, the lowest index first among equals."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def softmax(x: np.ndarray) -> np.ndarray:
    """In float64, over the last axis."""
    e = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


@given(LOGITS, st.integers(1, 12))
def test_gpt_oss_is_the_softmax_over_the_chosen(x: np.ndarray, k: int) -> None:
    """Top-k of the raw logits."""
    got = route(x, strategy="gpt-oss", top_k=k)
    np.testing.assert_array_equal(got.expert, best(x, k))
    np.testing.assert_allclose(got.weight, softmax(np.take_along_axis(x, got.expert, 1)), rtol=5e-6, atol=1e-35)


@given(LOGITS, st.integers(1, 4))
def test_llama4_weighs_by_the_sigmoid(x: np.ndarray, k: int) -> None:
    """Each chosen logit alone; nothing is normalised."""
    got = route(x, strategy="llama4", top_k=k)
    np.testing.assert_array_equal(got.expert, best(x, k))
    chosen = np.take_along_axis(x, got.expert, 1).astype(np.float64)
    expected = np.where(chosen >= 0, 1 / (1 + np.exp(-np.abs(chosen))), 1 - 1 / (1 + np.exp(-np.abs(chosen))))
    np.testing.assert_allclose(got.weight, expected, rtol=5e-6, atol=1e-8)


@given(LOGITS, st.floats(0.05, 1))
def test_top_p_takes_the_first_experts_that_exceed_the_share(x: np.ndarray, top_p: float) -> None:
    """One fewer would not exceed it; together they do, unless all are taken."""
    got = route(x, strategy="top-p", top_k=12, top_p=top_p)
    p = np.take_along_axis(softmax(x), best(x, 12), axis=1)
    for row in range(len(x)):
        n = int((got.expert[row] >= 0).sum())
        assert n >= 1
        np.testing.assert_array_equal(got.expert[row, :n], best(x, 12)[row, :n])
        assert (got.expert[row, n:] == -1).all()
        assert (got.weight[row, n:] == 0).all()
        np.testing.assert_allclose(got.weight[row, :n], p[row, :n], rtol=5e-6, atol=1e-35)
        assert n == 12 or p[row, :n].sum() > top_p - 1e-6
        assert p[row, : n - 1].sum() <= top_p + 1e-6


@given(LOGITS, st.sampled_from([(1, 1), (2, 1), (3, 2), (4, 4), (12, 5)]), st.integers(1, 4), st.booleans())
def test_deepseek_v2_keeps_the_groups_with_the_best_expert(
    x: np.ndarray, groups: tuple[int, int], k: int, norm: bool
) -> None:
    """Group score is the maximum; weights are probabilities over all experts times the factor."""
    n_group, topk_group = groups
    got = route(
        x,
        strategy="deepseek-v2",
        top_k=k,
        n_group=n_group,
        topk_group=topk_group,
        routed_scaling_factor=16.0,
        norm_topk_prob=norm,
    )
    kept = best(x.reshape(len(x), n_group, -1).max(axis=2), topk_group)
    mask = np.zeros((len(x), n_group), dtype=bool)
    np.put_along_axis(mask, kept, True, axis=1)
    allowed = np.where(np.repeat(mask, 12 // n_group, axis=1), x, -np.inf)
    np.testing.assert_array_equal(got.expert, best(allowed, k))
    weight = np.take_along_axis(softmax(x), got.expert, axis=1)
    if norm:
        weight = softmax(np.take_along_axis(x, got.expert, axis=1))
    np.testing.assert_allclose(got.weight, weight * 16, rtol=1e-5, atol=1e-30)


def test_deepseek_v2_and_v3_choose_other_groups() -> None:
    """One very good expert against two good ones."""
    x = np.array([[3.0, -9.0, 2.0, 2.0]], dtype=np.float32)
    groups = {"top_k": 1, "n_group": 2, "topk_group": 1}
    assert route(x, strategy="deepseek-v2", **groups).expert.tolist() == [[0]]
    assert route(x, strategy="deepseek-v3", **groups).expert.tolist() == [[2]]


def test_round_robin_deals_over_ranks_and_then_over_their_experts() -> None:
    """Six experts on two ranks: 0 3 1 4 2 5 and again."""
    got = route(np.zeros((4, 6)), strategy="round-robin", top_k=2, n_ranks=2, shuffled=False)
    assert got.expert.ravel().tolist() == [0, 3, 1, 4, 2, 5, 0, 3]
    load = route(np.zeros((30, 6)), strategy="round-robin", top_k=4, n_ranks=3, offset=5, shuffled=False)
    assert load.requested_load(6).tolist() == [20] * 6


@pytest.mark.parametrize("n_experts, top_k", [(8, 2), (64, 6), (60, 4), (10, 9), (7, 3), (5, 5), (256, 8), (1, 1)])
def test_round_robin_is_even_and_spreads_a_token_as_random_does(n_experts: int, top_k: int) -> None:
    """Loads are equal after whole turns and differ by one choice of a token at most before; the k are any k."""
    turn = n_experts // math.gcd(n_experts, top_k)  # tokens after which all experts were chosen equally often
    n_tokens = turn * -(-4000 // turn)
    x = np.zeros((n_tokens, n_experts))
    expert = route(x, strategy="round-robin", top_k=top_k, seed=3).expert
    assert all(len(set(row)) == top_k for row in expert.tolist())
    assert np.bincount(expert.ravel(), minlength=n_experts).tolist() == [n_tokens * top_k // n_experts] * n_experts
    assert np.ptp(np.bincount(expert[: n_tokens - turn // 2].ravel(), minlength=n_experts)) <= 1
    ranks = n_experts // 4 or 1  # of up to four experts; to how many of them a token is sent

    def copies(chosen: np.ndarray) -> float:
        return float(np.mean([len(set(row)) for row in (chosen % ranks).tolist()]))

    drawn = route(x, strategy="random", top_k=top_k, seed=3).expert
    assert copies(expert) == pytest.approx(copies(drawn), rel=0.02)
    assert copies(expert // 4) == pytest.approx(copies(drawn // 4), rel=0.02)
    for other in ({"n_ranks": n_experts}, {"n_ranks": 1}):
        np.testing.assert_array_equal(route(x, strategy="round-robin", top_k=top_k, seed=3, **other).expert, expert)
    assert n_experts < 7 or (route(x, strategy="round-robin", top_k=top_k, seed=4).expert != expert).any()


@given(LOGITS, st.integers(1, 12))
def test_expert_choice_fills_every_expert(x: np.ndarray, k: int) -> None:
    """Each takes its C best tokens, the earliest among equals; the load is even."""
    got = route(x, strategy="expert-choice", top_k=k)
    capacity = min(len(x), -(-len(x) * k // 12))
    assert got.requested_load(12).tolist() == [capacity] * 12
    p = np.empty_like(x)
    for t in range(len(x)):
        e = np.exp(x[t] - x[t].max(), dtype=np.float32)
        p[t] = e / e.sum(dtype=np.float32)
    for e in range(12):
        tokens = np.flatnonzero((got.expert == e).any(axis=1))
        others = np.setdiff1d(np.arange(len(x)), tokens)
        if len(others):
            assert p[tokens, e].min() >= p[others, e].max() - 1e-6
    chosen = got.expert >= 0
    assert (got.weight[~chosen] == 0).all()
    rows, _ = np.nonzero(chosen)
    np.testing.assert_allclose(got.weight[chosen], p[rows, got.expert[chosen]], rtol=5e-6, atol=1e-37)


def test_gshard_leaves_out_second_experts_at_the_stated_rate() -> None:
    """Kept with probability g2 / threshold; at 0 always, and the first choice is never touched."""
    x = np.tile(np.array([[1.0, 0.0, -5.0]], dtype=np.float32), (enough(20_000), 1))
    every = route(x, strategy="gshard", top_k=2)
    assert (every.expert == [0, 1]).all()
    g2 = 1 / (1 + math.e)
    np.testing.assert_allclose(every.weight[0], [1 - g2, g2], rtol=1e-5)
    some = route(x, strategy="gshard", top_k=2, second_expert_policy="random", second_expert_threshold=0.5, seed=1)
    kept = (some.expert[:, 1] == 1).mean()
    assert abs(kept - g2 / 0.5) < 4 * np.sqrt(0.25 / len(x))
    assert (some.expert[:, 0] == 0).all()
    assert (some.weight[some.expert < 0] == 0).all()
    sampled = route(x, strategy="gshard", top_k=2, second_expert_policy="sampling", seed=1)
    np.testing.assert_array_equal(sampled.expert[:, 0], every.expert[:, 0])
    assert 0 < (sampled.expert[:, 1] != every.expert[:, 1]).mean() < 0.9
    with pytest.raises(InputError, match="top_k: found 1, wanted 2"):
        route(x, strategy="gshard", top_k=1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"strategy": "top-p", "top_k": 2, "top_p": 0.0}, "top_p: found 0.0, wanted above 0"),
        (
            {"strategy": "round-robin", "top_k": 2, "n_ranks": 5},
            "n_ranks: found 5, wanted a number that div",
        ),
        ({"strategy": "gshard", "top_k": 2, "second_expert_policy": "some"}, "second_expert_policy: found some"),
        ({"strategy": "gshard", "top_k": 2, "second_expert_threshold": -1.0}, "second_expert_threshold: found -1.0"),
        ({"strategy": "moge", "top_k": 3, "n_group": 2}, "top_k: found 3, wanted a multiple of n_group"),
        ({"strategy": "moge", "top_k": 5, "n_group": 5}, "n_group: found 5, wanted a number that divides"),
        ({"strategy": "base", "top_k": 2}, "top_k: found 2, wanted 1"),
        ({"strategy": "moe-plus-plus", "top_k": 1}, "top_k: found 1, wanted 2"),
        ({"strategy": "moe-plus-plus", "top_k": 2, "n_zero_experts": 12}, "n_zero_experts: found 12, wanted 1 to 11"),
        ({"strategy": "noisy-top-k", "top_k": 2, "noise_std": -1.0}, "noise_std: found -1.0, wanted 0 or more"),
        ({"strategy": "switch", "top_k": 1, "jitter": 1.0}, "jitter: found 1.0, wanted 0 or more and below 1"),
        ({"strategy": "round-robin", "top_k": 2, "offset": -1}, "offset: found -1, wanted 0 or more"),
        ({"strategy": "deepseek-v2", "top_k": 2, "n_group": 5}, "n_group: found 5, wanted a number that divides"),
        (
            {"strategy": "deepseek-v2", "top_k": 4, "n_group": 6, "topk_group": 1},
            "top_k: found 4, wanted at most",
        ),
    ],
)
def test_wrong_parameters_are_refused(arguments: dict[str, Any], message: str) -> None:
    """The error says what would be right."""
    with pytest.raises(InputError, match=message):
        route(np.zeros((2, 12)), **arguments)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 10_000), st.booleans())
def test_base_is_optimal(tokens: int, experts: int, seed: int, tied: bool) -> None:
    """Against an exact solver with ceil(T / E) places an expert, whole numbers and T not a multiple of E among them."""
    x = np.random.default_rng(seed).normal(scale=3, size=(tokens, experts)).astype(np.float32)
    x = np.round(x) if tied else x
    got = route(x, strategy="base", top_k=1).expert[:, 0]
    places = -(-tokens // experts)
    assert np.bincount(got, minlength=experts).max() <= places
    rows, columns = linear_sum_assignment(np.repeat(x, places, axis=1), maximize=True)
    best = np.repeat(x, places, axis=1)[rows, columns].astype(np.float64).sum()
    spread = float(x.max() - x.min())
    assert x[np.arange(tokens), got].astype(np.float64).sum() >= best - 1.1e-6 * spread * places * experts - 1e-9
    np.testing.assert_array_equal(route(x, strategy="base", top_k=1, training=False).expert[:, 0], x.argmax(axis=1))


def plain_sinkhorn(x: np.ndarray, k: int) -> np.ndarray:
    """Megatron's loop in float32."""
    cost = np.exp(x)
    d0, d1 = np.ones(len(x), dtype=np.float32), np.ones(x.shape[1], dtype=np.float32)
    error = 1e9
    while error > 1e-4:
        old = d1
        d0 = (1 / np.float32(len(x))) * 1 / ((d1 * cost).sum(axis=1) + np.float32(1e-8))
        d1 = (1 / np.float32(x.shape[1])) * 1 / ((d0[:, None] * cost).sum(axis=0) + np.float32(1e-8))
        error = np.abs(old - d1).mean()
    return np.argsort(-(d1 * cost * d0[:, None]), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("k", [1, 2])
def test_sinkhorn_equals_megatrons_loop(k: int) -> None:
    """Softly balanced in training; plain top-k outside; weights without the factors."""
    x = (np.random.default_rng(4).normal(size=(512, 8)) + np.linspace(0, 2, 8)).astype(np.float32)
    got = route(x, strategy="sinkhorn", top_k=k)
    assert (got.expert == plain_sinkhorn(x, k)).all(axis=1).mean() > 0.998  # float32 rounds a near tie otherwise
    plain = route(x, strategy="sinkhorn", top_k=k, training=False)
    np.testing.assert_array_equal(plain.expert, np.argsort(-x, axis=1, kind="stable")[:, :k])
    assert got.requested_load(8).max() < 0.7 * plain.requested_load(8).max()
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    weight = np.take_along_axis(1 / (1 + np.exp(-x)) if k == 1 else p, got.expert, axis=1)
    np.testing.assert_allclose(got.weight, weight, rtol=5e-6)
    far = route(x * 5000, strategy="sinkhorn", top_k=k)
    assert np.isfinite(far.weight).all()


def test_relu_takes_every_positive_logit() -> None:
    """None to all of them, the largest first; top_k bounds them."""
    x = np.array([[1.0, -1.0, 3.0, 0.0], [-1.0, -2.0, -3.0, -4.0], [4.0, 3.0, 2.0, 1.0]], dtype=np.float32)
    got = route(x, strategy="relu", top_k=4)
    assert got.expert.tolist() == [[2, 0, -1, -1], [-1] * 4, [0, 1, 2, 3]]
    assert got.weight.tolist() == [[3, 1, 0, 0], [0] * 4, [4, 3, 2, 1]]
    assert route(x, strategy="relu", top_k=2).expert.tolist() == [[2, 0], [-1, -1], [0, 1]]


def test_grouped_experts_give_every_group_its_quota() -> None:
    """The best of each group by the softmax over all; a device's load is the same whatever the logits."""
    x = np.random.default_rng(6).normal(scale=3, size=(300, 64)).astype(np.float32)
    got = route(x, strategy="moge", top_k=16, n_group=8)
    np.testing.assert_array_equal(got.requested_load(64).reshape(8, 8).sum(axis=1), 600)
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    best = np.argsort(-x.reshape(300, 8, 8), axis=2, kind="stable")[:, :, :2] + 8 * np.arange(8)[:, None]
    np.testing.assert_array_equal(got.expert, best.reshape(300, 16))
    np.testing.assert_allclose(got.weight, np.take_along_axis(p, got.expert, axis=1), rtol=5e-6)
    normed = route(x, strategy="moge", top_k=16, n_group=8, norm_topk_prob=True, routed_scaling_factor=2.0)
    np.testing.assert_allclose(normed.weight.sum(axis=1), 2, rtol=1e-6)
    plain = route(x, strategy="moge", top_k=16)
    np.testing.assert_array_equal(plain.expert, np.argsort(-x, axis=1, kind="stable")[:, :16])


def test_noise_has_the_stated_deviation_and_follows_the_seed() -> None:
    """Gaps between chosen logits: without noise the best two; with it, as likely as the normal law says."""
    x = np.zeros((enough(20_000), 2), dtype=np.float32)
    x[:, 1] = 1.0
    got = route(x, strategy="noisy-top-k", top_k=1, noise_std=0.5, seed=1)
    lower = (got.expert[:, 0] == 0).mean()
    wanted = stats.norm.sf(1 / (0.5 * np.sqrt(2)))
    assert abs(lower - wanted) < 5 * np.sqrt(wanted / len(x))
    assert (route(x, strategy="noisy-top-k", top_k=1, noise_std=0.5, seed=2).expert != got.expert).any()


def test_jitter_multiplies_logits() -> None:
    """By at most the stated part: near equal experts change places, clear ones do not."""
    x = np.tile(np.array([10.0, 9.95, 5.0], dtype=np.float32), (5000, 1))
    got = route(x, strategy="switch", top_k=1, jitter=0.01, seed=1).expert[:, 0]
    assert abs((got == 1).mean() - 0.15**2 / (2 * 0.2**2)) < 0.03  # two uniform numbers of width 0.2, 0.05 apart
    assert not (got == 2).any()
    assert (route(x, strategy="switch", top_k=1).expert == 0).all()
