"""Every setting of the top-k gate equals a plain NumPy gate; its kernels equal NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moesim import route
from moesim.compiled.exponential import largest, sigmoid, softmax, total
from moesim.compiled.topk import top_k_of

SETTINGS = list(
    itertools.product(
        ("softmax", "softmax-of-chosen", "sigmoid", "sigmoid-of-chosen"),
        ("max", "top-2-sum", "top-k-sum"),
        ("-inf", "0"),
        (False, True),
    )
)


def plain_gate(
    x: np.ndarray,
    k: int,
    bias: np.ndarray | None,
    *,
    score: str,
    group_score: str,
    masked_score: str,
    norm_topk_prob: bool,
    n_group: int,
    topk_group: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Experts, weights and the smallest gap of any comparison that decided, in float64."""
    x = x.astype(np.float64)
    p = np.exp(x - x.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    s = 1 / (1 + np.exp(-x))
    compared = {"softmax": p, "sigmoid": s}.get(score, x)
    compared = compared + (0 if bias is None else bias.astype(np.float64))
    gap = np.full(len(x), np.inf)
    if topk_group < n_group:
        summed = {"max": 1, "top-2-sum": 2, "top-k-sum": k // topk_group}[group_score]
        by_group = -np.sort(-compared.reshape(len(x), n_group, -1), axis=2)[:, :, :summed].sum(axis=2)
        ordered = -np.sort(-by_group, axis=1)
        gap = ordered[:, topk_group - 1] - ordered[:, topk_group]
        kept = np.zeros((len(x), n_group), dtype=bool)
        np.put_along_axis(kept, np.argsort(-by_group, axis=1, kind="stable")[:, :topk_group], True, axis=1)
        masked = ~np.repeat(kept, x.shape[1] // n_group, axis=1)
        compared = np.where(masked, -np.inf if masked_score == "-inf" else 0.0, compared)
    expert = np.argsort(-compared, axis=1, kind="stable")[:, :k]
    ordered = -np.sort(-compared, axis=1)[:, : k + 1]
    with np.errstate(invalid="ignore"):
        step = ordered[:, :-1] - ordered[:, 1:]
    step[ordered[:, :-1] == ordered[:, 1:]] = np.inf  # equal zeros of masked experts: by index on both sides
    gap = np.minimum(gap, step.min(axis=1))
    chosen = np.take_along_axis(x, expert, axis=1)
    if score == "softmax-of-chosen":
        weight = np.exp(chosen - chosen.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
    else:
        weight = np.take_along_axis(p if score == "softmax" else s, expert, axis=1)
    if norm_topk_prob:
        weight = weight / weight.sum(axis=1, keepdims=True)
    return expert, weight, gap


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("score, group_score, masked_score, norm", SETTINGS)
def test_every_setting_equals_a_plain_gate(
    score: str, group_score: str, masked_score: str, norm: bool, biased: bool
) -> None:
    """Also those that nobody published."""
    rng = np.random.default_rng(7)
    x = rng.normal(scale=2, size=(300, 24)).astype(np.float32)
    bias = rng.normal(scale=0.3, size=24).astype(np.float32) if biased else None
    for n_group, topk_group in ((1, 1), (4, 2), (6, 3)):
        settings: dict[str, Any] = {
            "score": score,
            "group_score": group_score,
            "masked_score": masked_score,
            "norm_topk_prob": norm,
            "n_group": n_group,
            "topk_group": topk_group,
        }
        expert, weight, gap = plain_gate(x, 6, bias, **settings)
        got = route(x, strategy="softmax-top-k", top_k=6, bias=bias, **settings)
        clear = gap > 1e-6
        assert clear.mean() > 0.95
        np.testing.assert_array_equal(got.expert[clear], expert[clear])
        np.testing.assert_allclose(got.weight[clear], weight[clear], rtol=5e-6)


def test_a_preset_is_the_gate_with_other_defaults() -> None:
    """deepseek-v3 spelled out, and a mixture that has no name."""
    x = np.random.default_rng(1).normal(size=(50, 16)).astype(np.float32)
    named = route(x, strategy="deepseek-v3", top_k=4, n_group=4, topk_group=2)
    spelled = route(
        x,
        strategy="mixtral",
        top_k=4,
        n_group=4,
        topk_group=2,
        score="sigmoid",
        norm_topk_prob=True,
        norm_epsilon=1e-20,
        group_score="top-2-sum",
    )
    np.testing.assert_array_equal(named.expert, spelled.expert)
    np.testing.assert_array_equal(named.weight, spelled.weight)
    limited = route(x, strategy="mixtral", top_k=4, n_group=4, topk_group=2).expert // 4
    assert max(len(set(row)) for row in limited.tolist()) == 2


def test_a_fill_of_zero_lets_masked_experts_win_over_negative_scores() -> None:
    """The trap of transformers 4.57 to 5.2: with a bias of -1 all kept scores are negative."""
    x = np.zeros((1, 4), dtype=np.float32)
    x[0, :2] = 5.0
    asked: dict[str, Any] = {"strategy": "deepseek-v3", "top_k": 1, "n_group": 2, "topk_group": 1, "bias": [-1.5] * 4}
    assert route(x, **asked).expert.tolist() == [[0]]
    assert route(x, masked_score="0", **asked).expert.tolist() == [[2]]


@given(
    arrays(
        np.float32,
        st.integers(1, 40),
        elements=st.one_of(st.floats(width=32, allow_nan=False), st.sampled_from([0.0, -0.0, 1.0, -np.inf, np.inf])),
    ),
    st.integers(1, 40),
)
def test_the_k_largest_are_those_of_a_stable_sort(score: np.ndarray, k: int) -> None:
    """Infinities and both zeros included."""
    k = min(k, len(score))
    index, value = np.empty(k, dtype=np.int32), np.empty(k, dtype=np.float32)
    top_k_of(score, index, value)
    np.testing.assert_array_equal(index, np.argsort(-score, kind="stable")[:k])
    np.testing.assert_array_equal(value, score[index])


@pytest.mark.parametrize("n", [1, 7, 16, 33, 256])
def test_exponentials_equal_numpys(n: int) -> None:
    """To two units in the last place where float32 is normal; below, 0."""
    x = np.linspace(-86.9, 86.9, n).astype(np.float32)
    out, power, ones = np.empty_like(x), np.empty(n, dtype=np.int32), np.ones_like(x)
    scale = power.view(np.float32)
    sigmoid(x[None], 0, ones, out, biased := np.empty_like(x), power, scale)
    np.testing.assert_array_equal(biased, out + ones)
    np.testing.assert_allclose(out, 1 / (1 + np.exp(-x.astype(np.float64))), rtol=4e-7)
    shift = np.linspace(-200, 0, n).astype(np.float32)
    summed = softmax(np.stack([x, shift]), 1, np.float32(0), out, power, scale)
    wanted = np.where(shift > -87, np.exp(shift.astype(np.float64)), 0)
    np.testing.assert_allclose(out, wanted, rtol=3e-7)
    np.testing.assert_allclose(summed, wanted.sum(), rtol=1e-6)
    np.testing.assert_allclose(total(x), x.astype(np.float64).sum(), rtol=1e-5, atol=1e-3)
    assert largest(np.stack([shift, x]), 1) == x.max()
    far, power = np.array([np.inf, -np.inf, 1e4, -1e4], dtype=np.float32), np.empty(4, dtype=np.int32)
    sigmoid(far[None], 0, far, out := np.empty_like(far), np.empty_like(far), power, power.view(np.float32))
    assert out.tolist() == [1.0, 0.0, 1.0, 0.0]
