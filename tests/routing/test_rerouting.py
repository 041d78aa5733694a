"""Policies that move refused assignments to other experts."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moesim import apply_capacity, route
from moesim.routing import OVERFLOWS, SCOPES
from tests.routing.requests import request

REROUTES = [name for name, policy in sorted(OVERFLOWS.items()) if policy.reroutes_as]


@given(
    st.integers(1, 40),
    st.integers(2, 6),
    st.integers(1, 2),
    st.floats(0.1, 2),
    st.sampled_from(REROUTES),
    st.sampled_from(sorted(SCOPES)),
    st.integers(1, 4),
    st.integers(0, 10_000),
)
def test_rerouting_fills_places_and_never_more(
    tokens: int, experts: int, k: int, factor: float, overflow: str, scope: str, tries: int, seed: int
) -> None:
    """Load stays within capacity, experts of a token stay distinct, and a drop means that no candidate had room."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(tokens, experts)).astype(np.float32)
    wanted = route(x, strategy="mixtral", top_k=k)
    source, device = rng.integers(0, 3, tokens), rng.integers(0, 3, experts)
    got = apply_capacity(
        wanted,
        n_experts=experts,
        capacity_factor=factor,
        overflow=overflow,
        scope=scope,
        scores=x,
        source=source,
        device=device,
        tries=tries,
    )
    np.testing.assert_array_equal(got.expert, wanted.expert)
    moved = got.rerouted
    assert (got.served[moved] != got.expert[moved]).all()
    assert (got.served[~moved & ~got.dropped] == got.expert[~moved & ~got.dropped]).all()
    assert not (got.dropped & moved).any()
    assert ((got.served < 0) == got.dropped).all()
    assert sum(got.by_cause().values()) == moved.sum() + got.dropped.sum()
    for row in got.served.tolist():
        served = [e for e in row if e >= 0]
        assert len(set(served)) == len(served)
    group = np.zeros(tokens, dtype=int) if scope in {"global", "device"} else np.unique(source, return_inverse=True)[1]
    place = np.unique(device, return_inverse=True)[1] if scope == "device" else np.arange(experts)
    room = np.repeat(got.capacity[:, None], place.max() + 1, axis=1)
    for t, j in zip(*np.nonzero(got.served >= 0), strict=True):
        room[group[t], place[got.served[t, j]]] -= 1
    assert (room >= 0).all()
    for t, j in zip(*np.nonzero(got.dropped), strict=True):
        assert room[group[t], place[got.expert[t, j]]] == 0
        others = [e for e in np.argsort(-x[t], kind="stable") if e not in got.expert[t]]
        if overflow == "expanded-drop":
            others = [e for e in others if device[e] == source[t]]
        if overflow == "reroute-to-next":
            others = others[:tries]
        assert all(e in got.served[t] or room[group[t], place[e]] == 0 for e in others)
    np.testing.assert_array_equal(got.weight[moved], np.take_along_axis(x, np.maximum(got.served, 0), axis=1)[moved])


def test_no_token_left_behind_retries_round_by_round() -> None:
    """Mesh: all that are still unrouted offer choice i before any offers choice i + 1."""
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(60, 5)) + np.array([2, 1, 0, 0, 0])).astype(np.float32)
    capacity, left, wanted = 12, np.full(5, 12), np.full(60, -1)
    ranked = np.argsort(-x, axis=1, kind="stable")
    for choice in range(3):
        for t in range(60):
            e = ranked[t, choice]
            if wanted[t] < 0 and left[e] > 0:
                wanted[t], left[e] = e, left[e] - 1
    got = apply_capacity(
        route(x, strategy="switch", top_k=1),
        n_experts=5,
        capacity_factor=1.0,
        overflow="reroute-to-next",
        scores=x,
        tries=2,
    )
    assert got.capacity.tolist() == [capacity]
    np.testing.assert_array_equal(got.served[:, 0], wanted)
    assert 0 < got.rerouted.sum() < 60
    causes = {cause: count for cause, count in got.by_cause().items() if count}
    assert causes == {"over_capacity": int(got.dropped.sum()), "to_next_choice": int(got.rerouted.sum())}


def test_one_after_the_other_takes_the_best_expert_with_room() -> None:
    """Three tokens want expert 0, which has one place; the second takes the last place of expert 2, its next best."""
    x = [[9.0, 1.0, 2.0], [9.0, 1.0, 2.0], [9.0, 1.0, 2.0]]
    asked: dict[str, Any] = {"n_experts": 3, "capacity_factor": 1.0, "scores": x}
    got = apply_capacity(route(x, strategy="switch", top_k=1), overflow="reroute-to-best", **asked)
    assert got.served.tolist() == [[0], [2], [1]]
    got = apply_capacity(route(x, strategy="switch", top_k=1), overflow="reroute-to-next", **asked)
    assert got.served.tolist() == [[0], [2], [-1]]
    assert got.lost_tokens() == 1


def test_refused_assignments_move_to_experts_of_their_own_device() -> None:
    """Expert 0 keeps the largest score; token 0 finds a place on its device, token 2's device has no other expert."""
    x = [[5.0, 1.0, 2.0], [8.0, 0.0, 0.0], [6.0, 0.0, 0.0]]
    got = apply_capacity(
        route(x, strategy="switch", top_k=1),
        n_experts=3,
        capacity_factor=1.0,
        overflow="expanded-drop",
        scores=x,
        source=[1, 0, 0],
        device=[0, 1, 1],
    )
    assert got.served.tolist() == [[2], [0], [-1]]


def test_a_device_shares_its_capacity_among_its_experts() -> None:
    """Four assignments, two devices: two places each, whoever of its experts is asked (DeepSeek-V2, section 2.2.3)."""
    wanted = request([[0], [1], [1], [2]], [[0.2], [0.9], [0.8], [0.1]])
    got = apply_capacity(
        wanted,
        n_experts=4,
        capacity_factor=1.0,
        scope="device",
        device=[0, 0, 1, 1],
        overflow="drop-by-probability",
        pad=True,
    )
    assert got.served.tolist() == [[-1], [1], [1], [2]]
    assert got.capacity.tolist() == [2]
    assert got.padding is not None
    assert got.padding.tolist() == [[0, 1]]
