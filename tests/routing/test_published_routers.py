"""Routers and capacity equal what published code made of the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from moesim import Assignment, apply_capacity, route
from moesim.routing.gshard import GShardParameters, top_2

PUBLISHED = Path(__file__).parents[1] / "data" / "routing_cases"
"""What reference implementations made of two batches; its README says which."""


def published(name: str, case: str) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Logits of a case and what a reference made of them."""
    with np.load(PUBLISHED / "inputs" / f"{case}.npz") as inputs:
        x = inputs["logits"]
    with np.load(PUBLISHED / "expected" / f"{name}__{case}.npz") as expected:
        return x, {key: expected[key] for key in expected.files}


def by_index(assignment: Assignment) -> tuple[NDArray[Any], NDArray[Any]]:
    """Served experts of each token in ascending order, -1 last, with their weights."""
    served = np.where(assignment.served < 0, 999, assignment.served)
    order = np.argsort(served, axis=1, kind="stable")
    expert = np.take_along_axis(served, order, axis=1)
    weight = np.where(assignment.served >= 0, assignment.weight, 0)
    return np.where(expert == 999, -1, expert), np.take_along_axis(weight, order, axis=1)


def reference(expected: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Kept experts of each token as a reference has them, in ascending order, -1 last, with their weights."""
    theirs = np.where(expected["indices"] < 0, 999, expected["indices"].astype(int))
    order = np.argsort(theirs, axis=1, kind="stable")
    theirs = np.take_along_axis(theirs, order, axis=1)
    weight = np.where(theirs == 999, 0, np.take_along_axis(expected["weights"], order, axis=1))
    return np.where(theirs == 999, -1, theirs), weight


CASES = pytest.mark.parametrize("case", ["A_T512_E8", "ties_A_T512_E8"])


@CASES
@pytest.mark.parametrize("factor", ["1.0", "2.0"])
@pytest.mark.parametrize("legacy", [0, 1])
@pytest.mark.parametrize("policy", ["all", "sampling", "random0.5", "random1.0"])
def test_gshard_equals_lingvo(case: str, factor: str, policy: str, legacy: int) -> None:
    """With its random numbers; ties too, as its order is ours."""
    x, expected = published(f"gshard_top2_{policy}_legacy{legacy}_cf{factor}", case)
    noise = expected.get("u", np.zeros(len(x), dtype=np.float32))[:, None]
    if policy == "sampling":  # all were given the same draws
        u = published("gshard_top2_sampling_legacy1_cf1.0", case)[1]["uniform2"]
        noise = -np.log(-np.log(u))
    parameters = GShardParameters(
        second_expert_policy=policy.rstrip(".015"),
        second_expert_threshold=float(policy.removeprefix("random")) if policy.startswith("random") else 0.0,
        legacy_mtf_behavior=bool(legacy),
    )
    got = apply_capacity(
        top_2(x, noise, parameters),
        n_experts=8,
        capacity_factor=float(factor),
        overflow="drop-by-choice",
        rounding="lingvo",
        renormalise=not legacy,
    )
    (expert, weight), (their_expert, their_weight) = by_index(got), reference(expected)
    assert np.array_equal(expert, their_expert)
    assert np.allclose(weight, their_weight, rtol=5e-6, atol=0)


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
    (expert, weight), (their_expert, their_weight) = by_index(got), reference(expected)
    assert np.array_equal(expert, their_expert)
    assert np.allclose(weight, their_weight, rtol=5e-6, atol=0)


@CASES
@pytest.mark.parametrize(
    "name, k",
    [("vmoe_expert_choice_cf1.0", 1), ("vmoe_expert_choice_cf2.0", 2), ("flaxformer_expert_choice", 1)],
)
def test_expert_choice_equals_v_moe_and_flaxformer(case: str, name: str, k: int) -> None:
    """The tokens of every expert; ties by the earliest token."""
    x, expected = published(name, case)
    got = route(x, strategy="expert-choice", top_k=k)
    for e in range(8):
        mine = np.flatnonzero((got.expert == e).any(axis=1))
        np.testing.assert_array_equal(mine, np.sort(expected["tokens"][e]))


@pytest.mark.parametrize("case", ["A_T512_E8", "ties_A_T512_E8"])
@pytest.mark.parametrize("p", ["0.4", "0.8"])
def test_top_p_equals_the_published_code(case: str, p: str) -> None:
    """Dynamic_MoE: the same sets on rows without ties at the cut, the same weights."""
    with np.load(PUBLISHED / "inputs" / f"{case}.npz") as inputs:
        x = inputs["logits"]
    with np.load(PUBLISHED / "expected" / f"topp_p{p}__{case}.npz") as expected:
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


@CASES
@pytest.mark.parametrize("train", [False, True])
def test_noisy_top_k_equals_tensor2tensor(case: str, train: bool) -> None:
    """At evaluation without noise; in training with its noise, softplus(raw) + 0.01 times a normal number."""
    x, expected = published(f"noisy_topk_t2t_{'train' if train else 'eval'}_k2", case)
    noisy = x
    if train:
        noisy = x + expected["normal"] * (np.logaddexp(0, x) + np.float32(1e-2)).astype(np.float32)
    got = route(noisy, strategy="noisy-top-k", top_k=2, noise_std=0.0)
    (expert, weight), (their_expert, their_weight) = by_index(got), reference(expected)
    assert np.array_equal(expert, their_expert)
    assert np.allclose(weight, their_weight, rtol=5e-6, atol=0)


@CASES
def test_longcat_equals_transformers(case: str) -> None:
    """Where the cut is clear; the bias of the case as the reference had it."""
    x, expected = published("longcat_k2", case)
    with np.load(PUBLISHED / "inputs" / f"{case}.npz") as inputs:
        bias = inputs["bias"] * np.float32(0.02)
    got = route(x, strategy="longcat", top_k=2, bias=bias, routed_scaling_factor=6.0, n_zero_experts=1)
    clear = expected["cut_gap"] > 0
    assert clear.mean() > 0.9
    expert, weight = by_index(got)
    np.testing.assert_array_equal(expert[clear], expected["indices"][clear])
    np.testing.assert_allclose(weight[clear], expected["weights"][clear], rtol=5e-6)


@CASES
@pytest.mark.parametrize("mixtral", [0, 1])
def test_moe_plus_plus_equals_the_published_code(case: str, mixtral: int) -> None:
    """The zero expert weighs nothing, but in its gating after Mixtral."""
    x, expected = published(f"moepp_top2_mixtral{mixtral}", case)
    got = route(x, strategy="moe-plus-plus", top_k=2, moe_use_mixtral_gating=bool(mixtral))
    ordered = -np.sort(-x, axis=1)
    clear = ordered[:, 1] > ordered[:, 2]
    expert, weight = by_index(got)
    np.testing.assert_array_equal(expert[clear], expected["indices"][clear])
    np.testing.assert_allclose(weight[clear], expected["weights"][clear], rtol=5e-6)
    assert (weight[expert == 7] == 0).all() == (not mixtral)


@CASES
def test_base_is_the_optimum_that_fairseq_approaches(case: str) -> None:
    """As good as the exact assignment, better than fairseq's auction, and equal loads."""
    x, exact = published("base_lsa", case)
    auction = published("base_fairseq_auction", case)[1]
    got = route(x, strategy="base", top_k=1)
    np.testing.assert_array_equal(got.requested_load(8), 64)
    total = np.take_along_axis(x, got.expert, axis=1).astype(np.float64).sum()
    assert total == pytest.approx(float(exact["objective"]), rel=2e-6)
    assert total >= float(auction["objective"])
    if not case.startswith("ties"):
        np.testing.assert_array_equal(got.expert, exact["indices"])
        np.testing.assert_allclose(got.weight, exact["weights"], rtol=5e-6)
