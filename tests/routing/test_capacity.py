"""Capacity keeps the request, serves what fits and drops the rest, within a stated scope."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moesim import Assignment, apply_capacity, route
from moesim.routing import OVERFLOWS, SCOPES
from tests.routing.requests import request


def test_position_serves_the_earliest_token() -> None:
    """Three tokens want expert 0, two fit."""
    got = apply_capacity(request([[0], [0], [1], [0]]), n_experts=2, capacity_factor=1.0)
    assert got.served.tolist() == [[0], [0], [1], [-1]]
    assert got.dropped.tolist() == [[False], [False], [False], [True]]
    assert got.capacity.tolist() == [2]
    assert got.expert.tolist() == [[0], [0], [1], [0]]


def test_probability_serves_the_largest_weight() -> None:
    """Ties go to the earliest token."""
    wanted = request([[0], [0], [1], [0]], [[0.2], [0.7], [0.9], [0.7]])
    got = apply_capacity(wanted, n_experts=2, capacity_factor=1.0, overflow="drop-by-probability")
    assert got.served.tolist() == [[-1], [0], [1], [0]]
    got = apply_capacity(wanted, n_experts=2, capacity_factor=0.5, overflow="drop-by-probability")
    assert got.served.tolist() == [[-1], [0], [1], [-1]]


@pytest.mark.parametrize("overflow", ["drop-by-probability", "drop-by-priority"])
def test_scores_of_all_experts_are_read_by_expert_where_each_token_chooses_all(overflow: str) -> None:
    """A matrix of E columns is [T, E] although it is [T, K] too: the same tokens are served as by the weights."""
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], dtype=np.float32)
    expert = np.argsort(-scores, axis=1).astype(np.int32)
    wanted = Assignment.of(expert, np.take_along_axis(scores, expert, axis=1))
    limits: dict[str, Any] = {"n_experts": 2, "capacity_factor": 0.34, "overflow": overflow}
    given, by_weight = apply_capacity(wanted, scores=scores, **limits), apply_capacity(wanted, **limits)
    np.testing.assert_array_equal(given.served, by_weight.served)
    if overflow == "drop-by-probability":  # two places each: tokens 0 and 2 at expert 0, 1 and 2 at expert 1
        assert given.served.tolist() == [[0, -1], [1, -1], [0, 1]]


def test_each_scope_has_a_capacity_of_its_own() -> None:
    """Four tokens of two ranks: globally two places an expert, per rank one."""
    wanted = request([[0], [0], [1], [1]])
    together = apply_capacity(wanted, n_experts=2, capacity_factor=1.0, scope="global")
    assert not together.dropped.any()
    apart = apply_capacity(wanted, n_experts=2, capacity_factor=1.0, scope="source-rank", source=[5, 5, 9, 9])
    assert apart.served.tolist() == [[0], [-1], [1], [-1]]
    assert apart.capacity.tolist() == [1, 1]


def test_first_choices_before_second_ones() -> None:
    """Expert 0 has two places: token-major gives them to token 0 and 1, choice-major to tokens 1 and 2."""
    wanted = request([[1, 0], [0, 2], [0, 2]], [[0.6, 0.4], [0.7, 0.3], [0.9, 0.1]])
    places: dict[str, Any] = {"n_experts": 3, "capacity_factor": 1.0}
    assert apply_capacity(wanted, **places).served.tolist() == [[1, 0], [0, 2], [-1, 2]]
    got = apply_capacity(wanted, **places, overflow="drop-by-choice")
    assert got.served.tolist() == [[1, -1], [0, 2], [0, 2]]


def test_the_token_with_the_best_score_is_served_first() -> None:
    """One place each: token 2 is surest, then token 1; the second choice of token 2 still comes after all firsts."""
    wanted = request([[0, 1], [0, 1], [0, 1]], [[0.5, 0.4], [0.7, 0.3], [0.9, 0.1]])
    got = apply_capacity(wanted, n_experts=2, capacity_factor=0.3, overflow="drop-by-priority")
    assert got.capacity.tolist() == [1]
    assert got.served.tolist() == [[-1, -1], [-1, -1], [0, 1]]
    own = apply_capacity(
        wanted, n_experts=2, capacity_factor=0.3, overflow="drop-by-priority", scores=[[9, 0], [0, 0], [0, 8]]
    )
    assert own.served.tolist() == [[0, 1], [-1, -1], [-1, -1]]


def test_random_selection_is_fair_and_a_function_of_the_seed() -> None:
    """Each of 8 tokens gets one of 2 places a quarter of the time."""
    wanted = request([[0]] * 8)
    kept = np.zeros(8)
    for seed in range(2000):
        got = apply_capacity(wanted, n_experts=4, capacity_factor=1.0, overflow="drop-at-random", seed=seed)
        kept += got.served[:, 0] >= 0
    assert kept.sum() == 4000
    assert np.abs(kept - 500).max() < 4 * np.sqrt(2000 * 0.25 * 0.75)


def test_choices_that_were_not_made_are_neither_served_nor_dropped() -> None:
    """-1 stays -1."""
    got = apply_capacity(request([[0, -1], [-1, -1]]), n_experts=2, capacity_factor=1.0)
    assert got.served.tolist() == [[0, -1], [-1, -1]]
    assert not got.dropped.any()


@given(
    st.integers(1, 40),
    st.integers(2, 9),
    st.integers(1, 2),
    st.floats(0.1, 3),
    st.sampled_from([name for name in sorted(OVERFLOWS) if name.startswith("drop-")]),
    st.sampled_from([name for name in sorted(SCOPES) if name != "device"]),
    st.integers(0, 3),
    st.integers(0, 10_000),
)
def test_nobody_is_dropped_while_there_is_room(
    tokens: int, experts: int, k: int, factor: float, overflow: str, scope: str, minimum: int, seed: int
) -> None:
    """Per scope and expert exactly min(requested, capacity) are served, by the stated order."""
    rng = np.random.default_rng(seed)
    wanted = route(rng.normal(size=(tokens, experts)), strategy="mixtral", top_k=k)
    source = rng.integers(0, 3, tokens)
    got = apply_capacity(
        wanted,
        n_experts=experts,
        capacity_factor=factor,
        overflow=overflow,
        scope=scope,
        minimum=minimum,
        source=source,
        seed=seed,
    )
    group = np.zeros(tokens, dtype=int) if scope == "global" else source
    for number, g in enumerate(np.unique(group)):
        here = group == g
        capacity = max(minimum, math.ceil(here.sum() * k / experts * factor))
        assert got.capacity[number] == capacity
        for e in range(experts):
            asked = (wanted.expert == e) & here[:, None]
            served = (got.served == e) & here[:, None]
            assert served.sum() == min(asked.sum(), capacity)
            assert (served <= asked).all()
            if overflow == "drop-by-probability" and served.sum() and (asked & ~served).any():
                assert wanted.weight[served].min() >= wanted.weight[asked & ~served].max()
    assert got.requested_load(experts).sum() == got.processed_load(experts).sum() + got.dropped.sum()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"overflow": "pray"}, "overflow"),
        ({"scope": "device"}, "scope"),
        ({"scope": "source-rank"}, "source: found None, wanted an id"),
        ({"scope": "sequence", "source": [1]}, "source: found int64 of shape"),
        ({"capacity_factor": 0.0}, "positive"),
        ({"capacity_factor": float("nan")}, "positive"),
        ({"capacity_factor": "1"}, "positive"),
        ({"n_experts": 1}, "n_experts"),
        ({"minimum": -1}, "minimum"),
        ({"overflow": "drop-by-probability", "scores": [[1.0]]}, "scores"),
        ({"overflow": "drop-at-random"}, "seed: found None, wanted a number"),
        ({"rounding": "up"}, "rounding"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    """What a policy cannot do without is required with a ValueError."""
    with pytest.raises(ValueError, match=message):
        apply_capacity(request([[0], [1]]), **{"n_experts": 2, "capacity_factor": 1.0, **arguments})


@pytest.mark.slow
@pytest.mark.parametrize(
    "experts, k, factor, percent",
    [
        (64, 1, 0.9, 9.976),
        (64, 1, 1.0, 1.749),
        (64, 1, 1.05, 0.275),
        (64, 1, 1.1, 0.017),
        (128, 1, 1.0, 2.483),
        (256, 1, 1.0, 3.517),
        (64, 4, 1.0, 0.854),
        (128, 4, 1.0, 1.227),
        (256, 4, 1.0, 1.749),
    ],
)
def test_a_uniform_router_drops_what_the_binomial_law_says(experts: int, k: int, factor: float, percent: float) -> None:
    """E[(X - C)+] E / (T k) with X ~ Bin(T, k / E), within 4 standard errors over 12 batches of 32,768 tokens."""
    tokens = 32_768
    rates = []
    for seed in range(12):
        routed = route(np.zeros((tokens, experts), dtype=np.float32), strategy="random", top_k=k, seed=seed)
        rates.append(apply_capacity(routed, n_experts=experts, capacity_factor=factor).dropped.mean() * 100)
    capacity = math.ceil(tokens * k / experts * factor)
    x = np.arange(capacity, tokens + 1)
    law = ((x - capacity) * stats.binom.pmf(x, tokens, k / experts)).sum() * experts / (tokens * k) * 100
    assert law == pytest.approx(percent, abs=6e-4)
    assert abs(np.mean(rates) - law) < 4 * np.std(rates, ddof=1) / math.sqrt(len(rates))


def test_weights_are_renormalised_over_the_survivors() -> None:
    """As DeepSpeed and Lingvo's newer form do; a token that lost all weighs nothing."""
    wanted = request([[0, 1], [0, 1], [0, 2]], [[0.6, 0.4], [0.7, 0.3], [0.5, 0.5]])
    plain = apply_capacity(wanted, n_experts=3, capacity_factor=0.5)
    assert plain.served.tolist() == [[0, 1], [-1, -1], [-1, 2]]
    np.testing.assert_array_equal(plain.weight, wanted.weight)
    got = apply_capacity(wanted, n_experts=3, capacity_factor=0.5, renormalise=True)
    np.testing.assert_allclose(got.weight, np.array([[0.6, 0.4], [0, 0], [0, 1]]), rtol=1e-6)


def test_padding_fills_every_expert_to_its_capacity() -> None:
    """Rows per scope and expert, beside what is served; a drop can be left to the shared expert."""
    got = apply_capacity(
        request([[0], [0], [0], [1]]), n_experts=2, capacity_factor=1.0, pad=True, fallback="shared-expert"
    )
    assert got.padding is not None
    assert got.padding.tolist() == [[0, 1]]
    assert got.by_cause()["to_shared_expert"] == 1 == sum(got.by_cause().values())
    assert apply_capacity(request([[0]]), n_experts=2, capacity_factor=1.0).padding is None


def test_the_order_of_a_large_request_is_that_of_a_stable_sort() -> None:
    """Selection by score, many ties among them, equals sorting each expert's assignments."""
    rng = np.random.default_rng(5)
    expert = rng.integers(0, 16, (4000, 2)).astype(np.int32)
    expert[:, 1] = (expert[:, 0] + 1 + expert[:, 1] % 15) % 16
    weight = rng.choice(np.linspace(0, 1, 9), (4000, 2)).astype(np.float32)
    source = rng.integers(0, 5, 4000)
    got = apply_capacity(
        Assignment.of(expert, weight),
        n_experts=16,
        capacity_factor=0.7,
        overflow="drop-by-probability",
        scope="source-rank",
        source=source,
    )
    wanted = np.zeros(expert.size, dtype=bool)
    flat_expert, flat_source = expert.ravel(), np.repeat(source, 2)
    for g, e in np.ndindex(5, 16):
        own = np.flatnonzero((flat_expert == e) & (flat_source == g))
        wanted[own[np.argsort(-weight.ravel()[own], kind="stable")][: got.capacity[g]]] = True
    np.testing.assert_array_equal(got.served.ravel() >= 0, wanted)


@pytest.mark.parametrize("overflow", [name for name, policy in OVERFLOWS.items() if policy.reroutes_as])
def test_what_was_dropped_before_stays_dropped(overflow: str) -> None:
    """A second capacity, as of a device after that of a rank: everything is served or dropped, once."""
    logits = np.random.default_rng(0).normal(size=(256, 16)).astype(np.float32)
    first = apply_capacity(route(logits, strategy="mixtral", top_k=4), n_experts=16, capacity_factor=1.0)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    where: dict[str, Any] = {"source": np.arange(256) % 4, "device": np.arange(16) // 4}
    second = apply_capacity(first, n_experts=16, capacity_factor=1.25, overflow=overflow, scores=scores, **where)
    assert first.dropped.any()
    assert (second.dropped == (second.served < 0)).all()
    assert (second.dropped >= first.dropped).all()
    assert sum(second.by_cause().values()) == second.dropped.sum() + second.rerouted.sum()


@pytest.mark.parametrize("likes", range(4))
def test_a_choice_that_was_not_made_gives_no_priority(likes: int) -> None:
    """Token 0 likes another expert more, but asks for 1 alone, as token 1 does, who likes it more."""
    expert, weight = np.array([[1, -1], [1, -1]], dtype=np.int32), np.array([[0.2, 0], [0.6, 0]], dtype=np.float32)
    scores = np.array([[0, 0.2, 0, 0], [0.1, 0.6, 0.2, 0.1]], dtype=np.float32)
    if likes != 1:
        scores[0, likes] = 0.8
    capped: dict[str, Any] = {"n_experts": 4, "capacity_factor": 0.5, "overflow": "drop-by-priority"}
    assert apply_capacity(Assignment.of(expert, weight), scores=scores, **capped).served[:, 0].tolist() == [-1, 1]


@pytest.mark.parametrize("factor", [1e6, 1e18, 1e30, 1e300])
@pytest.mark.parametrize("rounding", ["megatron", "deepspeed", "v-moe", "flaxformer", "mesh", "lingvo", "tutel"])
def test_as_much_as_one_likes_is_no_limit(rounding: str, factor: float) -> None:
    """Factors so large that the capacity would overflow."""
    assignment = route(np.eye(8, dtype=np.float32), strategy="switch", top_k=1)
    got = apply_capacity(assignment, n_experts=8, capacity_factor=factor, rounding=rounding)
    assert not got.dropped.any()
    assert got.capacity.min() > 0
