"""Routers, capacity and dropping are those of Megatron-Core."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim import Assignment, apply_capacity, route
from moesim.routing.training_balance import add_statistics, auxiliary_loss, updated_bias
from tests.routing.reference.compare import (
    DROPPED_SIZES,
    FACTORS,
    FAMILIES,
    GROUPED,
    SIZES,
    Chosen,
    check_chosen,
    check_flags,
    check_kept,
    chosen_of,
    grouped,
    kept_of,
    logits,
    no_choices,
    reference,
    softmax,
    spread,
    torch,
)

megatron = reference("megatron.core.transformer.moe.moe_utils")
switch_loss = megatron.switch_load_balancing_loss_func
pytestmark = pytest.mark.ref


def run(x: np.ndarray, k: int, **parameters: Any) -> tuple[np.ndarray, np.ndarray]:
    """Experts [T, K] by index, and their weights."""
    weight, chosen = megatron.topk_routing_with_score_function(torch.from_numpy(x.copy()), k, **parameters)
    expert = chosen_of(chosen.numpy(), k)
    assert (weight.numpy()[~chosen.numpy()] == 0).all()
    return expert, np.take_along_axis(weight.numpy(), expert, axis=1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "score_function, pre, strategy",
    [
        ("softmax", False, "mixtral"),
        ("softmax", False, "gpt-oss"),
        ("softmax", True, "softmax-top-k"),
        ("sigmoid", False, "deepseek-v3"),
    ],
)
def test_top_k(
    score_function: str, pre: bool, strategy: str, size: tuple[int, int], family: str, lowest_first: bool
) -> None:
    """Softmax over the chosen, softmax over all, sigmoids; a single sigmoid is not divided by itself."""
    n_experts, k = size
    x = logits(family, n_experts)
    expert, weight = run(x, k, score_function=score_function, use_pre_softmax=pre)
    score, ranked_by = x, None
    if pre:
        score, ranked_by = softmax(x), x
    if score_function == "sigmoid":
        score = torch.sigmoid(torch.from_numpy(x)).numpy()
    got = route(x, strategy=strategy, top_k=k, **({"norm_topk_prob": k > 1} if strategy == "deepseek-v3" else {}))
    theirs = Chosen(expert=expert, weight=weight, score=score)
    rows = check_chosen(got, theirs, lowest_first=lowest_first, ranked_by=ranked_by)
    assert rows.mean() > 0.99 or family != "normal"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", GROUPED, ids=str)
@pytest.mark.parametrize("scaling", [None, 2.5])
def test_sigmoid_with_bias_and_groups(
    scaling: float | None, size: tuple[int, int, int, int], family: str, lowest_first: bool
) -> None:
    """A group's score is the sum of its best k / groups kept; DeepSeek-V3's rule, the sum of two, where that is 2."""
    n_experts, k, n_group, topk_group = size
    x, bias = logits(family, n_experts), spread(n_experts)
    expert, weight = run(
        x,
        k,
        score_function="sigmoid",
        num_groups=n_group,
        group_topk=topk_group,
        scaling_factor=scaling,
        expert_bias=torch.from_numpy(bias),
    )
    score = (torch.sigmoid(torch.from_numpy(x)) + torch.from_numpy(bias)).numpy()
    theirs = grouped(expert, weight, score, n_group=n_group, topk_group=topk_group, best_in_group=k // topk_group)
    got = route(
        x,
        strategy="deepseek-v3",
        top_k=k,
        bias=bias,
        group_score="top-k-sum",
        n_group=n_group,
        topk_group=topk_group,
        routed_scaling_factor=scaling or 1.0,
    )
    rows = check_chosen(got, theirs, lowest_first=lowest_first)
    assert rows.all() if lowest_first else rows.mean() > 0.99 or family != "normal"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(8, 2, 4, 2), (64, 4, 8, 4), (256, 6, 16, 6)], ids=str)
@pytest.mark.parametrize("pre", [False, True])
def test_softmax_with_groups(pre: bool, size: tuple[int, int, int, int], family: str, lowest_first: bool) -> None:
    """DeepSeek-V2's rule where as many groups are kept as experts: by the best of each."""
    n_experts, k, n_group, topk_group = size
    x = logits(family, n_experts)
    expert, weight = run(x, k, use_pre_softmax=pre, num_groups=n_group, group_topk=topk_group)
    theirs = grouped(expert, weight, softmax(x) if pre else x, n_group=n_group, topk_group=topk_group, best_in_group=1)
    got = route(x, strategy="deepseek-v2", top_k=k, n_group=n_group, topk_group=topk_group, norm_topk_prob=not pre)
    rows = check_chosen(got, theirs, lowest_first=lowest_first, ranked_by=x if pre else None)
    assert rows.mean() > 0.99 or family != "normal"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", DROPPED_SIZES, ids=str)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("policy", ["probs", "position"])
@pytest.mark.parametrize("pre", [False, True])
def test_dropping(
    pre: bool, policy: str, factor: float, size: tuple[int, int], family: str, lowest_first: bool
) -> None:
    """The same pairs are kept, with the weights they had.

    Both policies take the largest of a column, of weights or, "position", of
    zeros and ones: with the lowest first these are the earliest tokens, else
    only their number is defined.
    """
    n_experts, k = size
    x = logits(family, n_experts)
    weight, chosen = megatron.topk_routing_with_score_function(torch.from_numpy(x), k, use_pre_softmax=pre)
    final_weight, final = megatron.apply_router_token_dropping(weight, chosen, k, factor, drop_policy=policy)
    weight, chosen, final_weight, final = (part.numpy() for part in (weight, chosen, final_weight, final))
    expert = chosen_of(chosen, k)
    got = apply_capacity(
        Assignment.of(expert.astype(np.int32), np.take_along_axis(weight, expert, axis=1)),
        n_experts=n_experts,
        capacity_factor=factor,
        overflow="drop-by-probability" if policy == "probs" else "drop-by-position",
    )
    check_flags(got)
    kept = kept_of(got.served, n_experts)
    rank_by = weight if policy == "probs" else chosen.astype(np.float32)
    defined = check_kept(kept, final, rank_by, int(got.capacity[0]), lowest_first=lowest_first)
    assert defined == 1 or not lowest_first
    if defined == 1:
        np.testing.assert_array_equal(np.where(kept, weight, 0), final_weight)


@pytest.mark.parametrize("k", [1, 2, 4, 6, 8])
@pytest.mark.parametrize("n_experts", [7, 8, 60, 64, 256])
@pytest.mark.parametrize("minimum", [0, 4])
def test_capacity(k: int, n_experts: int, minimum: int) -> None:
    """Of many numbers of tokens and factors, to the last bit of a double."""
    tokens = np.concatenate([np.arange(1, 41), np.random.default_rng(k).integers(41, 3000, 40), [700, 1000]])
    request, sequence = no_choices(tokens, k)
    for factor in (0.3, 0.7, 0.9, 1.0, 1.05, 1.1, 1.25, 1.3, 1.5, 2.0, 3.3):
        got = apply_capacity(
            request,
            n_experts=n_experts,
            capacity_factor=factor,
            minimum=minimum,
            rounding="megatron",
            scope="sequence",
            source=sequence,
        )
        expected = [megatron.get_capacity(int(t) * k, n_experts, factor, minimum) for t in tokens]
        np.testing.assert_array_equal(got.capacity, expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sinkhorn(size: tuple[int, int]) -> None:
    """The k largest of its matrix, except in rows that rounding to float32 ties; weights without its factors."""
    n_experts, k = size
    x = logits("normal", n_experts)
    theirs = megatron.sinkhorn(torch.from_numpy(x.copy())).numpy()
    best = np.argsort(-theirs, axis=1, kind="stable")[:, : k + 1]
    got = route(x, strategy="sinkhorn", top_k=k)
    ordered = np.take_along_axis(theirs, best, axis=1).astype(np.float64)
    clear = (ordered[:, k - 1] - ordered[:, k]) > 1e-5 * ordered[:, k - 1]
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(kept_of(got.expert, n_experts)[clear], kept_of(best[:, :k], n_experts)[clear])
    score = torch.sigmoid(torch.from_numpy(x)).numpy() if k == 1 else softmax(x)
    np.testing.assert_allclose(got.weight, np.take_along_axis(score, got.expert.astype(np.int64), axis=1), rtol=5e-6)


def test_balancing_losses_are_those_of_megatron() -> None:
    """Auxiliary loss over softmax and normalised sigmoid probabilities, and the z-loss, each for a coefficient of 1."""
    x = logits("normal", 64)
    tensor = torch.from_numpy(x.copy())
    source = np.zeros(len(x), dtype=np.int32)
    load = route(x, strategy="mixtral", top_k=6).requested_load(64)[None]
    for by_sigmoid in (False, True):
        probability = np.zeros((1, 64))
        squares = add_statistics(x, source, by_sigmoid=by_sigmoid, probability=probability)
        p = torch.sigmoid(tensor) if by_sigmoid else torch.softmax(tensor, dim=-1)
        p /= p.sum(dim=-1, keepdim=True)
        theirs = switch_loss(p, torch.from_numpy(load[0]), len(x), 6, 64, 1.0)
        assert auxiliary_loss(load, probability, scope="global-batch")[0] == pytest.approx(float(theirs), rel=5e-6)
        assert squares / len(x) == pytest.approx(float(megatron.z_loss_func(tensor, 1.0)), rel=5e-6)


def test_the_bias_moves_as_megatrons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 50 steps of random loads, one process standing for all ranks."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_, **__: None)
    monkeypatch.setattr(megatron.parallel_state, "get_tensor_and_data_parallel_group", lambda **_: None)
    rng = np.random.default_rng(0)
    ours = np.zeros(16, dtype=np.float32)
    theirs = torch.zeros(16)
    for _ in range(50):
        load = rng.integers(0, 5, 16)
        ours = updated_bias(ours, load, step_size=1e-3, rule="sign")
        theirs = megatron.get_updated_expert_bias(torch.from_numpy(load).float(), theirs, 1e-3)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-8)
