"""Routers choose and weigh as those of Hugging Face transformers do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moesim import apply_capacity, route
from tests.routing.reference.compare import (
    FAMILIES,
    GROUPED,
    SIZES,
    Chosen,
    check_chosen,
    check_flags,
    grouped,
    kept_of,
    logits,
    reference,
    softmax,
    spread,
    torch,
)

reference("transformers")
pytestmark = pytest.mark.ref


def run(module: str, name: str, x: np.ndarray, *, bias: np.ndarray | None = None, **config: object) -> list[np.ndarray]:
    """What a router returns for hidden states that are its logits."""
    n_experts = x.shape[-1]
    sizes = {"hidden_size": n_experts, "num_experts": n_experts, "num_local_experts": n_experts}
    home = reference(f"transformers.models.{module}.modeling_{module}")
    router = getattr(home, name)(SimpleNamespace(**sizes, **config)).eval()
    weight = router.classifier.weight if hasattr(router, "classifier") else router.weight
    with torch.no_grad():
        weight.copy_(torch.eye(n_experts))
        if bias is not None:
            own = router.e_score_correction_bias if hasattr(router, "e_score_correction_bias") else router.bias
            own.copy_(torch.from_numpy(bias))
        return [part.numpy() for part in router(torch.from_numpy(x.copy()))]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "module, name, normalise, strategy",
    [
        ("mixtral", "MixtralTopKRouter", None, "mixtral"),
        ("qwen3_moe", "Qwen3MoeTopKRouter", False, "softmax-top-k"),
        ("qwen3_moe", "Qwen3MoeTopKRouter", True, "softmax-top-k"),
        ("olmoe", "OlmoeTopKRouter", False, "softmax-top-k"),
        ("olmoe", "OlmoeTopKRouter", True, "softmax-top-k"),
    ],
)
def test_softmax_over_all_experts(
    module: str,
    name: str,
    normalise: bool | None,
    strategy: str,
    size: tuple[int, int],
    family: str,
    lowest_first: bool,
) -> None:
    """Mixtral, Qwen3-MoE and OLMoE."""
    n_experts, k = size
    x = logits(family, n_experts)
    parameters: dict[str, Any] = {} if normalise is None else {"norm_topk_prob": normalise}
    _, weight, expert = run(module, name, x, num_experts_per_tok=k, **parameters)
    theirs = Chosen(expert=expert, weight=weight, score=softmax(x))
    got = route(x, strategy=strategy, top_k=k, **parameters)
    rows = check_chosen(got, theirs, lowest_first=lowest_first, ranked_by=x)
    assert rows.mean() > 0.99 or family != "normal"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gpt_oss(size: tuple[int, int], family: str, lowest_first: bool) -> None:
    """Its bias is part of the logits."""
    n_experts, k = size
    x = logits(family, n_experts)
    bias = np.random.default_rng(n_experts).choice([-0.5, 0.0, 1.0], n_experts).astype(np.float32)
    biased, weight, expert = run("gpt_oss", "GptOssTopKRouter", x, bias=bias, num_experts_per_tok=k)
    got = route(biased, strategy="gpt-oss", top_k=k)
    rows = check_chosen(got, Chosen(expert=expert, weight=weight, score=biased), lowest_first=lowest_first)
    assert rows.all() if lowest_first else rows.mean() > 0.99 or family != "normal"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_llama4(size: tuple[int, int], family: str, lowest_first: bool) -> None:
    """It returns sigmoids [T, E], 0 where not chosen: choose as it does to know who weighs 0."""
    n_experts, k = size
    x = logits(family, n_experts)
    sigmoids, _ = run("llama4", "Llama4Router", x, num_experts_per_tok=k)
    expert = torch.topk(torch.from_numpy(x), k, dim=1)[1].numpy()
    assert (sigmoids[~kept_of(expert, n_experts)] == 0).all()
    theirs = Chosen(expert=expert, weight=np.take_along_axis(sigmoids, expert, axis=1), score=x)
    rows = check_chosen(route(x, strategy="llama4", top_k=k), theirs, lowest_first=lowest_first)
    assert rows.all() if lowest_first else rows.mean() > 0.99 or family != "normal"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_deepseek_v2_greedy(size: tuple[int, int], family: str, lowest_first: bool) -> None:
    """No groups."""
    n_experts, k = size
    x = logits(family, n_experts)
    config: dict[str, Any] = {
        "topk_method": "greedy",
        "n_group": None,
        "topk_group": None,
        "routed_scaling_factor": 16.0,
    }
    _, weight, expert = run("deepseek_v2", "DeepseekV2TopkRouter", x, num_experts_per_tok=k, **config)
    got = route(x, strategy="deepseek-v2", top_k=k, routed_scaling_factor=16.0)
    theirs = Chosen(expert=expert, weight=weight, score=softmax(x))
    rows = check_chosen(got, theirs, lowest_first=lowest_first, ranked_by=x)
    assert rows.mean() > 0.99 or family != "normal"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", GROUPED, ids=str)
def test_deepseek_v2_groups(size: tuple[int, int, int, int], family: str, lowest_first: bool) -> None:
    """A group is as good as its best expert."""
    n_experts, k, n_group, topk_group = size
    x = logits(family, n_experts)
    groups: dict[str, Any] = {"n_group": n_group, "topk_group": topk_group, "routed_scaling_factor": 16.0}
    _, weight, expert = run(
        "deepseek_v2",
        "DeepseekV2TopkRouter",
        x,
        num_experts_per_tok=k,
        topk_method="group_limited_greedy",
        **groups,
    )
    theirs = grouped(expert, weight, softmax(x), n_group=n_group, topk_group=topk_group, best_in_group=1, fill=0.0)
    got = route(x, strategy="deepseek-v2", top_k=k, **groups)
    rows = check_chosen(got, theirs, lowest_first=lowest_first, ranked_by=x)
    assert rows.mean() > 0.99 or family != "normal"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [*GROUPED, (8, 2, 1, 1), (64, 8, 1, 1), (64, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("bias_around", [None, 0.0, -1.0])
@pytest.mark.parametrize("normalise", [False, True])
def test_deepseek_v3(
    size: tuple[int, int, int, int], bias_around: float | None, normalise: bool, family: str, lowest_first: bool
) -> None:
    """Also with a bias that makes every score negative, and one that ties often."""
    n_experts, k, n_group, topk_group = size
    x = logits(family, n_experts)
    bias = np.zeros(n_experts, dtype=np.float32) if bias_around is None else spread(n_experts, bias_around)
    parameters: dict[str, Any] = {
        "n_group": n_group,
        "topk_group": topk_group,
        "norm_topk_prob": normalise,
        "routed_scaling_factor": 2.5,
    }
    _, weight, expert = run("deepseek_v3", "DeepseekV3TopkRouter", x, bias=bias, num_experts_per_tok=k, **parameters)
    score = (torch.sigmoid(torch.from_numpy(x)) + torch.from_numpy(bias)).numpy()
    theirs = grouped(expert, weight, score, n_group=n_group, topk_group=topk_group, best_in_group=2)
    got = route(x, strategy="deepseek-v3", top_k=k, bias=None if bias_around is None else bias, **parameters)
    rows = check_chosen(got, theirs, lowest_first=lowest_first)
    assert rows.all() if lowest_first else rows.mean() > 0.99 or family != "normal"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_experts", [8, 64, 128])
@pytest.mark.parametrize("capacity", [1, 5, 64])
def test_switch_counts_by_sequence(family: str, n_experts: int, capacity: int) -> None:
    """Its capacity is a number of the configuration; it takes the first maximum, so that ties need no care."""
    x = logits(family, n_experts).reshape(6, 50, n_experts)
    config: dict[str, Any] = {"expert_capacity": capacity, "router_bias": False, "router_dtype": "float32"}
    config |= {"router_jitter_noise": 0.0, "router_ignore_padding_tokens": False}
    kept, probability, _ = run("switch_transformers", "SwitchTransformersTop1Router", x, **config)
    flat = x.reshape(-1, n_experts)
    got = apply_capacity(
        route(flat, strategy="switch", top_k=1),
        n_experts=n_experts,
        capacity_factor=1e-9,
        minimum=capacity,
        scope="sequence",
        source=np.repeat(np.arange(6), 50),
    )
    assert (got.capacity == capacity).all()
    check_flags(got)
    np.testing.assert_array_equal(got.expert[:, 0], softmax(flat).argmax(axis=1))
    np.testing.assert_array_equal(kept_of(got.served, n_experts), kept.reshape(-1, n_experts) > 0)
    np.testing.assert_allclose(got.weight, probability.reshape(-1, 1), rtol=5e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_experts", [8, 64, 128])
@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.2, 1.0])
@pytest.mark.parametrize("prioritised, lowest_first", [(False, False), (True, True)], indirect=["lowest_first"])
def test_nllb_is_gshard_with_a_capacity_of_its_own(
    family: str, n_experts: int, fraction: float, prioritised: bool, lowest_first: bool
) -> None:
    """ceil(fraction of the tokens); normalised before dropping, second experts always kept.

    Left alone, torch would sort tokens of equal priority in any order.
    """
    x = logits(family, n_experts)
    config: dict[str, Any] = {"expert_capacity": None, "router_bias": False, "router_dtype": "float32"}
    config |= {"router_ignore_padding_tokens": False, "second_expert_policy": "all"}
    config |= {"normalize_router_prob_before_dropping": True, "batch_prioritized_routing": prioritised}
    config |= {"moe_eval_capacity_token_fraction": fraction}
    first, weight, _ = run("nllb_moe", "NllbMoeTop2Router", x, **config)
    request = route(x, strategy="gshard", top_k=2)
    p = softmax(x)
    got = apply_capacity(
        request,
        n_experts=n_experts,
        capacity_factor=1e-9,
        minimum=int(np.ceil(fraction * len(x))),
        overflow="drop-by-priority" if prioritised else "drop-by-choice",
        scores=np.take_along_axis(p, request.expert.astype(np.int64), axis=1),
    )
    check_flags(got)
    np.testing.assert_array_equal(kept_of(got.served[:, :1], n_experts), first > 0)
    ours = np.zeros_like(p)
    np.put_along_axis(ours, got.expert.astype(np.int64), np.where(got.served >= 0, got.weight, 0.0), axis=1)
    np.testing.assert_array_equal(ours > 0, weight > 0)
    np.testing.assert_allclose(ours, weight, rtol=5e-6, atol=1e-37)
