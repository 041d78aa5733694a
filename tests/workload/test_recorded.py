"""Replay: a trace is written, read and replayed, and every expert has the load that was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.recordings import read_trace, rows_of_layers, write_trace
from moesim.types import CountsTrace, EqualSequences, Trace, token_columns
from moesim.workload import RecordedCounts, RecordedTokens
from moesim.workload.counted import deal, scaled

DECODES = EqualSequences(decodes=True, length=16)


def load(expert: NDArray[np.int32], n_experts: int) -> list[int]:
    """Assignments of each expert."""
    return list(map(int, np.bincount(expert[expert >= 0], minlength=n_experts)))


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Random choices of tokens in 1 to 3 of 6 layers, in steps that come in any order."""
    n_experts, n_tokens = draw(st.integers(2, 9)), draw(st.integers(1, 12))
    layers = tuple(sorted(draw(st.sets(st.integers(0, 5), min_size=1, max_size=3))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    top_k = draw(st.integers(1, min(3, n_experts)))
    expert = np.argsort(rng.random((len(layers), n_tokens, n_experts)), axis=2)[..., :top_k].astype(np.int32)
    weight = rng.random(expert.shape).astype(np.float32) if draw(st.booleans()) else None
    columns = token_columns(n_tokens, step=rng.integers(0, 4, n_tokens), sequence=rng.integers(0, 3, n_tokens))
    return Trace(expert=expert, weight=weight, layer_ids=layers, n_experts=n_experts, notes=("a note",), **columns)


@settings(max_examples=40, deadline=None)
@given(trace=traces())
def test_a_trace_that_is_written_read_and_replayed_has_its_loads(
    trace: Trace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Step by recorded step, in every layer of a model of six MoE layers; what was not recorded has no load."""
    path = tmp_path_factory.mktemp("trace") / "t.parquet"
    write_trace(trace, path)
    found = read_trace(path)
    assert isinstance(found, Trace)
    for name in ("expert", "sequence", "step", "position", "phase", "topic"):
        np.testing.assert_array_equal(getattr(found, name), getattr(trace, name), name)
    assert (found.layer_ids, found.n_experts, found.notes) == (trace.layer_ids, trace.n_experts, trace.notes)
    rows = rows_of_layers(found.layer_ids, range(6))
    assert rows is not None
    source = RecordedTokens(found, n_ranks=3, tokens_per_rank=None, alike=DECODES, rows=rows, as_recorded=True)
    for number, step in enumerate(np.unique(trace.step)):
        batch = source.batch(number)
        assert batch.n_tokens == np.count_nonzero(trace.step == step)
        for layer in range(6):
            replayed = source.choices(batch, layer, trace.top_k)
            recorded = trace.expert[trace.layer_ids.index(layer)] if layer in trace.layer_ids else np.full((1, 1), -1)
            recorded = recorded[trace.step == step] if layer in trace.layer_ids else recorded
            assert load(replayed.expert, trace.n_experts) == load(recorded, trace.n_experts)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_dealt_choices_have_the_recorded_loads(data: st.DataObject) -> None:
    """Whatever the counts, every expert occurs as often as counted, and at most once a token."""
    n_tokens, top_k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    count = np.array(data.draw(st.lists(st.integers(0, n_tokens), min_size=1, max_size=9)), dtype=np.int64)
    while count.sum() > n_tokens * top_k:
        count[count.argmax()] -= 1
    out = np.full((n_tokens, top_k), -1, dtype=np.int32)
    deal(data.draw(st.integers(0, 99)), 0, 0, count, out)
    assert load(out, len(count)) == count.tolist()
    assert all(len(set(row[row >= 0])) == np.count_nonzero(row >= 0) for row in out)


def test_dealt_choices_are_as_good_as_random() -> None:
    """Of 8 equally loaded experts in 4 nodes of 2, two distinct ones share a node with probability 1/7.

    20,000 tokens give 2,857; five standard deviations are 247, which chance exceeds for one seed in a million.
    """
    out = np.full((20_000, 2), -1, dtype=np.int32)
    deal(1, 0, 0, np.full(8, 5_000), out)
    assert abs(np.count_nonzero(out[:, 0] // 2 == out[:, 1] // 2) - 20_000 / 7) < 247


@pytest.mark.parametrize(
    "count, total, expected", [([1, 1, 2], 8, [2, 2, 4]), ([1, 1, 1], 4, [2, 1, 1]), ([0, 5, 0], 4, [0, 4, 0])]
)
def test_counts_are_scaled_by_largest_remainders(count: list[int], total: int, expected: list[int]) -> None:
    """The sum is exact; ties go to the lower number."""
    assert scaled(np.array(count), total, total).tolist() == expected
    with pytest.raises(InputError, match="assignments a token"):
        scaled(np.array([9, 1]), 8, 4)


def counts(values: list[Any]) -> CountsTrace:
    """A trace of these counts [S, L, E]."""
    count = np.array(values)
    n_steps, n_layers, n_experts = count.shape
    facts: dict[str, Any] = {"layer_ids": tuple(range(n_layers)), "n_experts": n_experts}
    return CountsTrace(count=count, step=np.arange(n_steps), phase=np.full(n_steps, -1, np.int8), **facts)


def test_counts_are_replayed_step_by_step(tmp_path: Path) -> None:
    """Two steps: 6 tokens of two choices, then 3; in the second layer fewer choices were counted."""
    write_trace(counts([[[6, 3, 3], [2, 1, 0]], [[2, 2, 2], [3, 0, 0]]]), tmp_path / "t.parquet")
    trace = read_trace(tmp_path / "t.parquet")
    assert isinstance(trace, CountsTrace)
    given: dict[str, Any] = {"seed": 0, "n_ranks": 2, "top_k": 2, "alike": DECODES, "rows": np.arange(2)}
    source = RecordedCounts(trace, tokens_per_rank=None, **given)
    assert [source.batch(step).n_tokens for step in range(3)] == [6, 3, 6]
    assert [load(source.choices(source.batch(1), layer, 2).expert, 3) for layer in (0, 1)] == [[2, 2, 2], [3, 0, 0]]
    source = RecordedCounts(trace, tokens_per_rank=4, **given)  # 8 tokens with the shares of the recording
    assert load(source.choices(source.batch(0), 0, 2).expert, 3) == [8, 4, 4]
    assert source.manifest(4)["trace_passes"] == 2


@pytest.mark.parametrize(
    "recorded, moe_layers, expected",
    [
        ((0, 1), (0, 1), [0, 1]),
        ((4, 5), (3, 4, 5), [-1, 0, 1]),  # numbers of the model's layers
        ((0, 1, 2), (3, 4, 5), [0, 1, 2]),  # numbers of its MoE layers
        ((1,), (0, 1), [-1, 0]),
        ((0, 7), (0, 1), None),
    ],
)
def test_recorded_layers_are_those_of_the_model(
    recorded: tuple[int, ...], moe_layers: tuple[int, ...], expected: list[int] | None
) -> None:
    """By the numbers of the layers, or those of the layers with experts alone."""
    found = rows_of_layers(recorded, moe_layers)
    assert (None if found is None else found.tolist()) == expected
