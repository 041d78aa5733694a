"""First come first served against max-min fair sharing, which is how the flows of a real network tend to share it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from moesim.engine.port_exchange import exchange
from moesim.engine.ports import Ports, free_ports

M = 8
COPY_PS = np.array([26_000, 150_000])  # of a token, within a node and across
LATENCY_PS = np.array([12_000_000, 24_500_000])


def max_min_rates(flowing: NDArray[np.bool_], capacity: float) -> NDArray[np.float64]:
    """Progressive filling: all flows grow alike; those through a port that is full stay as they are. [G, G]."""
    rate = np.zeros(flowing.shape)
    growing = flowing.copy()
    left_out, left_in = (np.full(len(flowing), capacity) for _ in range(2))
    while growing.any():
        n_out, n_in = growing.sum(axis=1), growing.sum(axis=0)
        room_out = np.divide(left_out, n_out, out=np.full(len(n_out), np.inf), where=n_out > 0)
        room_in = np.divide(left_in, n_in, out=np.full(len(n_in), np.inf), where=n_in > 0)
        more = min(room_out.min(), room_in.min())
        rate[growing] += more
        left_out -= more * n_out
        left_in -= more * n_in
        growing[room_out <= more * (1 + 1e-9)] = False
        growing[:, room_in <= more * (1 + 1e-9)] = False
    return rate


def fair_ends(tokens: NDArray[np.int64], copy_ps: float) -> NDArray[np.float64]:
    """When the last flow into each GPU of a level has ended, [G]; 0 where there is none."""
    left, end, now = tokens.astype(np.float64), np.zeros(len(tokens)), 0.0
    while (left > 0).any():
        rate = max_min_rates(left > 0, 1 / copy_ps)
        step = np.divide(left, rate, out=np.full(left.shape, np.inf), where=rate > 0).min()
        now += step
        left -= rate * step
        done = (left <= 1e-9 * tokens.max()) & (rate > 0)
        left[done] = 0
        end[done.any(axis=0)] = now
    return end


def fair(copies: NDArray[np.int64]) -> NDArray[np.float64]:
    """When each GPU has all flows and flags of an exchange that all enter at 0, [G]."""
    node = np.arange(len(copies)) // M
    level = (node[:, None] != node[None, :]).astype(int)
    other = ~np.eye(len(copies), dtype=bool)
    result = np.zeros(len(copies))
    for which in range(1 + int(level.any())):
        flows = np.where((level == which) & other, copies, 0)
        result = np.maximum(result, fair_ends(flows, float(COPY_PS[which])) + LATENCY_PS[which])
    return result


def ports(copies: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same by the kernel."""
    g = len(copies)
    end, arrival = np.zeros(g, dtype=np.int64), np.zeros((g, g), dtype=np.int64)
    rate = np.repeat(COPY_PS[:, None], g, axis=1)
    latency = np.repeat(LATENCY_PS[:, None], g, axis=1)
    entry, nodes = np.zeros(g, dtype=np.int64), np.zeros((0, 0), dtype=np.int64)
    own = Ports(rate, rate, latency, np.empty((0, 5)), M, free_ports(g))
    exchange(True, False, entry, copies, nodes, own, end, arrival)
    return end


def test_fair_sharing_by_hand() -> None:
    """GPUs 0 and 1 send to 2, GPU 0 to 3 as well: the port of 2 gives halves; 0 has a half left for 3."""
    flows = np.zeros((4, 4), dtype=np.int64)
    flows[0, 2], flows[1, 2], flows[0, 3] = 4, 2, 1
    rate = max_min_rates(flows > 0, 1.0)
    assert rate[flows > 0].tolist() == [0.5, 0.5, 0.5]
    # 0 to 3 ends at 2; 1 to 2 at 4, when 0 has 2 tokens left for 2 and the port for itself
    assert fair_ends(flows, 1.0).tolist() == [0, 0, 6, 2]


@pytest.mark.parametrize("n_gpus", [8, 16, 64])
def test_a_balanced_exchange_is_the_same(n_gpus: int) -> None:
    """Both fill every port to the end."""
    copies = np.full((n_gpus, n_gpus), 16)
    np.testing.assert_allclose(fair(copies), ports(copies), rtol=1e-9)


@pytest.mark.parametrize("n_gpus", [8, 16, 64])
def test_an_incast_is_the_same(n_gpus: int) -> None:
    """The port of the receiver is full to the end; all others have but flags."""
    copies = np.zeros((n_gpus, n_gpus), dtype=np.int64)
    copies[:, 3] = 16
    np.testing.assert_allclose(fair(copies), ports(copies), rtol=1e-9)


@pytest.mark.parametrize("n_gpus", [8, 16, 32, pytest.param(64, marks=pytest.mark.slow)])
def test_random_routing_is_within_three_percent(n_gpus: int) -> None:
    """128 tokens a GPU, 8 experts of 256 each at random: the last GPU and the mean GPU, over three draws."""
    rng = np.random.default_rng(n_gpus)
    for _ in range(1 if n_gpus > 16 else 3):
        copies = np.zeros((n_gpus, n_gpus), dtype=np.int64)
        for source in copies:
            chosen = np.argsort(rng.random((128, 256)), axis=1)[:, :8]
            source[:] = np.bincount((chosen * n_gpus // 256).ravel(), minlength=n_gpus)
        expected, found = fair(copies), ports(copies)
        assert found.max() == pytest.approx(expected.max(), rel=0.03)
        assert found.mean() == pytest.approx(expected.mean(), rel=0.03)
