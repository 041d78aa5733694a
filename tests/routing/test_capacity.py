"""Capacity keeps the request, serves what fits and drops the rest, within a stated scope."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moesim import Assignment, apply_capacity, route
from moesim.routing import OVERFLOWS, SCOPES


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
    places = {"n_experts": 3, "capacity_factor": 1.0}
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


@pytest.mark.skipif("MOESIM_DATA" not in os.environ, reason="MOESIM_DATA names no folder of recordings")
@pytest.mark.parametrize("case", ["A_T512_E8", "ties_A_T512_E8"])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("prioritised", [0, 1])
@pytest.mark.parametrize("factor", ["0.5", "1.0"])
def test_kept_and_dropped_are_those_of_v_moe(case: str, k: int, prioritised: int, factor: str) -> None:
    """Ties too: its order is defined and the same as ours."""
    home = Path(os.environ["MOESIM_DATA"]) / "routing_cases"
    with np.load(home / "inputs" / f"{case}.npz") as inputs:
        x = inputs["logits"]
    name = f"vmoe_top{k}_bpr{prioritised}_cf{factor}__{case}.npz"
    with np.load(home / "expected" / name) as expected:
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
    st.sampled_from(sorted(OVERFLOWS)),
    st.sampled_from(sorted(SCOPES)),
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
        ({"scope": "source-rank"}, "source: missing"),
        ({"scope": "sequence", "source": [1]}, "source: found shape"),
        ({"capacity_factor": 0.0}, "positive"),
        ({"capacity_factor": float("nan")}, "positive"),
        ({"n_experts": 1}, "n_experts"),
        ({"minimum": -1}, "minimum"),
        ({"overflow": "drop-by-probability", "scores": [[1.0]]}, "scores"),
        ({"overflow": "drop-at-random"}, "seed: missing"),
        ({"rounding": "up"}, "rounding"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
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
