"""Balancers trade near-equal experts only, and limit groups as the gate does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim import route, substitute
from moesim.metrics import max_violation
from moesim.routing import parameters_for, strategy
from moesim.routing.substitution import group_mask, router_scores


def probabilities(x: np.ndarray) -> np.ndarray:
    """Softmax in float32."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True), dtype=np.float32)


def scores_by(name: str, x: np.ndarray) -> np.ndarray:
    """What a strategy with its defaults makes of logits."""
    found = strategy(name)
    return router_scores(x, by_sigmoid=found.by_sigmoid(parameters_for(found, {})))


def plain(p: np.ndarray, expert: np.ndarray, threshold: float) -> np.ndarray:
    """The rule, token by token."""
    load = np.zeros(p.shape[1], dtype=int)
    out = np.full_like(expert, -1)
    for t, row in enumerate(p):
        chosen = [e for e in expert[t] if e >= 0]
        last = min(row[chosen])
        lower, upper = np.float32(last * np.float32(threshold)), np.float32(last / np.float32(threshold))
        new = [e for e in chosen if row[e] > upper]
        pool = [e for e in range(len(row)) if lower <= row[e] <= upper]
        pool.sort(key=lambda e: (load[e], -row[e], e))
        new += pool[: len(chosen) - len(new)]
        out[t, : len(new)] = new
        load[new] += 1
    return out


@given(st.integers(1, 60), st.integers(2, 9), st.integers(1, 4), st.floats(0.3, 1.0), st.integers(0, 10_000))
def test_near_equal_choices_go_to_the_least_loaded(
    tokens: int, experts: int, k: int, threshold: float, seed: int
) -> None:
    """As the stated rule in plain Python; the number of choices and the sum of the weights' ratio stay."""
    k = min(k, experts)
    x = np.random.default_rng(seed).normal(size=(tokens, experts)).astype(np.float32)
    p = probabilities(x)
    routed = route(x, strategy="softmax-top-k", top_k=k)
    got = substitute(routed, p, threshold=threshold)
    np.testing.assert_array_equal(got.expert, plain(p, routed.expert, threshold))
    np.testing.assert_allclose(got.weight, np.take_along_axis(p, got.expert, axis=1), rtol=2e-6)
    assert got.served is got.expert


def test_a_looser_threshold_balances_more_and_blocks_do_not_matter() -> None:
    """The load of earlier blocks is carried on; a threshold of 1 changes nothing without ties."""
    x = (np.random.default_rng(1).normal(size=(2000, 16)) + np.linspace(0, 1, 16)).astype(np.float32)
    p = probabilities(x)
    routed = route(x, strategy="mixtral", top_k=2)
    np.testing.assert_array_equal(substitute(routed, p, threshold=1.0).expert, routed.expert)
    violation = [
        float(max_violation(substitute(routed, p, threshold=threshold).requested_load(16)))
        for threshold in (1.0, 0.8, 0.5)
    ]
    assert violation[0] > 1.2 * violation[1] > 1.2 * 1.2 * violation[2]
    load = np.zeros(16, dtype=np.int64)
    blocks = [
        substitute(route(x[part], strategy="mixtral", top_k=2), p[part], threshold=0.8, load=load).expert
        for part in (slice(0, 700), slice(700, 2000))
    ]
    np.testing.assert_array_equal(np.concatenate(blocks), substitute(routed, p, threshold=0.8).expert)


def test_masking_groups_before_the_router_equals_the_gates_own_limit() -> None:
    """The same experts; and never more than topk_group groups for a router that has no such parameter."""
    x = np.random.default_rng(2).normal(size=(500, 32)).astype(np.float32)
    parameters = {"n_group": 8, "topk_group": 2}
    own = route(x, strategy="softmax-top-k", top_k=4, group_score="top-k-sum", **parameters)
    mask = group_mask(probabilities(x), summed=2, **parameters)
    assert (mask.reshape(500, 8, 4).any(axis=2).sum(axis=1) == 2).all()
    differ = (route(x, strategy="softmax-top-k", top_k=4, mask=mask).expert != own.expert).any(axis=1)
    assert differ.mean() < 0.01  # float32 softmax of two makes: a near tie of groups may fall otherwise
    top_p = route(x, strategy="top-p", top_k=8, top_p=0.9, mask=mask).expert
    assert max(len({e // 4 for e in row if e >= 0}) for row in top_p.tolist()) == 2


def test_scores_are_those_of_the_router() -> None:
    """Sigmoids for sigmoid gates, else the softmax."""
    x = np.random.default_rng(3).normal(size=(5, 7)).astype(np.float32)
    for name in ("deepseek-v3", "llama4"):
        got = scores_by(name, x)
        np.testing.assert_allclose(got, 1 / (1 + np.exp(-x)), rtol=1e-6)
    for name in ("mixtral", "hash"):
        np.testing.assert_allclose(scores_by(name, x), probabilities(x), rtol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda a, p: substitute(a, p[:, :1]), "scores: found shape"),
        (lambda a, p: substitute(a, p, threshold=0.0), "threshold: found 0.0, wanted above 0"),
        (lambda a, p: substitute(a, p * np.nan), "scores: found NaN"),
        (lambda a, p: group_mask(p[0], n_group=2, topk_group=1, summed=1), "scores: found shape"),
        (lambda a, p: group_mask(p, n_group=3, topk_group=1, summed=1), "n_group: found 3"),
        (lambda a, p: group_mask(p, n_group=2, topk_group=3, summed=1), "topk_group: found 3"),
        (lambda a, p: group_mask(p, n_group=2, topk_group=1, summed=9), "summed: found 9"),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[..., Any], message: str) -> None:
    """With what would be right."""
    x = np.zeros((2, 8), dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        call(route(x, strategy="round-robin", top_k=2), probabilities(x))


@pytest.mark.parametrize("load", [np.zeros(8, dtype=np.int64), np.zeros(64, dtype=np.int32), np.zeros((1, 64), int)])
def test_a_load_that_is_none_is_refused(load: np.ndarray) -> None:
    """A shorter one would be written beyond its end."""
    scores = np.full((4, 64), 1 / 64, dtype=np.float32)
    with pytest.raises(ValueError, match=r"load: found int\d+ of shape .*, wanted int64 of shape \(64,\)"):
        substitute(route(np.log(scores), strategy="mixtral", top_k=4), scores, load=load)
