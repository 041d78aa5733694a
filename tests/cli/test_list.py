"""`moesim list` and `moesim schema`."""

from __future__ import annotations

import json

import pytest

KNOWN = {
    "models": "deepseek-v3",
    "gpus": "h200-sxm",
    "networks": "deepep-low-latency",
    "strategies": "softmax-top-k",
    "placements": "round-robin",
}


@pytest.mark.parametrize("kind", KNOWN)
def test_a_list_is_uncut_off_a_terminal(moesim, kind):
    table = moesim("list", kind)
    entries = json.loads(moesim("list", kind, "--json").out)
    assert table.code == 0
    assert "…" not in table.out
    assert len(table.out.splitlines()) == 2 + len(entries)
    assert KNOWN[kind] in entries
    for name, entry in entries.items():
        line = next(line for line in table.out.splitlines() if line.split()[:1] == [name])
        assert str(entry.get("source") or entry["summary"]) in line


@pytest.mark.parametrize("kind", KNOWN)
def test_no_column_is_empty(moesim, kind):
    entries = json.loads(moesim("list", kind, "--json").out)
    from moesim.cli.list import COLUMNS

    for field, _ in COLUMNS[kind]:
        assert any(field in entry for entry in entries.values()), field


def test_an_unknown_kind_is_exit_2_with_a_suggestion(moesim):
    outcome = moesim("list", "model")
    assert (outcome.code, outcome.out) == (2, "")
    assert "did you mean models?" in outcome.err


def test_schema_is_a_json_schema(moesim):
    outcome = moesim("schema")
    assert outcome.code == 0
    schema = json.loads(outcome.out)
    assert schema["type"] == "object"
    assert {"name", "model", "workload", "routing", "compare"} <= schema["properties"].keys()
