"""The popularity that is found makes a router give the stated load, whatever lies between the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from moesim.errors import ParameterError
from moesim.routing import parameters_for, strategy
from moesim.types import Draw
from moesim.workload import hot_loads, lognormal_loads, solve_layer
from moesim.workload.logits import fill_logits


def choices(name: str, top_k: int, **parameters: object) -> Callable[..., Any]:
    """A router for `solve_layer`."""
    found = strategy(name)
    own = parameters_for(found, parameters)

    def chosen(logits: np.ndarray, number: int, layer: int) -> np.ndarray:
        draw = Draw(seed=9, step=number, layer=layer, first_token=0, token_ids=None)
        return found.route(logits, top_k, own, None, draw).expert

    return chosen


def realised(
    popularity: np.ndarray, route: Callable[..., Any], affinity: np.ndarray, n_tokens: int = 40_000
) -> np.ndarray:
    """Shares [E] of other tokens than those that were tried out."""
    logits = np.empty((n_tokens, len(popularity)), dtype=np.float32)
    topic = np.arange(n_tokens, dtype=np.int32) % len(affinity)
    fill_logits(77, 0, 0, 0, popularity, affinity, topic, logits)
    chosen = route(logits, 0, 0)
    load = np.bincount(chosen[chosen >= 0], minlength=len(popularity))[: len(popularity)]
    return np.asarray(load / load.sum())


def assert_reached(share: np.ndarray, found: np.ndarray, n_choices: int) -> None:
    """Within 4 % of every expert's load, and four standard deviations of chance."""
    assert (np.abs(found - share) < 0.04 * share + 4 * np.sqrt(share / n_choices)).all()


ROUTERS = {
    "top-8 of 64": ("softmax-top-k", 64, 8, {}),
    "top-2 of 8": ("mixtral", 8, 2, {}),
    "top-1 of 8": ("switch", 8, 1, {}),
    "all of 4": ("softmax-top-k", 4, 4, {}),
    "4 of 8 groups": ("deepseek-v3", 64, 8, {"n_group": 8, "topk_group": 4}),
    "noise": ("noisy-top-k", 16, 2, {}),
    "as many as needed": ("top-p", 16, 4, {}),
}


@pytest.mark.parametrize("name", ROUTERS)
def test_a_router_gives_the_stated_load(name: str) -> None:
    """With groups of experts as the router has them."""
    router, n_experts, top_k, parameters = ROUTERS[name]
    sigma, exponent = (0.0, 0.0) if top_k == n_experts else (0.5, 0.3)
    (share,) = lognormal_loads(2, 1, n_experts, sigma=(sigma,), groups=2, group_exponent=(exponent,))
    route, affinity = choices(router, top_k, **parameters), np.zeros((1, n_experts), dtype=np.float32)
    popularity = solve_layer(0, 0, share, top_k, affinity, route, n_groups=parameters.get("n_group", 1))
    assert np.exp(popularity).mean() == pytest.approx(1, rel=1e-3)
    assert_reached(share, realised(popularity, route, affinity), 40_000 * top_k)


@pytest.mark.parametrize("strength", [0.3, 2.0])
def test_topics_are_part_of_the_load(strength: float) -> None:
    """The load of all topics together is as stated, whatever each of them prefers."""
    (share,) = lognormal_loads(2, 1, 64, sigma=(0.6,))
    affinity = np.random.default_rng(1).normal(scale=strength, size=(8, 64)).astype(np.float32)
    route = choices("softmax-top-k", 8)
    popularity = solve_layer(0, 0, share, 8, affinity, route)
    assert_reached(share, realised(popularity, route, affinity), 40_000 * 8)


def test_experts_without_load_are_not_chosen_and_zero_experts_take_theirs() -> None:
    """Shares are among the experts of the model; those that compute nothing are as popular as these in the mean."""
    share = np.array([0.35, 0.3, 0.2, 0.15, 0, 0])
    route = choices("moe-plus-plus", 2, n_zero_experts=2)
    popularity = solve_layer(0, 0, share, 2, np.zeros((1, 6), dtype=np.float32), route, n_zero_experts=2)
    zero = np.full(2, popularity[:4].mean(), dtype=np.float32)
    everyone = realised(np.concatenate([popularity, zero]), route, np.zeros((1, 8), dtype=np.float32))
    assert everyone[6:].sum() > 0.2
    np.testing.assert_allclose(everyone[:6] / everyone[:6].sum(), share, atol=0.01)
    assert (everyone[4:6] == 0).all()


def test_a_router_of_ones_own_need_not_treat_experts_alike() -> None:
    """Every expert is corrected on its own where the router is not known to."""
    (share,) = lognormal_loads(2, 1, 16, sigma=(0.4,))
    favour = np.random.default_rng(3).normal(scale=0.7, size=16).astype(np.float32)

    def route(logits: np.ndarray, _number: int, _layer: int) -> np.ndarray:
        return np.argsort(-(logits + favour), axis=1)[:, :2].astype(np.int32)

    affinity = np.zeros((1, 16), dtype=np.float32)
    popularity = solve_layer(0, 0, share, 2, affinity, route, n_groups=None)
    found = realised(popularity, route, affinity)
    assert (np.abs(found / share - 1) < 0.12).all()


def test_a_load_that_no_choice_of_distinct_experts_gives_is_refused() -> None:
    """An expert is chosen once by a token at most."""
    (share,) = hot_loads(1, 1, 8, share=0.7, experts=1)
    with pytest.raises(ParameterError, match=r"found 0.7 of the load of layer 5 .* at most 1 / top_k = 0.5"):
        solve_layer(0, 5, share, 2, np.zeros((1, 8), dtype=np.float32), choices("mixtral", 2))


def test_a_load_that_the_router_does_not_give_is_refused() -> None:
    """One expert of each of two groups, of which the first is to have nearly all."""
    share = np.array([0.4, 0.4, 0.1, 0.1])

    def route(logits: np.ndarray, _number: int, _layer: int) -> np.ndarray:
        return np.stack([logits[:, :2].argmax(axis=1), 2 + logits[:, 2:].argmax(axis=1)], axis=1).astype(np.int32)

    with pytest.raises(ParameterError, match="wanted a load that the router can give"):
        solve_layer(0, 0, share, 2, np.zeros((1, 4), dtype=np.float32), route, n_groups=2)
