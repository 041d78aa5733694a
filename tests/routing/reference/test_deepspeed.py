"""Capacity and dropping are those of DeepSpeed's gates."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from moesim import Assignment, apply_capacity, route
from tests.routing.reference.compare import (
    DROPPED_SIZES,
    FACTORS,
    FAMILIES,
    SIZES,
    check_flags,
    check_kept,
    kept_of,
    logits,
    no_choices,
    reference,
    softmax,
    torch,
)

os.environ.setdefault("DS_ACCELERATOR", "cpu")
deepspeed = reference("deepspeed.moe.sharded_moe")
pytestmark = pytest.mark.ref

MINIMUM = 4


def run(gate: str, x: np.ndarray, **parameters: Any) -> tuple[int, np.ndarray, np.ndarray]:
    """Capacity, the experts [T, K] that serve each choice or -1, and the weights [T, K] of a gate."""
    found = getattr(deepspeed, gate)(torch.from_numpy(x.copy()), min_capacity=MINIMUM, sparse_routes=True, **parameters)
    _, capacity, _, expert, _, weight, _ = found
    return int(capacity), expert.numpy().T, weight.numpy().T


def serve(request: Assignment, p: np.ndarray, factor: float, overflow: str, **changes: Any) -> Assignment:
    """Our policy with DeepSpeed's rounding, ranking by its own probabilities p [T, E].

    Its gates of two and more experts divide by the sum over the survivors, the top-1 gate does not.
    """
    changes = {"renormalise": request.expert.shape[1] > 1, **changes}
    values = {"scores": np.take_along_axis(p, request.expert.astype(np.int64), axis=1), **changes}
    got = apply_capacity(
        request,
        n_experts=p.shape[1],
        capacity_factor=factor,
        overflow=overflow,
        minimum=MINIMUM,
        rounding="deepspeed",
        **values,
    )
    check_flags(got)
    return got


def check_weights(got: Assignment, expert: np.ndarray, weight: np.ndarray) -> None:
    """Weights by expert, 0 where dropped, are equal; those of DeepSpeed are for experts [T, K], -1 where dropped."""
    n_experts = 1 + max(int(got.expert.max()), int(expert.max()))
    ours, theirs = np.zeros((2, len(expert), n_experts + 1), dtype=np.float32)
    kept = np.where(got.served >= 0, got.weight, np.float32(0))
    np.put_along_axis(ours, got.served.astype(np.int64), kept, axis=1)
    np.put_along_axis(theirs, expert.astype(np.int64), weight, axis=1)
    np.testing.assert_allclose(ours[:, :-1], theirs[:, :-1], rtol=5e-6, atol=1e-37)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [s for s in DROPPED_SIZES if s[1] > 1], ids=str)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("policy", ["probs", "position"])
def test_top_k_gate(policy: str, factor: float, size: tuple[int, int], family: str, lowest_first: bool) -> None:
    """By probability, or the earliest token first with all its choices.

    The request is its own, dropless one: which of equal probabilities it takes
    is not the question here.
    """
    n_experts, k = size
    x = logits(family, n_experts)
    p = softmax(x)
    _, asked, _ = run("topkgating", x, k=k, capacity_factor=factor, drop_tokens=False)
    capacity, expert, weight = run("topkgating", x, k=k, capacity_factor=factor, drop_policy=policy)
    request = Assignment.of(asked, np.take_along_axis(p, asked.astype(np.int64), axis=1))
    got = serve(request, p, factor, "drop-by-probability" if policy == "probs" else "drop-by-position")
    assert got.capacity.tolist() == [capacity]
    chosen, ours, theirs = (kept_of(each, n_experts) for each in (asked, got.served, expert))
    if policy == "position":
        np.testing.assert_array_equal(ours, theirs)
    else:
        defined = check_kept(ours, theirs, np.where(chosen, p, 0), capacity, lowest_first=lowest_first)
        if defined < 1:
            assert not lowest_first
            return
    check_weights(got, expert, weight)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [s for s in SIZES if s[1] > 1], ids=str)
@pytest.mark.parametrize("lowest_first", [True], indirect=True, ids=["lowest-first"])
def test_top_k_gate_from_our_choice(size: tuple[int, int], family: str, lowest_first: bool) -> None:
    """Router and policy together, where equal probabilities come from equal logits."""
    n_experts, k = size
    x = logits(family, n_experts)
    if family == "extreme":
        x /= np.float32(2e3)  # nothing underflows
    capacity, expert, weight = run("topkgating", x, k=k, capacity_factor=1.0, drop_policy="position")
    got = serve(route(x, strategy="softmax-top-k", top_k=k), softmax(x), 1.0, "drop-by-position")
    assert got.capacity.tolist() == [capacity]
    np.testing.assert_array_equal(kept_of(got.served, n_experts), kept_of(expert, n_experts))
    check_weights(got, expert, weight)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_experts", [8, 60, 64, 256])
@pytest.mark.parametrize("factor", FACTORS)
def test_top_1_gate(factor: float, n_experts: int, family: str, lowest_first: bool) -> None:
    """It takes the largest of zeros and ones by token: the earliest with the lowest first, else only their number."""
    x = logits(family, n_experts)
    capacity, expert, weight = run("top1gating", x, capacity_factor=factor, use_rts=False)
    got = serve(route(x, strategy="switch", top_k=1), softmax(x), factor, "drop-by-position")
    assert got.capacity.tolist() == [capacity]
    ours, theirs = kept_of(got.served, n_experts), kept_of(expert, n_experts)
    np.testing.assert_array_equal(ours.sum(axis=0), theirs.sum(axis=0))
    if lowest_first:
        np.testing.assert_array_equal(ours, theirs)
        check_weights(got, expert, weight)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_experts", [8, 60, 64, 256])
@pytest.mark.parametrize("factor", FACTORS)
def test_random_token_selection(
    factor: float, n_experts: int, family: str, lowest_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The top-1 gate serves the tokens with the largest of its uniform draws, which are given here."""
    x = logits(family, n_experts)
    draw = np.random.default_rng(n_experts).permutation(x.size).reshape(x.shape)
    draw = ((draw + 1) / (x.size + 1)).astype(np.float32)
    monkeypatch.setitem(deepspeed.exp_selection_uniform_map, torch.device("cpu"), lambda _: torch.from_numpy(draw))
    capacity, expert, weight = run("top1gating", x, capacity_factor=factor, use_rts=True)
    request = route(x, strategy="switch", top_k=1)
    got = serve(request, draw, factor, "drop-by-probability")
    assert got.capacity.tolist() == [capacity]
    np.testing.assert_array_equal(kept_of(got.served, n_experts), kept_of(expert, n_experts))
    check_weights(got, expert, weight)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_experts", [8, 60, 64, 256])
@pytest.mark.parametrize("factor", FACTORS)
def test_top_2_gate(factor: float, n_experts: int, family: str) -> None:
    """First choices before second ones; it takes first maxima, so that ties need no care."""
    x = logits(family, n_experts)
    capacity, expert, weight = run("top2gating", x, capacity_factor=factor, top2_2nd_expert_sampling=False)
    got = serve(route(x, strategy="softmax-top-k", top_k=2), softmax(x), factor, "drop-by-choice")
    assert got.capacity.tolist() == [capacity]
    np.testing.assert_array_equal(got.served, expert)
    check_weights(got, expert, weight)


@pytest.mark.parametrize("k", [1, 2, 4, 6, 8])
@pytest.mark.parametrize("n_experts", [7, 8, 60, 64, 256])
@pytest.mark.parametrize("minimum", [0, 4])
def test_capacity(k: int, n_experts: int, minimum: int) -> None:
    """Of many numbers of tokens and factors, to the last bit of a float32."""
    tokens = np.concatenate([np.arange(1, 41), np.random.default_rng(k).integers(41, 3000, 40), [700, 1000]])
    request, sequence = no_choices(tokens, k)
    for factor in (0.3, 0.7, 0.9, 1.0, 1.05, 1.1, 1.25, 1.3, 1.5, 2.0, 3.3):
        got = apply_capacity(
            request,
            n_experts=n_experts,
            capacity_factor=factor,
            minimum=minimum,
            rounding="deepspeed",
            scope="sequence",
            source=sequence,
        )
        limits = torch.tensor(factor * k), torch.tensor(minimum)
        expected = [int(deepspeed._capacity(torch.empty(int(t), n_experts), *limits)) for t in tokens]  # noqa: SLF001
        np.testing.assert_array_equal(got.capacity, expected)
