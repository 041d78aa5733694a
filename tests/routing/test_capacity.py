"""Capacity keeps the request, serves what fits and drops the rest, within a stated scope."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    """What a policy cannot do without is required with a ValueError."""
    with pytest.raises(ValueError, match=message):
        apply_capacity(request([[0], [1]]), **{"n_experts": 2, "capacity_factor": 1.0, **arguments})
