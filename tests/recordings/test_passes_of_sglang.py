"""Forward passes of SGLang's recorder, as torch.load gives them: slots, ranks, sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.recordings.assemble import assemble
from moesim.recordings.layout import ImportJob, ImportOptions
from moesim.recordings.layouts.sglang_passes import RankFile, passes, rank_file, tokens
from moesim.types import Trace
from tests.recordings.engine_files import SLOTS, sglang_record


def job() -> ImportJob:
    """An import of one file."""
    return ImportJob(files=(Path("x.pt"),), options=ImportOptions())


def rank(*records: dict[str, Any]) -> RankFile:
    """What one rank wrote."""
    return rank_file("x.pt", {"records": list(records), "last_physical_to_logical_map": np.array(SLOTS)})


def routed(step: int, positions: list[int], mode: int, lengths: list[int] | None = None, **more: Any) -> dict[str, Any]:
    """A record of tokens that all choose slots 4 and 2, which are experts 0 and 2, in both layers."""
    ids = np.array([[[4, 2, -1, -1]] * len(positions)] * 2)
    known = {"input_ids": [9] * len(positions), "positions": positions, "extend_seq_lens": lengths}
    return sglang_record(step, forward_mode=mode, topk_ids_of_layer=ids, **known) | more


def traced(*files: RankFile) -> tuple[Trace, list[str]]:
    """The trace of the tokens of all ranks, and the notes."""
    done = job()
    return assemble(tokens(done, files), done), done.notes


def test_passes_are_summed_over_ranks_and_given_to_logical_experts() -> None:
    """Slots 4 and 5 are copies of experts 0 and 1; the second rank lacks pass 10."""
    first = [sglang_record(step, global_physical_count=[[0] * 6, [1, 2, 3, 4, 10, 20]]) for step in (9, 10)]
    second = sglang_record(9, global_physical_count=[[0] * 6, [1, 0, 0, 0, 0, 0]])
    done = job()
    trace = passes(done, [rank(*first), rank(second)])
    assert trace.count[:, 1].tolist() == [[12, 22, 3, 4], [11, 22, 3, 4]]
    assert trace.step.tolist() == [9, 10]
    assert [word for word in ("slots", "2 ranks", "1 of 2") if any(word in note for note in done.notes)] == [
        "slots",
        "2 ranks",
        "1 of 2",
    ]


def test_tokens_get_their_sequences() -> None:
    """Two prompts of 3 and 2 tokens, then a decode pass: a decode token continues what ends before its place."""
    trace, _ = traced(rank(routed(1, [0, 1, 2, 0, 1], 1, [3, 2]), routed(2, [2, 3], 2)))
    assert trace.expert.tolist() == [[[0, 2]] * 7] * 2
    assert trace.sequence.tolist() == [0, 0, 0, 1, 1, 1, 0]
    assert trace.step.tolist() == [1] * 5 + [2] * 2
    assert trace.position.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert trace.phase.tolist() == [0] * 5 + [1] * 2
    assert trace.weight is None


def test_a_chunk_of_a_prompt_continues_it() -> None:
    """Its second chunk begins where the first ended; a token that continues nothing is a new sequence."""
    trace, _ = traced(rank(routed(1, [0, 1], 1, [2]), routed(2, [2, 3], 1, [2]), routed(3, [7], 2)))
    assert trace.sequence.tolist() == [0, 0, 0, 0, 1]


def test_ranks_with_tokens_of_their_own_stand_side_by_side() -> None:
    """Data-parallel ranks; those of a tensor-parallel group recorded the same tokens, which count once."""
    apart, _ = traced(rank(routed(1, [0, 1], 1, [2])), rank(routed(1, [0], 1, [1])))
    assert apart.sequence.tolist() == [0, 0, 1]
    alike, notes = traced(rank(routed(1, [0, 1], 1, [2])), rank(routed(1, [0, 1], 1, [2])))
    assert alike.n_tokens == 2
    assert any("same tokens" in note for note in notes)


def test_a_dense_layer_chose_no_expert() -> None:
    """It is left out, and said; a mode of several kinds has no phase."""
    record = routed(1, [0, 1], 3, [2])
    record["topk_ids_of_layer"][0] = -1
    trace, notes = traced(rank(record))
    assert (trace.layer_ids, trace.phase.tolist()) == ((1,), [-1, -1])
    assert any("1 layers chose no expert" in note for note in notes)


@pytest.mark.parametrize(
    "record, message",
    [
        (routed(-1, [0], 2), r"records\[0\]: forward_pass_id: found -1"),
        (routed(1, [0], 2) | {"positions": [0, 1]}, "positions: found 2, wanted 1"),
        (routed(1, [0], 2, topk_ids_of_layer=[[[6, 0]]] * 2), "found 6, wanted whole numbers from -1 to 5"),
        (routed(1, [0], 2, topk_ids_of_layer=[[[1, 0]]]), "found 1 layers, wanted the 2 of the map"),
        (routed(1, [0], 2, topk_ids_of_layer=None), r"topk_ids_of_layer: .*wanted \[layers, tokens, k\]"),
    ],
)
def test_wrong_records_are_named(record: dict[str, Any], message: str) -> None:
    """File, record and field."""
    with pytest.raises(TraceError, match=message):
        traced(rank(record))


@pytest.mark.parametrize(
    "content, message",
    [
        ([], "x.pt: records"),
        ({"records": []}, "at least one forward pass"),
        ({"records": [{}]}, "last_physical_to_logical_map: missing"),
        ({"records": [{}], "last_physical_to_logical_map": [[0.5]]}, "found 0.5"),
    ],
)
def test_what_no_rank_wrote_is_refused(content: Any, message: str) -> None:
    """Other dictionaries of torch.save."""
    with pytest.raises(TraceError, match=message):
        rank_file("x.pt", content)
