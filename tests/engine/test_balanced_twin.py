"""The evenly loaded twin of a step keeps every total that the design names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.engine import balanced_traffic
from moesim.placement import assign_slots, place, traffic_of_layer
from moesim.types import Placement, Traffic


def traffic(placement: Placement, rule: str, gpus_per_node: int, seed: int) -> Traffic:
    """Traffic of random tokens."""
    rng = np.random.default_rng(seed)
    n_tokens = 5 * placement.n_ranks
    served = np.argsort(rng.random((n_tokens, placement.n_experts)), axis=1)[:, :2].astype(np.int32)
    source = np.repeat(np.arange(placement.n_ranks, dtype=np.int32), 5)
    slot = assign_slots(served, source, placement, 0)
    slots, copies, nodes = traffic_of_layer(slot, source, placement, copy_rule=rule, gpus_per_node=gpus_per_node)
    return Traffic(slot_tokens=slots[None], copies=copies[None], node_copies=nodes[None])


@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(2, 9),
    st.integers(0, 4),
    st.sampled_from(["per-selection", "per-rank", "per-node"]),
    st.integers(0, 999),
)
def test_totals_stay_and_spread_is_even(
    n_nodes: int, per_node: int, n_experts: int, redundant: int, rule: str, seed: int
) -> None:
    """Same assignments; same copies per source and level; as even as integers allow."""
    n_ranks = n_nodes * per_node
    redundant = min(redundant, n_experts * (n_ranks - 1))
    placement = place("contiguous", n_experts=n_experts, n_layers=1, n_ranks=n_ranks, redundant_experts=redundant)
    before = traffic(placement, rule, per_node, seed)
    after = balanced_traffic(before, placement, gpus_per_node=per_node, copy_rule=rule)
    assert after.slot_tokens.sum() == before.slot_tokens.sum()
    holders = np.unique(placement.rank)
    per_rank = np.array([after.slot_tokens[0, placement.rank == rank].sum() for rank in holders])
    assert np.ptp(per_rank) <= 1
    node = np.arange(n_ranks) // per_node
    for source in range(n_ranks):
        assert after.copies[0, source, source] == before.copies[0, source, source]
        for level in (node == node[source], node != node[source]):
            level = level & (np.arange(n_ranks) != source)
            assert after.copies[0, source, level].sum() == before.copies[0, source, level].sum()
            targets = level & np.isin(np.arange(n_ranks), holders)
            if targets.any():
                assert np.ptp(after.copies[0, source, targets]) <= 1
    if rule == "per-node":
        np.testing.assert_array_equal(after.node_copies.sum(axis=2), before.node_copies.sum(axis=2))


@pytest.mark.parametrize("total, parts", [(7, [3, 2, 2]), (0, [0, 0, 0]), (3, [1, 1, 1])])
def test_remainders_go_to_the_lowest_index(total: int, parts: list[int]) -> None:
    """One GPU, three slots."""
    placement = place("contiguous", n_experts=3, n_layers=1, n_ranks=1)
    one = np.zeros((1, 1, 1), dtype=np.int64)
    before = Traffic(slot_tokens=np.array([[total, 0, 0]]), copies=one, node_copies=np.zeros((0, 0, 0), dtype=np.int64))
    after = balanced_traffic(before, placement, gpus_per_node=1, copy_rule="per-rank")
    assert after.slot_tokens.tolist() == [parts]


def test_copies_for_everybody_stay_as_they_are() -> None:
    """Four GPUs of which the last two hold the experts: all of a token's GPUs get it, whatever the load."""
    held = place("contiguous", n_experts=4, n_layers=1, n_ranks=2)
    placement = dataclasses.replace(held, rank=held.rank + np.int32(2), n_ranks=4)
    before = traffic(placement, "all", 2, seed=1)
    after = balanced_traffic(before, placement, gpus_per_node=2, copy_rule="all")
    assert before.copies[0, :, 0].all()
    np.testing.assert_array_equal(after.copies, before.copies)
    np.testing.assert_array_equal(after.node_copies, before.node_copies)
    assert np.ptp(after.slot_tokens) <= 1
