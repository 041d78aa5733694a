"""Capacity keeps the request, serves what fits and drops the rest, within a stated scope."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moesim import Assignment, apply_capacity, route
from moesim.routing import OVERFLOWS, SCOPES

PUBLISHED = Path(__file__).parents[1] / "data" / "routing_cases"
"""What reference implementations made of two batches; its README says which."""


def request(expert: list[list[int]], weight: list[list[float]] | None = None) -> Assignment:
    """An assignment from nested lists."""
    experts = np.array(expert, dtype=np.int32)
    weights = np.ones(experts.shape) if weight is None else np.array(weight)
    return Assignment.of(experts, weights.astype(np.float32))


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


@pytest.mark.parametrize(
    "case, capacities",
    [
        (
            (1000, 7, 2, 1.1),
            {"megatron": 315, "deepspeed": 315, "v-moe": 316, "tutel": 314, "flaxformer": 157, "lingvo": 160},
        ),
        (
            (700, 7, 1, 1.1),
            {"megatron": 111, "deepspeed": 110, "v-moe": 112, "tutel": 110, "flaxformer": 110, "lingvo": 112},
        ),
        (
            (30, 64, 6, 1.0),
            {"megatron": 3, "deepspeed": 3, "v-moe": 4, "tutel": 6, "flaxformer": 4, "lingvo": 4, "mesh": 4},
        ),
    ],
)
def test_every_library_rounds_in_its_way(case: tuple[int, int, int, float], capacities: dict[str, int]) -> None:
    """Worked from their sources."""
    tokens, experts, k, factor = case
    for rounding, capacity in capacities.items():
        got = apply_capacity(
            request([[*range(k)]] * tokens), n_experts=experts, capacity_factor=factor, rounding=rounding
        )
        assert got.capacity.tolist() == [capacity], rounding


@pytest.mark.parametrize("case", ["A_T512_E8", "ties_A_T512_E8"])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("prioritised", [0, 1])
@pytest.mark.parametrize("factor", ["0.5", "1.0"])
def test_kept_and_dropped_are_those_of_v_moe(case: str, k: int, prioritised: int, factor: str) -> None:
    """Ties too: its order is defined and the same as ours."""
    with np.load(PUBLISHED / "inputs" / f"{case}.npz") as inputs:
        x = inputs["logits"]
    name = f"vmoe_top{k}_bpr{prioritised}_cf{factor}__{case}.npz"
    with np.load(PUBLISHED / "expected" / name) as expected:
        indices, kept, weights = expected["indices"], expected["kept"], expected["weights"]
    got = apply_capacity(
        route(x, strategy="softmax-top-k", top_k=k),
        n_experts=8,
        capacity_factor=float(factor),
        overflow="drop-by-priority" if prioritised else "drop-by-choice",
        rounding="v-moe",
    )
    order = np.argsort(got.expert, axis=1)  # the cases list experts by index
    np.testing.assert_array_equal(np.take_along_axis(got.expert, order, 1), indices)
    np.testing.assert_array_equal(np.take_along_axis(got.served >= 0, order, 1), kept)
    np.testing.assert_allclose(np.take_along_axis(got.weight, order, 1), weights, rtol=5e-6)


@pytest.mark.parametrize(
    "tokens, experts, k, factor, capacity",
    [(700, 7, 1, 1.1, 111), (512, 8, 2, 1.25, 160), (10, 3, 1, 1.0, 4), (1, 64, 1, 1.0, 1)],
)
def test_capacity_rounds_as_megatron(tokens: int, experts: int, k: int, factor: float, capacity: int) -> None:
    """ceil(tokens * k / experts * factor) in floating point: 111 where exact arithmetic has 110."""
    got = apply_capacity(request([[*range(k)]] * tokens), n_experts=experts, capacity_factor=factor)
    assert got.capacity.tolist() == [capacity]


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


REROUTES = [name for name, policy in sorted(OVERFLOWS.items()) if policy.reroutes_as]


@given(
    st.integers(1, 40),
    st.integers(2, 6),
    st.integers(1, 2),
    st.floats(0.1, 2),
    st.sampled_from(REROUTES),
    st.sampled_from(sorted(SCOPES)),
    st.integers(1, 4),
    st.integers(0, 10_000),
)
def test_rerouting_fills_places_and_never_more(
    tokens: int, experts: int, k: int, factor: float, overflow: str, scope: str, tries: int, seed: int
) -> None:
    """Load stays within capacity, experts of a token stay distinct, and a drop means that no candidate had room."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(tokens, experts)).astype(np.float32)
    wanted = route(x, strategy="mixtral", top_k=k)
    source, device = rng.integers(0, 3, tokens), rng.integers(0, 3, experts)
    got = apply_capacity(
        wanted,
        n_experts=experts,
        capacity_factor=factor,
        overflow=overflow,
        scope=scope,
        scores=x,
        source=source,
        device=device,
        tries=tries,
    )
    np.testing.assert_array_equal(got.expert, wanted.expert)
    moved = got.rerouted
    assert (got.served[moved] != got.expert[moved]).all()
    assert (got.served[~moved & ~got.dropped] == got.expert[~moved & ~got.dropped]).all()
    assert not (got.dropped & moved).any()
    assert ((got.served < 0) == got.dropped).all()
    assert sum(got.by_cause().values()) == moved.sum() + got.dropped.sum()
    for row in got.served.tolist():
        served = [e for e in row if e >= 0]
        assert len(set(served)) == len(served)
    group = np.zeros(tokens, dtype=int) if scope in {"global", "device"} else np.unique(source, return_inverse=True)[1]
    place = np.unique(device, return_inverse=True)[1] if scope == "device" else np.arange(experts)
    room = np.repeat(got.capacity[:, None], place.max() + 1, axis=1)
    for t, j in zip(*np.nonzero(got.served >= 0), strict=True):
        room[group[t], place[got.served[t, j]]] -= 1
    assert (room >= 0).all()
    for t, j in zip(*np.nonzero(got.dropped), strict=True):
        assert room[group[t], place[got.expert[t, j]]] == 0
        others = [e for e in np.argsort(-x[t], kind="stable") if e not in got.expert[t]]
        if overflow == "expanded-drop":
            others = [e for e in others if device[e] == source[t]]
        if overflow == "reroute-to-next":
            others = others[:tries]
        assert all(e in got.served[t] or room[group[t], place[e]] == 0 for e in others)
    np.testing.assert_array_equal(got.weight[moved], np.take_along_axis(x, np.maximum(got.served, 0), axis=1)[moved])


def test_no_token_left_behind_retries_round_by_round() -> None:
    """Mesh: all that are still unrouted offer choice i before any offers choice i + 1."""
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(60, 5)) + np.array([2, 1, 0, 0, 0])).astype(np.float32)
    capacity, left, wanted = 12, np.full(5, 12), np.full(60, -1)
    ranked = np.argsort(-x, axis=1, kind="stable")
    for choice in range(3):
        for t in range(60):
            e = ranked[t, choice]
            if wanted[t] < 0 and left[e] > 0:
                wanted[t], left[e] = e, left[e] - 1
    got = apply_capacity(
        route(x, strategy="switch", top_k=1),
        n_experts=5,
        capacity_factor=1.0,
        overflow="reroute-to-next",
        scores=x,
        tries=2,
    )
    assert got.capacity.tolist() == [capacity]
    np.testing.assert_array_equal(got.served[:, 0], wanted)
    assert 0 < got.rerouted.sum() < 60
    causes = {cause: count for cause, count in got.by_cause().items() if count}
    assert causes == {"over_capacity": int(got.dropped.sum()), "to_next_choice": int(got.rerouted.sum())}


def test_one_after_the_other_takes_the_best_expert_with_room() -> None:
    """Three tokens want expert 0, which has one place; the second takes the last place of expert 2, its next best."""
    x = [[9.0, 1.0, 2.0], [9.0, 1.0, 2.0], [9.0, 1.0, 2.0]]
    asked: dict[str, Any] = {"n_experts": 3, "capacity_factor": 1.0, "scores": x}
    got = apply_capacity(route(x, strategy="switch", top_k=1), overflow="reroute-to-best", **asked)
    assert got.served.tolist() == [[0], [2], [1]]
    got = apply_capacity(route(x, strategy="switch", top_k=1), overflow="reroute-to-next", **asked)
    assert got.served.tolist() == [[0], [2], [-1]]
    assert got.lost_tokens() == 1


def test_refused_assignments_move_to_experts_of_their_own_device() -> None:
    """Expert 0 keeps the largest score; token 0 finds a place on its device, token 2's device has no other expert."""
    x = [[5.0, 1.0, 2.0], [8.0, 0.0, 0.0], [6.0, 0.0, 0.0]]
    got = apply_capacity(
        route(x, strategy="switch", top_k=1),
        n_experts=3,
        capacity_factor=1.0,
        overflow="expanded-drop",
        scores=x,
        source=[1, 0, 0],
        device=[0, 1, 1],
    )
    assert got.served.tolist() == [[2], [0], [-1]]


def test_a_device_shares_its_capacity_among_its_experts() -> None:
    """Four assignments, two devices: two places each, whoever of its experts is asked (DeepSeek-V2, section 2.2.3)."""
    wanted = request([[0], [1], [1], [2]], [[0.2], [0.9], [0.8], [0.1]])
    got = apply_capacity(
        wanted,
        n_experts=4,
        capacity_factor=1.0,
        scope="device",
        device=[0, 0, 1, 1],
        overflow="drop-by-probability",
        pad=True,
    )
    assert got.served.tolist() == [[-1], [1], [1], [2]]
    assert got.capacity.tolist() == [2]
    assert got.padding is not None
    assert got.padding.tolist() == [[0, 1]]


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


@pytest.mark.parametrize("factor, capacity", [(0.0, 5), (-1.0, 3), (-2.0, 5), (1.0, 3), (0.5, 1)])
def test_tutels_factor_has_a_sign(factor: float, capacity: int) -> None:
    """0: as large as the largest load; negative: that, but at most the factor's; 3 = floor(1.0 * ceil(6 / 2))."""
    got = apply_capacity(request([[0], [0], [0], [0], [0], [1]]), n_experts=2, capacity_factor=factor, rounding="tutel")
    assert got.capacity.tolist() == [capacity]
    with pytest.raises(ValueError, match="capacity_factor: found 0, wanted a positive number"):
        apply_capacity(request([[0]]), n_experts=2, capacity_factor=0)


@pytest.mark.parametrize("case", ["A_T512_E8", "ties_A_T512_E8"])
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("prioritised", [0, 1])
@pytest.mark.parametrize("factor", ["1.0", "1.25"])
def test_kept_and_dropped_are_those_of_tutel(case: str, k: int, prioritised: int, factor: str) -> None:
    """Exactly without ties; with them, whose order torch leaves open, the same experts where the cut is not tied."""
    with np.load(PUBLISHED / "inputs" / f"{case}.npz") as inputs:
        x = inputs["logits"]
    with np.load(PUBLISHED / "expected" / f"tutel_top{k}_bpr{prioritised}_cf{factor}__{case}.npz") as expected:
        indices, kept, weights = expected["indices"], expected["kept"], expected["weights"]
    p = np.exp(x - x.max(axis=1, keepdims=True))
    got = apply_capacity(
        route(x, strategy="softmax-top-k", top_k=k, norm_topk_prob=k > 1),
        n_experts=8,
        capacity_factor=float(factor),
        overflow="drop-by-priority" if prioritised else "drop-by-choice",
        rounding="tutel",
        scores=p / p.sum(axis=1, keepdims=True),
    )
    order = np.argsort(got.expert, axis=1)
    expert, served, weight = (np.take_along_axis(a, order, 1) for a in (got.expert, got.served >= 0, got.weight))
    ordered = -np.sort(-x, axis=1)
    clear = ordered[:, k - 1] > ordered[:, k]
    assert clear.sum() > 100
    np.testing.assert_array_equal(expert[clear], indices[clear])
    np.testing.assert_allclose(np.asarray(weight[clear]), np.asarray(weights[clear]), rtol=5e-6)
    if not case.startswith("ties"):
        np.testing.assert_array_equal(served, kept)


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
