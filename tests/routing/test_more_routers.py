"""gpt-oss, llama4, top-p, deepseek-v2 and round-robin equal plain NumPy references and published results."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moesim import Assignment, apply_capacity, route
from moesim.errors import InputError
from moesim.routing.gshard import top_2

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
    return e / e.sum(axis=-1, keepdims=True)


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
    got = route(np.zeros((4, 6)), strategy="round-robin", top_k=2, n_ranks=2)
    assert got.expert.ravel().tolist() == [0, 3, 1, 4, 2, 5, 0, 3]
    load = route(np.zeros((30, 6)), strategy="round-robin", top_k=4, n_ranks=3, offset=5).requested_load(6)
    assert load.tolist() == [20] * 6


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
    x = np.tile(np.array([[1.0, 0.0, -5.0]], dtype=np.float32), (20_000, 1))
    every = route(x, strategy="gshard", top_k=2)
    assert (every.expert == [0, 1]).all()
    g2 = 1 / (1 + np.e)
    np.testing.assert_allclose(every.weight[0], [1 - g2, g2], rtol=1e-5)
    some = route(x, strategy="gshard", top_k=2, second_expert_threshold=0.5, seed=1)
    kept = (some.expert[:, 1] == 1).mean()
    assert abs(kept - g2 / 0.5) < 4 * np.sqrt(0.25 / len(x))
    assert (some.expert[:, 0] == 0).all()
    assert (some.weight[some.expert < 0] == 0).all()
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
        ({"strategy": "round-robin", "top_k": 2, "offset": -1}, "offset: found -1, wanted 0 or more"),
        ({"strategy": "deepseek-v2", "top_k": 2, "n_group": 5}, "n_group: found 5, wanted a number that divides"),
        (
            {"strategy": "deepseek-v2", "top_k": 4, "n_group": 6, "topk_group": 1},
            "top_k: found 4, wanted at most",
        ),
    ],
)
def test_wrong_parameters_are_refused(arguments: dict, message: str) -> None:
    """The error says what would be right."""
    with pytest.raises(InputError, match=message):
        route(np.zeros((2, 12)), **arguments)


def published(name: str, case: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits of a case and what a reference made of them."""
    home = Path(os.environ["MOESIM_DATA"]) / "routing_cases"
    with np.load(home / "inputs" / f"{case}.npz") as inputs:
        x = inputs["logits"]
    with np.load(home / "expected" / f"{name}__{case}.npz") as expected:
        return x, {key: expected[key] for key in expected.files}


def by_index(assignment: Assignment) -> tuple[np.ndarray, np.ndarray]:
    """Served experts of each token in ascending order, -1 last, with their weights."""
    served = np.where(assignment.served < 0, 999, assignment.served)
    order = np.argsort(served, axis=1, kind="stable")
    expert = np.take_along_axis(served, order, axis=1)
    weight = np.where(assignment.served >= 0, assignment.weight, 0)
    return np.where(expert == 999, -1, expert), np.take_along_axis(weight, order, axis=1)


def same(assignment: Assignment, expected: dict[str, np.ndarray]) -> None:
    """The kept pairs are those of the reference, with their weights."""
    expert, weight = by_index(assignment)
    theirs = np.where(expected["indices"] < 0, 999, expected["indices"].astype(int))
    order = np.argsort(theirs, axis=1, kind="stable")
    theirs = np.take_along_axis(theirs, order, axis=1)
    np.testing.assert_array_equal(expert, np.where(theirs == 999, -1, theirs))
    their_weight = np.take_along_axis(expected["weights"], order, axis=1)
    np.testing.assert_allclose(weight, np.where(theirs == 999, 0, their_weight), rtol=5e-6)


NEEDS_DATA = pytest.mark.skipif("MOESIM_DATA" not in os.environ, reason="MOESIM_DATA names no folder of recordings")
CASES = pytest.mark.parametrize("case", ["A_T512_E8", "ties_A_T512_E8"])


@NEEDS_DATA
@CASES
@pytest.mark.parametrize("factor", ["1.0", "2.0"])
@pytest.mark.parametrize("policy", ["all", "random0.5", "random1.0"])
def test_gshard_equals_lingvo(case: str, factor: str, policy: str) -> None:
    """With its random numbers; ties too, as its order is ours."""
    x, expected = published(f"gshard_top2_{policy}_legacy1_cf{factor}", case)
    threshold = 0.0 if policy == "all" else float(policy.removeprefix("random"))
    u = expected.get("u", np.zeros(len(x), dtype=np.float32))
    routed = top_2(x, u, threshold)
    got = apply_capacity(
        routed, n_experts=8, capacity_factor=float(factor), overflow="drop-by-choice", rounding="lingvo"
    )
    same(got, expected)


@NEEDS_DATA
@CASES
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("prioritised", [0, 1])
def test_st_moe_equals_flaxformer(case: str, k: int, prioritised: int) -> None:
    """Choice-major, with and without batch priority; a capacity that leaves top_k out."""
    x, expected = published(f"flaxformer_top{k}_bpr{prioritised}", case)
    got = apply_capacity(
        route(x, strategy="st-moe", top_k=k),
        n_experts=8,
        capacity_factor=1.25,
        overflow="drop-by-priority" if prioritised else "drop-by-choice",
        rounding="flaxformer",
    )
    same(got, expected)


@NEEDS_DATA
@CASES
@pytest.mark.parametrize("name, k", [("vmoe_expert_choice_cf1.0", 1), ("vmoe_expert_choice_cf2.0", 2)])
def test_expert_choice_equals_v_moe(case: str, name: str, k: int) -> None:
    """The tokens of every expert; ties by the earliest token."""
    x, expected = published(name, case)
    got = route(x, strategy="expert-choice", top_k=k)
    for e in range(8):
        mine = np.flatnonzero((got.expert == e).any(axis=1))
        np.testing.assert_array_equal(mine, np.sort(expected["tokens"][e]))


@pytest.mark.skipif("MOESIM_DATA" not in os.environ, reason="MOESIM_DATA names no folder of recordings")
@pytest.mark.parametrize("case", ["A_T512_E8", "ties_A_T512_E8"])
@pytest.mark.parametrize("p", ["0.4", "0.8"])
def test_top_p_equals_the_published_code(case: str, p: str) -> None:
    """Dynamic_MoE: the same sets on rows without ties at the cut, the same weights."""
    home = Path(os.environ["MOESIM_DATA"]) / "routing_cases"
    with np.load(home / "inputs" / f"{case}.npz") as inputs:
        x = inputs["logits"]
    with np.load(home / "expected" / f"topp_p{p}__{case}.npz") as expected:
        indices, weights = expected["indices"], expected["weights"]
        assert json.loads(str(expected["params"]))
    got = route(x, strategy="top-p", top_k=x.shape[1], top_p=float(p))
    compared = 0
    for row in range(len(x)):
        chosen = got.expert[row][got.expert[row] >= 0]
        theirs = indices[row][indices[row] >= 0]
        rest = np.delete(x[row], chosen)
        if len(rest) and x[row, chosen].min() == rest.max():
            continue  # tied at the cut: the reference sorts unstably
        compared += 1
        assert sorted(chosen) == sorted(theirs)
        order = np.argsort(chosen)
        np.testing.assert_allclose(got.weight[row][: len(chosen)][order], weights[row][indices[row] >= 0], rtol=5e-6)
    assert compared > 0.5 * len(x)
