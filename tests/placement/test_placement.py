"""Slots, replica choice and traffic, on examples that can be counted by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.placement import PLANNERS, assign_slots, place, traffic_of_layer
from moesim.types import ReplicaChoice


@pytest.mark.parametrize(
    "name, experts, ranks, redundant, rank",
    [
        ("contiguous", 8, 4, 0, [0, 0, 1, 1, 2, 2, 3, 3]),
        ("contiguous", 7, 3, 0, [0, 0, 0, 1, 1, 2, 2]),
        ("contiguous", 4, 3, 2, [0, 0, 1, 1, 2, 2]),
        ("contiguous", 2, 4, 0, [0, 1]),
        ("round-robin", 7, 3, 0, [0, 1, 2, 0, 1, 2, 0]),
        ("round-robin", 4, 2, 4, [0, 1, 0, 1, 1, 0, 1, 0]),
    ],
)
def test_golden_placements(name: str, experts: int, ranks: int, redundant: int, rank: list[int]) -> None:
    """The copies of round-robin are shifted where they would meet on one GPU."""
    got = place(name, n_experts=experts, n_layers=2, n_ranks=ranks, redundant_experts=redundant)
    assert got.rank.tolist() == rank
    assert got.expert.tolist() == [[s % experts for s in range(experts + redundant)]] * 2


@given(st.sampled_from(sorted(PLANNERS)), st.integers(1, 40), st.integers(1, 20), st.floats(0, 1))
def test_slots_are_even_and_copies_are_apart(name: str, experts: int, ranks: int, share: float) -> None:
    """GPUs differ by one slot at most; no GPU holds two copies of an expert."""
    redundant = int(share * experts * (ranks - 1))
    got = place(name, n_experts=experts, n_layers=1, n_ranks=ranks, redundant_experts=redundant)
    per_rank = np.bincount(got.rank, minlength=ranks)
    if name == "contiguous":
        assert np.ptp(per_rank) <= 1
    pairs = set(zip(got.expert[0].tolist(), got.rank.tolist(), strict=True))
    assert len(pairs) == experts + redundant
    assert np.ptp(np.bincount(got.expert[0], minlength=experts)) <= 1


@pytest.mark.parametrize("redundant", [-1, 5])
def test_copies_that_cannot_be_apart_are_refused(redundant: int) -> None:
    """Four experts on two GPUs have room for four copies."""
    with pytest.raises(InputError, match="from 0 to 4"):
        place("contiguous", n_experts=4, n_layers=1, n_ranks=2, redundant_experts=redundant)
    with pytest.raises(InputError, match="one of contiguous"):
        place("best", n_experts=4, n_layers=1, n_ranks=2)


def test_copies_take_turns_by_source() -> None:
    """Expert 0 has slots 0 and 2: rank 0 begins with the first, rank 1 with the second."""
    placement = place("round-robin", n_experts=2, n_layers=1, n_ranks=2, redundant_experts=1)
    served = np.array([[0], [0], [0], [0], [1], [-1]], dtype=np.int32)
    source = np.array([0, 0, 1, 1, 1, 1], dtype=np.int32)
    assert assign_slots(served, source, placement, 0).ravel().tolist() == [0, 2, 2, 0, 1, -1]


def test_copies_of_tokens_by_collective() -> None:
    """Two nodes of two GPUs, an expert each; both tokens are of GPU 0."""
    placement = place("contiguous", n_experts=8, n_layers=1, n_ranks=4)  # experts 2r and 2r+1 on rank r
    slot = np.array([[0, 4, 6], [4, 5, -1]], dtype=np.int32)
    source = np.zeros(2, dtype=np.int32)

    def row(rule: str) -> tuple[list[int], list[int]]:
        slots, copies, nodes = traffic_of_layer(slot, source, placement, copy_rule=rule, gpus_per_node=2)
        assert slots.tolist() == [1, 0, 0, 0, 2, 1, 1, 0]
        assert copies[1:].sum() == 0
        return copies[0].tolist(), nodes[:1].ravel().tolist()

    assert row("per-selection") == ([1, 0, 3, 1], [])
    assert row("per-rank") == ([1, 0, 2, 1], [])
    assert row("per-node") == ([1, 0, 2, 1], [1, 2])
    assert row("all") == ([2, 2, 2, 2], [2, 2])


@given(st.integers(0, 2**32 - 1), st.sampled_from(["per-selection", "per-rank", "per-node", "all"]), st.booleans())
def test_experts_permuted_by_layer_move_with_their_tokens(seed: int, rule: str, lossy: bool) -> None:
    """Where the experts of a layer and its requests are renumbered alike, slots, copies and nodes stay the same."""
    rng = np.random.default_rng(seed)
    choose: ReplicaChoice = assign_slots
    planned = place("round-robin", n_experts=6, n_layers=3, n_ranks=4, redundant_experts=5)
    renumbered = [rng.permutation(6).astype(np.int32) for _ in range(3)]
    placement = dataclasses.replace(
        planned, expert=np.stack([own[row] for own, row in zip(renumbered, planned.expert, strict=True)])
    )
    usable = rng.random(11) < 0.7 if lossy else None
    source = np.sort(rng.integers(0, 4, 40)).astype(np.int32)
    for layer, own in enumerate(renumbered):
        served = rng.permuted(np.tile(np.arange(-1, 6, dtype=np.int32), (40, 1)), axis=1)[:, :3]
        moved = np.where(served < 0, np.int32(-1), own[served])
        slot = choose(served, source, planned, layer, usable)
        np.testing.assert_array_equal(choose(moved, source, placement, layer, usable), slot)
        held = slot >= 0
        assert (placement.expert[layer][slot[held]] == moved[held]).all()
        assert placement.rank_of_expert(layer)[own].tolist() == planned.rank_of_expert(layer).tolist()
        assert placement.copies_of_experts()[layer][own].tolist() == planned.copies_of_experts()[layer].tolist()
        for counts in zip(
            traffic_of_layer(slot, source, planned, copy_rule=rule, gpus_per_node=2),
            traffic_of_layer(slot, source, placement, copy_rule=rule, gpus_per_node=2),
            strict=True,
        ):
            np.testing.assert_array_equal(*counts)
