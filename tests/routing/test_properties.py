"""What holds for every router, over sizes and kinds of logits: E from 8 to 512, top-1 to top-16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim import route
from moesim.routing import STRATEGIES, parameters_for, strategy
from moesim.types import Draw
from tests.interpreted import INTERPRETED

KINDS = ("random", "quantised", "bfloat16", "extreme", "degenerate")
SIZES = ((8, 1), (8, 2), (60, 4), (64, 6), (128, 8), (256, 8), (512, 16))[: 4 if INTERPRETED else None]
TOP_K = {"switch": 1, "base": 1, "gshard": 2, "moe-plus-plus": 2}
SHIFT_INVARIANT = ("mixtral", "softmax-top-k", "gpt-oss", "st-moe", "deepseek-v2", "switch", "top-p", "expert-choice")
DRAWS = {"random", "round-robin", "hash"}  # whatever the logits say
TOKEN_SCOPE = [name for name in STRATEGIES if strategy(name).scope == "token"]
GATES = ("softmax-top-k", "mixtral", "gpt-oss", "st-moe", "llama4", "deepseek-v2", "deepseek-v3")


def logits(kind: str, tokens: int, experts: int, seed: int = 0) -> np.ndarray:
    """Of a family that has broken routers before."""
    x = np.random.default_rng(seed).normal(scale=2, size=(tokens, experts)).astype(np.float32)
    if kind == "quantised":
        return np.round(x * 2) / 2
    if kind == "bfloat16":
        return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    if kind == "extreme":
        return x * np.float32(5e3)
    return np.zeros_like(x) if kind == "degenerate" else x


def asked(name: str, experts: int, top_k: int, tokens: int = 0) -> dict[str, Any]:
    """Arguments with which a strategy takes this size."""
    arguments = {"strategy": name, "top_k": min(TOP_K.get(name, top_k), experts), "seed": 5}
    if name == "hash":
        arguments["token_ids"] = np.arange(tokens) % 50
    return arguments


@pytest.mark.parametrize("name", list(STRATEGIES))
@pytest.mark.parametrize("experts, top_k", SIZES)
def test_experts_are_distinct_and_weights_finite(name: str, experts: int, top_k: int) -> None:
    """-1 only with weight 0, for every kind of logits."""
    for kind in KINDS:
        x = logits(kind, 64, experts)
        got = route(x, **asked(name, experts, top_k, 64))
        assert got.expert.dtype == np.int32
        assert got.weight.dtype == np.float32
        assert got.expert.min() >= -1
        assert got.expert.max() < experts
        assert np.isfinite(got.weight).all()
        assert (got.weight >= 0).all()
        assert (got.weight[got.expert < 0] == 0).all()
        ordered = np.sort(np.where(got.expert < 0, -1 - np.arange(got.expert.shape[1]), got.expert), axis=1)
        assert (np.diff(ordered, axis=1) > 0).all()


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("experts, top_k", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_gates_take_the_k_best_and_the_lowest_index_among_equals(
    name: str, experts: int, top_k: int, kind: str
) -> None:
    """The tie rule, exactly, wherever the order of scores is that of the logits."""
    x = logits(kind, 128, experts)
    got = route(x, strategy=name, top_k=top_k)
    score = x if name != "deepseek-v3" else None
    if score is not None:
        np.testing.assert_array_equal(got.expert, np.argsort(-x, axis=1, kind="stable")[:, :top_k])
    else:
        with np.errstate(over="ignore"):
            s = 1 / (1 + np.exp(-x.astype(np.float64)))
        ordered = -np.sort(-s, axis=1)
        np.testing.assert_allclose(np.take_along_axis(s, got.expert, 1), ordered[:, :top_k], rtol=0, atol=2e-7)
        if kind == "degenerate":
            np.testing.assert_array_equal(got.expert, np.tile(np.arange(top_k), (128, 1)))


@pytest.mark.parametrize("name", SHIFT_INVARIANT)
def test_softmax_routers_do_not_see_a_shift_of_all_logits(name: str) -> None:
    """A constant per token that float32 adds exactly."""
    x = logits("quantised", 200, 32)
    shift = np.random.default_rng(1).integers(-40, 40, (200, 1)).astype(np.float32)
    arguments = asked(name, 32, 4)
    one, other = route(x, **arguments), route(x + shift, **arguments)
    np.testing.assert_array_equal(one.expert, other.expert)
    np.testing.assert_allclose(one.weight, other.weight, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in TOKEN_SCOPE if name not in DRAWS])
def test_a_token_does_not_depend_on_the_others(name: str) -> None:
    """Another order of the tokens gives the same choices in that order; another order of experts, the same experts."""
    parameters = {"noise_std": 0.0} if name == "noisy-top-k" else {}
    x = logits("random", 100, 16)
    arguments = asked(name, 16, 2) | parameters
    order, columns = np.random.default_rng(2).permutation(100), np.random.default_rng(3).permutation(16)
    one = route(x, **arguments)
    np.testing.assert_array_equal(route(x[order], **arguments).expert, one.expert[order])
    if name == "moe-plus-plus" or name == "moge":
        return  # the last experts have a meaning; groups are of consecutive experts
    renamed = route(x[:, columns], **arguments).expert
    back = np.where(renamed < 0, -1, columns[np.maximum(renamed, 0)])
    np.testing.assert_array_equal(back, one.expert)


@pytest.mark.parametrize("name", TOKEN_SCOPE)
def test_blocks_and_layouts_do_not_matter(name: str) -> None:
    """Blocks of a step, float64, Fortran order and strided views all give the same bytes."""
    x = logits("random", 90, 16)
    arguments = asked(name, 16, 2, 90)
    whole = route(x, **arguments)
    for same in (x.astype(np.float64), np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], x.tolist()):
        again = route(same, **arguments)
        assert again.expert.tobytes() == whole.expert.tobytes()
        assert again.weight.tobytes() == whole.weight.tobytes()
    found = strategy(name)
    ids = np.arange(90) % 50
    blocks = [
        found.route(
            np.ascontiguousarray(x[first : first + 40]),
            arguments["top_k"],
            parameters_for(found, {}),
            None,
            Draw(seed=5, first_token=first, token_ids=ids[first : first + 40]),
        ).expert
        for first in (0, 40, 80)
    ]
    np.testing.assert_array_equal(np.concatenate(blocks), whole.expert)


@pytest.mark.parametrize(
    "name, parameters, total",
    [
        ("mixtral", {}, 1.0),
        ("gpt-oss", {}, 1.0),
        ("softmax-top-k", {"norm_topk_prob": True}, 1.0),
        ("deepseek-v3", {}, 1.0),
        ("deepseek-v3", {"routed_scaling_factor": 2.5, "n_group": 8, "topk_group": 4}, 2.5),
        ("random", {}, 1.0),
        ("round-robin", {}, 1.0),
        ("hash", {}, 1.0),
    ],
)
def test_weights_of_a_token_sum_to_what_the_reference_says(name: str, parameters: dict[str, Any], total: float) -> None:
    """For every kind of logits where the sum is a constant; raw probabilities sum to at most 1."""
    for kind in ("random", "quantised", "bfloat16", "degenerate"):
        got = route(logits(kind, 50, 64), **asked(name, 64, 8, 50) | parameters)
        np.testing.assert_allclose(got.weight.sum(axis=1), total, rtol=2e-6)
    raw = route(logits("random", 50, 64), strategy="softmax-top-k", top_k=8).weight.sum(axis=1)
    assert (raw < 1).all()


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_experts_out_of_reach_are_never_chosen(name: str) -> None:
    """Half of the experts of each token; a mask of all changes nothing."""
    x = logits("random", 80, 16)
    arguments = asked(name, 16, 4, 80)
    mask = np.argsort(np.random.default_rng(1).random((80, 16)), axis=1) < 8
    got = route(x, mask=mask, **arguments)
    chosen = got.expert >= 0
    assert np.take_along_axis(mask, np.maximum(got.expert, 0), axis=1)[chosen].all()
    assert np.isfinite(got.weight).all()
    assert chosen.any()
    if strategy(name).obeys_mask and name not in {"relu", "top-p"}:  # which choose fewer than top_k anyway
        assert chosen.all()
    whole = route(x, mask=np.ones_like(mask), **arguments)
    np.testing.assert_array_equal(whole.expert, route(x, **arguments).expert)
