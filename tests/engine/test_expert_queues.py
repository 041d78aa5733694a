"""Experts as servers with queues: by hand, and what holds whatever happens."""

from __future__ import annotations

import dataclasses
from collections import Counter
from heapq import heappush
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.engine import run_queued
from moesim.engine.arrival_network import Network
from moesim.errors import DeadlockError
from moesim.metrics import queued_step_times
from moesim.types import Part, Program, QueuedRun, Queues, TokenGroups
from tests.builders import exchange, program

ATTENTION, EXPERTS, DISPATCH, COMBINE = Part.ATTENTION, Part.EXPERTS, Part.DISPATCH, Part.COMBINE


def row(messages: dict[tuple[int, int], list[int]], n_tokens: int, alternates: Any = ()) -> TokenGroups:
    """Groups from the tokens of each (source, slot)."""
    keys = sorted(messages)
    return TokenGroups(
        source=np.array([s for s, _ in keys], dtype=np.int64),
        slot=np.array([slot for _, slot in keys], dtype=np.int64),
        first=np.cumsum([0, *(len(messages[key]) for key in keys)]).astype(np.int64),
        token=np.array([t for key in keys for t in messages[key]], dtype=np.int64),
        n_tokens=n_tokens,
        alternates=np.array(alternates, dtype=np.int32).reshape(n_tokens, -1 if n_tokens else 0),
    )


def step(n_gpus: int, n_rows: int, *, slots: int, attention_ps: Any = 100, **changes: Any) -> Program:
    """2 ps a token at each port, latency 10 within the one node; attention 100, nothing else."""
    return program(
        np.zeros((n_rows, n_gpus, n_gpus)),
        experts_ps=np.zeros((n_rows, n_gpus)),
        attention_ps=np.broadcast_to(attention_ps, n_gpus),
        slot_tokens=np.zeros((n_rows, slots)),
        dispatch=exchange(n_gpus, copy_ps=(2, 5), latency_ps=(10, 30)),
        combine=exchange(n_gpus, copy_ps=(2, 5), latency_ps=(10, 30)),
        copy_rule="per-selection",
        **changes,
    )


def queues(n_slots: int, *, room: int | None = None, overflow: str = "drop", layers: int = 1) -> Queues:
    """Queues with so much room, expert s in slot s of every layer."""
    expert = np.tile(np.arange(n_slots, dtype=np.int32), (layers, 1))
    return Queues(room=room, overflow=overflow, expert=expert, n_experts=n_slots)


def tasks(run: QueuedRun, kind: int) -> list[tuple[int, int, int, int]]:
    """(GPU, begin, end, tokens) of the nodes of a kind."""
    found = run.kind == kind
    return sorted(
        zip(run.gpu[found], run.start_ps[found], run.end_ps[found], run.tokens[found], strict=True),
        key=lambda node: (node[1], node[0]),
    )


def test_one_group_there_and_back_by_hand() -> None:
    """GPU 0 sends 5 tokens to GPU 1: attention to 100, head 110, landed 120, 50 of work, back at 170 + 10 + 10."""
    run = run_queued(step(2, 1, slots=2), [row({(0, 1): [0, 1, 2, 3, 4]}, 5)], queues(2), lambda n: 10 * n)
    assert tasks(run, DISPATCH) == [(0, 100, 120, 5)]
    assert tasks(run, EXPERTS) == [(1, 120, 170, 5)]
    assert tasks(run, COMBINE) == [(1, 170, 190, 5)]
    assert run.makespan_ps == 190
    assert run.admitted.tolist() == [[0, 5]]


def test_groups_that_wait_are_served_together() -> None:
    """Three sources: the first group is served alone, what has come meanwhile as one batch."""
    groups = row({(0, 3): [0], (1, 3): [1, 2], (2, 3): [3]}, 4)
    run = run_queued(step(4, 1, slots=4), [groups], queues(4), lambda n: 100 * n)
    # heads at 110; the ingress port takes 2, 4 and 2 ps: landed at 112, 116, 118
    assert tasks(run, EXPERTS) == [(3, 112, 212, 1), (3, 212, 512, 3)]
    assert run.longest_queue == 3
    assert sorted(run.waits[:, 2:].tolist()) == [[112, 112, 1], [116, 212, 2], [118, 212, 1]]


def test_slots_of_a_gpu_share_its_compute_stream() -> None:
    """Slots 2 and 3 are on GPU 1: one after the other, and after its own attention."""
    groups = row({(0, 2): [0], (0, 3): [0]}, 1)
    run = run_queued(step(2, 1, slots=4, attention_ps=[10, 500]), [groups], queues(4), lambda _: 40)
    assert tasks(run, EXPERTS) == [(1, 500, 540, 1), (1, 540, 580, 1)]


def test_no_gpu_waits_for_another_but_for_its_own_tokens() -> None:
    """GPU 1 is slow and is asked by nobody: GPU 0 does two layers without it."""
    groups = [row({(0, 0): [0]}, 1), row({(0, 0): [0]}, 1)]
    run = run_queued(step(2, 2, slots=2, attention_ps=[100, 9000]), groups, queues(2, layers=2), lambda _: 50)
    assert [end for gpu, _, end, _ in tasks(run, EXPERTS) if gpu == 0] == [150, 300]
    assert run.makespan_ps == 18000


def test_a_full_queue_drops_and_tells_the_source() -> None:
    """Room for 2: of the 5 tokens that come while the slot is busy three are dropped, and nobody waits for them."""
    groups = row({(0, 2): [0], (1, 2): [1, 2, 3, 4, 5]}, 6)
    run = run_queued(step(3, 1, slots=3), [groups], queues(3, room=2), lambda n: 100 * n)
    # GPU 0's token landed at 112 and is in service until 212, the others landed at 122
    assert run.admitted.tolist() == [[0, 0, 3]]
    assert run.dropped.tolist() == [[0, 0, 3]]
    assert run.token_drops[0].tolist() == [0, 0, 0, 1, 1, 1]
    assert tasks(run, EXPERTS) == [(2, 112, 212, 1), (2, 212, 412, 2)]
    assert run.makespan_ps == 412 + 10 + 4


def test_a_source_whose_tokens_are_all_dropped_goes_on_when_it_has_been_told() -> None:
    """GPU 2 computes its own second layer until 200, so GPU 0's tokens wait; GPU 1's land at 118, it hears at 128."""
    groups = [row({(0, 2): [0, 1], (1, 2): [2, 3]}, 4), row({}, 4)]
    run = run_queued(step(3, 2, slots=3), groups, queues(3, room=2, layers=2), lambda _: 10_000)
    assert run.token_drops[0].tolist() == [0, 0, 1, 1]
    assert tasks(run, EXPERTS) == [(2, 200, 10_200, 2)]
    begins = {gpu: begin for gpu, begin, _, _ in tasks(run, ATTENTION) if begin > 0}
    assert begins == {2: 100, 1: 128, 0: 10_200 + 10 + 4}


def test_back_pressure_holds_the_port() -> None:
    """Room for 1 at slot 2: GPU 1's message for slot 3 of the same GPU lands behind the one that is blocked."""
    groups = row({(0, 4): [0, 1, 2], (1, 5): [3]}, 4)
    program_ = step(3, 1, slots=6, attention_ps=[100, 101, 100])
    blocked = run_queued(program_, [groups], queues(6, room=1, overflow="block"), lambda _: 100)
    free = run_queued(program_, [groups], queues(6), lambda _: 100)
    assert tasks(free, EXPERTS) == [(2, 116, 216, 3), (2, 216, 316, 1)]
    # served one by one; the port is free again when the third has been admitted, at 216
    first_three = [(2, 116, 216, 1), (2, 216, 316, 1)]
    assert tasks(blocked, EXPERTS)[:2] == first_three
    assert blocked.dropped.sum() == 0
    assert blocked.admitted.tolist() == [[0, 0, 0, 0, 3, 1]]
    assert blocked.makespan_ps > free.makespan_ps


def test_a_full_queue_hands_on_to_the_next_choice() -> None:
    """Slot 1 has room for one: tokens 1 and 2 go to their best other expert, 2 and 0; there they count as rerouted."""
    groups = row({(0, 1): [0, 1, 2]}, 3, alternates=[[2], [2], [0]])
    run = run_queued(step(3, 1, slots=3), [groups], queues(3, room=1, overflow="next"), lambda _: 1000)
    assert run.admitted.tolist() == [[1, 1, 1]]
    assert run.rerouted_away.tolist() == [[0, 2, 0]]
    assert run.rerouted_in.tolist() == [[1, 0, 1]]
    assert run.dropped.sum() == 0
    # GPU 1 hands on at 116: to GPU 2 (next in rotation) 116 + 10 + 2, to GPU 0 two later
    assert [(gpu, begin) for gpu, begin, _, _ in tasks(run, EXPERTS)] == [(1, 116), (2, 128), (0, 130)]


def test_tokens_are_handed_on_once_and_then_dropped() -> None:
    """The alternate's slot is full too; a token without an alternate is dropped at once."""
    groups = row({(0, 1): [0, 1, 2], (1, 2): [3]}, 4, alternates=[[2], [2], [-1], [0]])
    run = run_queued(step(3, 1, slots=3), [groups], queues(3, room=1, overflow="next"), lambda _: 1000)
    assert run.dropped[0, 1] == 1 + (run.rerouted_in[0, 2] == 0)
    assert run.token_drops[0][2] == 1


def test_a_run_that_stops_with_work_left_lists_the_waiters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet return would hide a deadlock: here the network loses everything."""
    monkeypatch.setattr(Network, "send", lambda self, message: None)
    with pytest.raises(DeadlockError, match="GPU 0"):
        run_queued(step(2, 1, slots=2), [row({(0, 1): [0]}, 1)], queues(2), lambda _: 10)


def random_case(seed: int) -> tuple[Program, list[TokenGroups], Queues]:
    """Ties, empty rows, hot slots, one to three nodes, one or two micro-batches."""
    rng = np.random.default_rng(seed)
    n_nodes, m = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    g, layers = n_nodes * m, int(rng.integers(1, 4))
    overlap = str(rng.choice(["none", "shared-expert", "two-batch", "two-batch-decode"]))
    batches = 2 if overlap.startswith("two-batch") else 1
    experts, copies = int(rng.integers(2, 9)), int(rng.integers(0, 3))
    slots = experts + copies
    expert = np.tile((np.arange(slots) % experts).astype(np.int32), (layers, 1))
    rows = []
    k = int(rng.integers(1, min(4, experts + 1)))
    for _ in range(layers * batches):
        t = int(rng.integers(0, 12))
        source = np.sort(rng.integers(0, g, t))
        order = np.array([rng.permutation(experts) for _ in range(t)], dtype=np.int32).reshape(t, experts)
        messages: dict[tuple[int, int], list[int]] = {}
        for token in range(t):
            for e in order[token, :k]:
                slot = int(rng.choice(np.flatnonzero(expert[0] == e)))
                messages.setdefault((int(source[token]), slot), []).append(token)
        rows.append(row(messages, t, order[:, k : 2 * k]))
    top = int(rng.choice([2, 60]))
    base = step(
        g,
        layers * batches,
        slots=slots,
        attention_ps=rng.integers(0, top, g),
        gpus_per_node=m,
        overlap=overlap,
        shared_ps=rng.integers(0, top, g),
    )
    room = None if rng.random() < 0.3 else int(rng.integers(1, 5))
    return (
        base,
        rows,
        Queues(room=room, overflow=str(rng.choice(["drop", "block", "next"])), expert=expert, n_experts=experts),
    )


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_nothing_is_lost_whatever_the_policy(seed: int) -> None:
    """Every choice ends processed or dropped, once; parts and critical path sum to the step; one seed, one run."""
    program_, rows, own = random_case(seed)
    run = run_queued(program_, rows, own, lambda n: 7 + 3 * n)
    again = run_queued(program_, rows, own, lambda n: 7 + 3 * n)
    for r, groups in enumerate(rows):
        expert = own.expert[r // program_.micro_batches]
        asked = np.zeros(own.n_experts, dtype=int)
        np.add.at(asked, np.repeat(expert[groups.slot], np.diff(groups.first)), 1)
        processed = np.zeros_like(asked)
        np.add.at(processed, expert, run.admitted[r])
        np.testing.assert_array_equal(asked + run.rerouted_in[r], processed + run.dropped[r] + run.rerouted_away[r])
        assert run.token_drops[r].sum() == run.dropped[r].sum() == run.dropped_copies[r].sum()
    done = run.kind == EXPERTS
    assert run.tokens[done].sum() == run.admitted.sum() == run.waits[:, 4].sum()
    back = run.kind == COMBINE
    landed = Counter(zip(run.destination[back].tolist(), run.layer[back].tolist(), strict=True))
    assert all(d >= 0 for d, _ in landed)
    times = queued_step_times(run, program_, dispatch_bytes=3, combine_bytes=5, keep_tasks=True)
    assert (times.parts_ps >= 0).all()
    assert (times.parts_ps.sum(axis=1) == times.makespan_ps).all()
    assert times.critical_ps.sum() == times.critical_gpu_ps.sum() == times.makespan_ps
    np.testing.assert_array_equal(run.start_ps, again.start_ps)
    np.testing.assert_array_equal(run.end_ps, again.end_ps)
    for x in range(program_.n_gpus):  # one task at a time on a compute stream
        own_tasks = np.flatnonzero((run.gpu == x) & (run.destination < 0))
        order = own_tasks[np.lexsort((run.end_ps[own_tasks], run.start_ps[own_tasks]))]
        assert (run.start_ps[order][1:] >= run.end_ps[order][:-1]).all()


def shuffled(seed: int) -> type[simpy.Environment]:
    """SimPy with the events of one instant and priority in a random order."""
    rng = np.random.default_rng(seed)

    class Shuffled(simpy.Environment):
        def schedule(self, event: simpy.Event, priority: Any = 1, delay: Any = 0) -> None:
            queue: list[Any] = self._queue
            heappush(queue, (self._now + delay, priority, (rng.random(), next(self._eid)), event))

    return Shuffled


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_nothing_hangs_on_the_order_of_events_of_an_instant(seed: int) -> None:
    """Times, causes, waits and who is dropped are the same in whatever order SimPy deals with what happens at once."""
    program_, rows, own = random_case(seed)

    def columns() -> dict[str, Any]:
        run = run_queued(program_, rows, own, lambda n: 7 + 3 * n)
        return {**vars(run), "token_drops": np.concatenate([np.empty(0, dtype=np.int64), *run.token_drops])}

    expected = columns()
    for i in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(simpy, "Environment", shuffled(i))
            found = columns()
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_a_batch_holds_all_that_has_landed_when_it_begins() -> None:
    """Both groups for slot 2 land at 112, when GPU 2 ends its attention: one batch, not one and one."""
    groups = row({(0, 2): [0], (1, 2): [1]}, 2)
    apart = step(3, 1, slots=3, gpus_per_node=1, attention_ps=[100, 100, 135])
    first, second = (100 + 30 + 5 * n for n in (1, 2))  # across nodes: latency 30, 5 ps a token at the port
    run = run_queued(apart, [groups], queues(3), lambda n: 100 * n)
    assert tasks(run, EXPERTS) == [(2, first, first + 100, 1), (2, first + 100, first + 200, 1)]
    later = dataclasses.replace(apart, duration_ps=np.where(apart.duration_ps == 135, second, apart.duration_ps))
    assert tasks(run_queued(later, [groups], queues(3), lambda n: 100 * n), EXPERTS) == [(2, second, second + 200, 2)]


@given(st.integers(0, 2**32 - 1))
def test_all_times_scale(seed: int) -> None:
    """Everything three times as long ends three times as late."""
    program_, rows, own = random_case(seed)
    triple = {
        name: dataclasses.replace(
            getattr(program_, name),
            out_ps=getattr(program_, name).out_ps * 3,
            in_ps=getattr(program_, name).in_ps * 3,
            latency_ps=getattr(program_, name).latency_ps * 3,
        )
        for name in ("dispatch", "combine")
    }
    slow = dataclasses.replace(program_, duration_ps=program_.duration_ps * 3, **triple)
    run = run_queued(program_, rows, own, lambda n: 7 + 3 * n)
    run3 = run_queued(slow, rows, own, lambda n: 3 * (7 + 3 * n))
    np.testing.assert_array_equal(run.end_ps * 3, run3.end_ps)
