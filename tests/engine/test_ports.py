"""The exchange kernel by hand, and the laws of ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moesim.engine.port_exchange import exchange
from moesim.engine.ports import Ports, free_ports


def run(
    copies: Any,
    *,
    m: int | None = None,
    entry: Any = 0,
    out: Any = 2,
    into: Any = 2,
    latency: tuple[int, int] = (7, 7),
    nodes: Any = None,
    forward: bool = True,
    free: Any = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """End of each GPU, landings by (sender, receiver) of a direct exchange, and when the ports are free."""
    c = np.array(copies, dtype=np.int64)
    g = len(c)
    m = g if m is None else m
    end, arrival = np.zeros(g, dtype=np.int64), np.zeros((g, g), dtype=np.int64)
    free = free_ports(g) if free is None else free

    def rates(rate: Any) -> np.ndarray:
        return np.ascontiguousarray(np.broadcast_to(np.array(rate, dtype=np.int64), (2, g)))

    exchange(
        forward,
        nodes is not None,
        np.ascontiguousarray(np.broadcast_to(np.array(entry, dtype=np.int64), (g,))),
        c,
        np.zeros((0, 0), dtype=np.int64) if nodes is None else np.array(nodes, dtype=np.int64),
        Ports(
            out_ps=rates(out),
            in_ps=rates(into),
            latency_ps=np.repeat(np.array(latency, dtype=np.int64)[:, None], g, axis=1),
            slow=np.empty((0, 5)),
            gpus_per_node=m,
            free=free,
        ),
        end,
        arrival,
    )
    landed = np.zeros((g, g), dtype=np.int64)
    tokens = c if forward else c.T
    for s, d in np.argwhere(tokens):
        if s != d:
            landed[s, d] = arrival[d, (d // m - s // m) % (g // m) * m + (d - s) % m]
    return end, landed, free


def matrix(g: int, messages: dict[tuple[int, int], int]) -> np.ndarray:
    """Tokens from source to destination."""
    c = np.zeros((g, g), dtype=np.int64)
    for (s, d), n in messages.items():
        c[s, d] = n
    return c


def test_an_incast_by_hand() -> None:
    """Four senders, 10 tokens of 2 ps each, latency 7: the receiver takes one after the other, 7 + 4 x 20."""
    end, landed, _ = run(matrix(5, {(s, 0): 10 for s in range(1, 5)}))
    assert end.tolist() == [87, 7, 7, 7, 7]
    assert landed[1:, 0].tolist() == [27, 47, 67, 87]


@given(st.integers(2, 12), st.integers(1, 50), st.integers(1, 20), st.integers(1, 100))
def test_an_incast_ends_at_n_sizes_over_bandwidth_and_a_latency(n: int, tokens: int, ps: int, latency: int) -> None:
    """The receiver's port is the bottleneck and never idle."""
    end, _, _ = run(matrix(n, {(s, 0): tokens for s in range(1, n)}), out=ps, into=ps, latency=(latency, latency))
    assert end[0] == (n - 1) * tokens * ps + latency


def test_a_balanced_exchange_meets_the_bandwidth_bound() -> None:
    """16 GPUs in 4 nodes, 5 tokens of 3 ps to each across nodes: 20 + 12 x 15, on every GPU."""
    end, _, _ = run(np.full((16, 16), 5), m=4, out=[[1], [3]], into=[[1], [3]], latency=(9, 20))
    assert end.tolist() == [200] * 16


@pytest.mark.parametrize("shape", [(2, 8), (4, 8), (8, 8), (3, 5)])
def test_node_rotation_meets_the_bound_on_any_cluster(shape: tuple[int, int]) -> None:
    """By rotation of the global rank a whole node would send to one remote GPU at once."""
    n_nodes, m = shape
    end, _, _ = run(np.full((n_nodes * m, n_nodes * m), 4), m=m, out=[[1], [5]], into=[[1], [5]], latency=(3, 30))
    assert (end == 30 + (n_nodes - 1) * m * 4 * 5).all()


def test_nobody_leaves_before_everybodys_flag_has_come() -> None:
    """Zero bytes: entries at 0, 5 and 9, latency 7: two wait for the last, which waits for the one before."""
    end, _, _ = run(np.zeros((3, 3)), entry=[0, 5, 9])
    assert end.tolist() == [16, 16, 12]


def test_flags_take_the_latency_of_their_level() -> None:
    """2 nodes of 2, latencies 3 and 20: node 0 waits for GPU 2 across, 9 + 20, node 1 for GPU 1, 4 + 20."""
    end, _, _ = run(np.zeros((4, 4)), m=2, entry=[0, 4, 9, 0], latency=(3, 20))
    assert end.tolist() == [29, 29, 24, 24]


def test_two_ports_and_three_messages_by_hand() -> None:
    """GPU 0 sends 4 tokens to 1 and 3 to 2, GPU 1 sends 5 to 2; 2 ps a token, latency 10.

    0 to 1: leaves 0 to 8, head 10, taken 10 to 18. 0 to 2: leaves 8 to 14, head
    18. 1 to 2: leaves 0 to 10, head 10, taken 10 to 20. So 0 to 2 waits for the
    port from 18 to 20 and lands at 26.
    """
    end, landed, free = run(matrix(3, {(0, 1): 4, (0, 2): 3, (1, 2): 5}), latency=(10, 10))
    assert (landed[0, 1], landed[1, 2], landed[0, 2]) == (18, 20, 26)
    assert end.tolist() == [10, 18, 26]
    assert free[0, 0].tolist() == [14, 10, 0]
    assert free[1, 0].tolist() == [0, 18, 26]


def test_a_slow_sender_delays_its_own_message_only() -> None:
    """GPU 0 needs 9 ps a token, the ports of GPU 2 take 1: 0's head comes first, its tail last."""
    end, landed, _ = run(matrix(3, {(0, 2): 10, (1, 2): 10}), out=[[9, 1, 1]] * 2, into=1, entry=[0, 2, 0])
    assert landed[0, 2] == 7 + 90
    assert landed[1, 2] == 7 + 10 + 10  # the port took 0's tokens from 7 to 17, then its own
    assert end[2] == 97


def test_of_heads_that_come_together_the_lower_sender_is_first() -> None:
    """Ties at an ingress port."""
    _, landed, _ = run(matrix(3, {(1, 0): 5, (2, 0): 3}))
    assert (landed[1, 0], landed[2, 0]) == (17, 23)


def test_ports_stay_busy_into_the_next_exchange() -> None:
    """Of the first exchange only the receiver waits for the messages; its port is still busy in the second."""
    c = matrix(2, {(0, 1): 10})
    end, _, free = run(c)
    assert end.tolist() == [7, 27]
    assert free[0, 0, 0] == 20
    end, landed, _ = run(c, entry=end, free=free)
    assert landed[0, 1] == 20 + 7 + 20  # leaves at 20, not at 7
    assert end[0] == 27 + 7  # the flag of GPU 1


def test_two_hops_of_dispatch_by_hand() -> None:
    """2 nodes of 2; GPU 0 has 3 tokens for node 1, of which 2 go on from GPU 2 to GPU 3, and 4 for GPU 1.

    Across 5 ps a token and latency 20, within 2 ps and 6. Hop 1: head at 2 is
    20, whole at 35. Hop 2: leaves 35, head 41, landed 45. GPU 1: 6 + 8.
    Flags to GPU 3 come over GPU 2 at 20 + 6; to GPU 1 of node 1's over GPU 0 or straight.
    """
    nodes = np.zeros((4, 2), dtype=int)
    nodes[0, 1] = 3
    end, _, free = run(
        matrix(4, {(0, 3): 2, (0, 1): 4, (0, 2): 1}),
        m=2,
        out=[[2], [5]],
        into=[[2], [5]],
        latency=(6, 20),
        nodes=nodes,
    )
    assert end.tolist() == [26, 26, 35, 45]
    assert free[0, 0].tolist() == [8, 0, 39, 0]
    assert free[0, 1].tolist() == [15, 0, 0, 0]


def test_a_proxy_hands_on_once_it_has_entered() -> None:
    """The same with GPU 2 entering at 50: its message to GPU 3 leaves at 50, head 56, landed 60; so with its flags.

    GPU 0 has the flag of GPU 2 at 50 + 20 and hands it to GPU 1, 6 later.
    """
    nodes = np.zeros((4, 2), dtype=int)
    nodes[0, 1] = 3
    end, _, free = run(
        matrix(4, {(0, 3): 2, (0, 1): 4, (0, 2): 1}),
        m=2,
        entry=[0, 0, 50, 0],
        out=[[2], [5]],
        into=[[2], [5]],
        latency=(6, 20),
        nodes=nodes,
    )
    assert end.tolist() == [70, 76, 50, 60]
    assert free[0, 0].tolist() == [8, 0, 54, 0]


def test_two_hops_of_combine_by_hand() -> None:
    """The way back: GPU 3 hands its 2 results to GPU 2, which reduces them and sends 3 tokens home.

    Hop 1: leaves 0, head 6, landed 10. Hop 2: leaves 10, head 30, landed 45.
    """
    nodes = np.zeros((4, 2), dtype=int)
    nodes[0, 1] = 3
    end, _, free = run(
        matrix(4, {(0, 3): 2, (0, 1): 4, (0, 2): 1}),
        m=2,
        out=[[2], [5]],
        into=[[2], [5]],
        latency=(6, 20),
        nodes=nodes,
        forward=False,
    )
    assert end.tolist() == [45, 26, 26, 26]
    assert free[0, 1].tolist() == [0, 0, 25, 0]


def random_case(seed: int) -> dict[str, Any]:
    """Ties, zero sizes, slow ports, up to 4 nodes of up to 4."""
    rng = np.random.default_rng(seed)
    n_nodes, m = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    g = n_nodes * m
    top = int(rng.choice([1, 3, 30]))
    return {
        "copies": rng.integers(0, rng.choice([2, 5, 20]), (g, g)),
        "m": m,
        "entry": rng.integers(0, top + 1, g),
        "out": rng.integers(1, 1 + rng.choice([1, 4]), (2, g)),
        "into": rng.integers(1, 1 + rng.choice([1, 4]), (2, g)),
        "latency": tuple(rng.integers(1, 1 + top, 2).tolist()),
    }


@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_all_times_scale(seed: int, factor: int) -> None:
    """Ends and landings."""
    case = random_case(seed)
    end, landed, _ = run(**case)
    scaled = {name: np.array(case[name]) * factor for name in ("entry", "out", "into", "latency")}
    slow_end, slow_landed, _ = run(**{**case, **scaled})
    np.testing.assert_array_equal(slow_end, end * factor)
    np.testing.assert_array_equal(slow_landed, landed * factor)


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["entry", "out", "into", "latency", "copies"]), st.integers(0, 10**6))
def test_nothing_made_faster_or_smaller_ends_anything_later(seed: int, what: str, which: int) -> None:
    """Direct exchanges are max and plus only, and a port's last departure does not depend on its order."""
    case = random_case(seed)
    better = np.array(case[what])
    least = 0 if what in ("entry", "copies") else 1
    place = which % better.size
    assume(better.flat[place] > least)
    better.flat[place] -= 1 + which % (int(better.flat[place]) - least)
    assert (run(**{**case, what: better})[0] <= run(**case)[0]).all()


def turn_of(sender: int, n_gpus: int, per_node: int) -> Callable[[int], tuple[int, int]]:
    """When a sender serves a destination: by the distance of its node, then of its place in the node."""
    return lambda x: (
        (x // per_node - sender // per_node) % (n_gpus // per_node),
        (x % per_node - sender % per_node) % per_node,
    )


@given(st.integers(0, 2**32 - 1))
def test_an_ingress_port_is_never_idle_while_a_message_is_there(seed: int) -> None:
    """Served one by one in the order of their heads, each as soon as it is there and the port is free."""
    case = random_case(seed)
    c, m, out, into = case["copies"], case["m"], case["out"], case["into"]
    g = len(c)
    _, landed, free = run(**case)
    for d in range(g):
        for level in (0, 1):
            heads = []
            for s in range(g):
                same = s // m == d // m
                if s == d or same == bool(level) or not c[s, d]:
                    continue
                turns = sorted(range(g), key=turn_of(s, g, m))
                ahead = [x for x in turns[: turns.index(d)] if x != s and (x // m != s // m) == bool(level)]
                begin = case["entry"][s] + sum(int(c[s, x]) for x in ahead) * out[level, s]
                heads.append((int(begin) + case["latency"][level], s))
            now = 0
            for head, s in sorted(heads):
                now = max(now, head) + int(c[s, d] * into[level, d])
                assert landed[s, d] == max(now, head + c[s, d] * out[level, s])
            assert free[1, level, d] == now


def test_two_hops_have_scheduling_anomalies() -> None:
    """Something made faster ends a GPU later, as proxies serve first come first served: 3 nodes of 2.

    GPU 4 sends 3 tokens to GPU 3, by way of GPU 2; GPU 0 sends 1 to GPU 2. When
    GPU 0 enters a picosecond earlier its message is before GPU 4's at the port
    of GPU 2, which hands GPU 4's on a picosecond later.
    """
    c = matrix(6, {(0, 1): 1, (0, 2): 1, (1, 5): 1, (4, 3): 3, (5, 3): 1})
    case = {
        "copies": c,
        "m": 2,
        "nodes": c.reshape(6, 3, 2).max(axis=2),
        "out": 1,
        "into": [[2], [1]],
        "latency": (1, 1),
    }
    slower, faster = (run(**case, entry=[at, 0, 0, 3, 0, 0])[0].tolist() for at in (1, 0))
    assert slower == [5, 4, 5, 11, 5, 4]
    assert faster == [5, 4, 5, 12, 5, 4]
