"""The description of a recording: its numbers, its tables and its page."""

from __future__ import annotations

import json

import numpy as np
import pytest

from moesim.errors import ParameterError
from moesim.recordings.description import describe_recording
from moesim.report.recording import closing_lines, recording_html, statistic_tables
from moesim.report.terminal import print_table
from moesim.types import CountsTrace, LogitsTrace, Trace, token_columns


def trace() -> Trace:
    """256 tokens of 8 sequences in 3 layers, prefill then decode; the middle layer was not recorded."""
    rng = np.random.default_rng(0)
    expert = rng.random((3, 256, 128)).argsort(axis=2)[..., :8].astype(np.int32)
    expert[:, ::2, :2] = [127, 126]  # a pair
    expert[:, ::2, 2:] %= 126
    expert[1] = -1
    return Trace(
        expert=expert,
        weight=None,
        **token_columns(
            256,
            sequence=np.arange(256) % 8,
            step=np.arange(256) // 32,
            phase=(np.arange(256) >= 128).astype(np.int8),
        ),
        layer_ids=(3, 4, 5),
        n_experts=128,
        layout="a layout",
        model="<script>alert(1)</script>",
        notes=("warm-up & padding were left out",),
        path="/some/where/trace.parquet",
    )


def test_every_recorded_layer_has_a_row_in_every_phase() -> None:
    """In the order of phases and layers, as plain JSON too."""
    found = describe_recording(trace(), n_ranks=16)
    assert [(row.phase, row.layer) for row in found.rows] == [(p, i) for p in ("prefill", "decode") for i in (3, 5)]
    assert all(row.n_tokens == 128 and row.n_steps == 4 for row in found.rows)
    data = json.loads(json.dumps(found.data()))
    assert data["layers"][0]["overlap"]["even"] == pytest.approx(8 / 128)
    assert data["layers"][0]["destination_ranks"]["even"] == pytest.approx(6.60, abs=0.01)
    assert sum(data["layers"][0]["load"]) == 128 * 8


def test_tables_fit_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 80 columns."""
    import sys

    for title, table in statistic_tables(describe_recording(trace(), n_ranks=16)):
        print(title)
        print_table(table, sys.stdout)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert sum(line.startswith("even router") for line in lines) == 4


def test_the_page_escapes_what_users_wrote() -> None:
    """A model's name with a script; the notes are on the page."""
    page = recording_html(describe_recording(trace(), n_ranks=16))
    assert "<script>alert(1)" not in page
    assert "warm-up &amp; padding were left out" in page
    for figure in ("recorded-load", "recorded-imbalance", "recorded-overlap", "recorded-ranks", "recorded-pairs"):
        assert f'id="figure-{figure}"' in page
    assert page.endswith("</html>")


def test_counts_have_no_tokens_and_say_so() -> None:
    """One step: no sampling error, no overlap, no pairs."""
    counts = CountsTrace(
        count=np.arange(1, 17).reshape(1, 2, 8),
        step=np.array([7]),
        phase=np.array([-1], dtype=np.int8),
        layer_ids=(0, 1),
        n_experts=8,
    )
    found = describe_recording(counts, n_ranks=4)
    assert [row.n_tokens for row in found.rows] == [0, 0]
    assert "no sampling error" in closing_lines(found)[0]
    page = recording_html(found)
    assert "recorded-overlap" not in page
    assert "recorded-pairs" not in page


def test_logits_need_the_number_of_choices() -> None:
    """The largest are the choices."""
    logits = LogitsTrace(
        logits=np.array([[[0.0, 3.0, 1.0], [2.0, 1.0, 0.0]]], dtype=np.float32),
        **token_columns(2),
        layer_ids=(0,),
        n_experts=3,
    )
    with pytest.raises(ParameterError, match=r"top_k: found none, wanted 1 to 3"):
        describe_recording(logits)
    assert describe_recording(logits, top_k=2).rows[0].load.tolist() == [1, 2, 1]
    with pytest.raises(ParameterError, match=r"ep: found 4, wanted 1 to the 3 experts"):
        describe_recording(logits, top_k=2, n_ranks=4)
