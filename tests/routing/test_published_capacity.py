"""Capacities, and what they drop, are those of published code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moesim import apply_capacity, route
from tests.routing.requests import request

PUBLISHED = Path(__file__).parents[1] / "data" / "routing_cases"
"""What reference implementations made of two batches; its README says which."""


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
