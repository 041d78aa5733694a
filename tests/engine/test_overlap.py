"""Overlap is only another program: its order, its times by hand, and whose time is whose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.engine import run, run_compiled
from moesim.metrics import breakdown, critical_path
from moesim.types import PARTS, Part, Program
from tests.builders import program


def parts_of(step: Program) -> list[dict[str, int]]:
    """Parts of each GPU that took any time, the same from both interpreters."""
    timeline, compiled = run(step), run_compiled(step)
    np.testing.assert_array_equal(timeline.end_ps, compiled.end_ps)
    np.testing.assert_array_equal(timeline.start_ps, compiled.start_ps)
    return [{p: int(t) for p, t in zip(PARTS, row, strict=True) if t} for row in breakdown(step, timeline)]


def one_layer(overlap: str, **changes: Any) -> Program:
    """Two GPUs; each sends 10 copies to the other: dispatch 100 + 30, combine 100 + 50."""
    rows = 2 if overlap.startswith("two-batch") else 1
    arguments = {
        "attention_ps": [1000, 1000],
        "experts_ps": [[300, 300]] * rows,
        "shared_ps": [90, 90],
        "overlap": overlap,
        **changes,
    }
    return program([[[0, 10], [10, 0]]] * rows, **arguments)


def test_shared_experts_hide_what_they_can_of_dispatch() -> None:
    """In turn 1000 + 90 + 130 + 300 + 150; meanwhile 90 of the 130 are hidden."""
    assert parts_of(one_layer("none"))[0] == {
        "attention": 1000,
        "shared_experts": 90,
        "dispatch": 130,
        "experts": 300,
        "combine": 150,
    }
    assert parts_of(one_layer("shared-expert"))[0] == {
        "attention": 1000,
        "shared_experts": 90,
        "dispatch": 40,
        "experts": 300,
        "combine": 150,
    }


def test_shared_experts_longer_than_dispatch_delay_the_experts() -> None:
    """Experts come after the shared ones on their stream: nothing of dispatch shows."""
    parts = parts_of(one_layer("shared-expert", shared_ps=[200, 200]))[0]
    assert "dispatch" not in parts
    assert sum(parts.values()) == 1000 + 200 + 300 + 150


def test_two_micro_batches_hide_each_others_exchanges() -> None:
    """Everything computed ends at 2780, and no exchange shows.

    Attention A to 1000, its dispatch to 1130; B to 2000, to 2130. Experts A
    2000 to 2300, combine to 2450; B to 2600, combine to 2750; shared experts
    A to 2690, B to 2780.
    """
    step = one_layer("two-batch")
    timeline = run(step)
    kinds = [PARTS[k] for k in step.kind]
    front, back = ["attention", "router", "dispatch"], ["experts", "combine"]
    assert kinds == [*front, *front, *back, *back, "shared_experts", "shared_experts", "head"]
    ends = [1000, 1000, 1130, 2000, 2000, 2130, 2300, 2450, 2600, 2750, 2690, 2780, 2780]
    assert timeline.end_ps[:, 0].tolist() == ends
    assert parts_of(step)[0] == {"attention": 2000, "shared_experts": 180, "experts": 600}


def test_in_decode_attention_hides_both_exchanges_of_the_other_micro_batch() -> None:
    """A quarter of attention comes before its kernel; B is two stages behind A.

    A: in to 250, attention to 1000, dispatch to 1130, shared to 1090. B: in to
    1340. Experts A to 1640, combine to 1790. B: attention to 2390, dispatch to
    2520, shared to 2480, experts 2520 to 2820, combine to 2970.
    """
    step = one_layer("two-batch-decode")
    kinds = [PARTS[k] for k in step.kind]
    front, back = ["attention", "router", "dispatch", "shared_experts"], ["experts", "combine"]
    in_turn = ["attention", *front, "attention", *back, *front, *back, "head"]
    assert kinds == in_turn
    ends = [250, 1000, 1000, 1130, 1090, 1340, 1640, 1790, 2390, 2390, 2520, 2480, 2820, 2970, 2970]
    assert run(step).end_ps[:, 0].tolist() == ends
    assert parts_of(step)[0] == {
        "attention": 2000,
        "shared_experts": 180,
        "experts": 600,
        "dispatch": 40,
        "combine": 150,
    }


def test_what_is_computed_beside_an_exchange_takes_longer_by_a_part_of_it() -> None:
    """A tenth of 130 falls on attention B and on experts A, a tenth of 150 on experts B and on shared experts A."""
    free, slowed = one_layer("two-batch"), one_layer("two-batch", overlap_slowdown=0.1)
    longer = (slowed.duration_ps - free.duration_ps)[:, 0]
    assert {(int(o), int(longer[o])) for o in np.flatnonzero(longer)} == {(3, 13), (6, 13), (8, 15), (10, 15)}
    assert parts_of(slowed)[0] == {"attention": 2013, "shared_experts": 195, "experts": 628}
    assert (one_layer("none", overlap_slowdown=0.1).duration_ps == one_layer("none").duration_ps).all()


def test_a_straggler_is_waited_for_only_where_nothing_else_runs() -> None:
    """GPU 1 is 500 late into dispatch; GPU 0 computes shared experts for 90 of them."""
    parts = parts_of(one_layer("shared-expert", attention_ps=[1000, 1500]))
    assert parts[0]["wait"] == 410
    assert parts[0]["dispatch"] == 130
    assert "wait" not in parts[1]
    assert parts[1]["dispatch"] == 40


def test_the_critical_path_leads_through_who_was_waited_for() -> None:
    """GPU 1's attention, then the exchanges and experts of GPU 0; hidden shared experts are not on it."""
    step = one_layer("shared-expert", attention_ps=[1000, 1500])
    by_part, by_gpu = critical_path(step, run(step))
    named = {p: int(t) for p, t in zip(PARTS, by_part, strict=True) if t}
    assert named == {"attention": 1500, "dispatch": 130, "experts": 300, "combine": 150}
    assert by_gpu[1] >= 1500
    assert by_gpu.sum() == 2080


@pytest.mark.parametrize("overlap", ["none", "shared-expert", "two-batch", "two-batch-decode"])
def test_a_layer_begins_when_the_one_before_has_ended(overlap: str) -> None:
    """Of its own micro-batch: attention never starts before the last combine of the same tokens."""
    batches = 2 if overlap.startswith("two-batch") else 1
    rng = np.random.default_rng(3)
    step = program(
        rng.integers(0, 20, (3 * batches, 4, 4)),
        attention_ps=rng.integers(0, 90, 4),
        experts_ps=rng.integers(0, 90, (3 * batches, 4)),
        shared_ps=rng.integers(0, 90, 4),
        gpus_per_node=2,
        overlap=overlap,
        network="port",
    )
    timeline = run(step)
    is_attention = step.kind == Part.ATTENTION
    for o in np.flatnonzero(step.kind == Part.COMBINE):
        after = [k for k, before in enumerate(step.predecessors) if o in before]
        assert len(after) == 1
        assert is_attention[after[0]] == (step.layer[o] < 2)  # the head follows the last layer
        assert (timeline.start_ps[after[0]] >= timeline.end_ps[o]).all()
