"""`moesim list` and `moesim schema`."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import pytest

from moesim.routing.gate import GateParameters
from moesim.routing.registry import GATE_PARAMETERS, STRATEGIES, parameters_for, strategy
from tests.cli.conftest import Call

KNOWN = {
    "models": "deepseek-v3",
    "gpus": "h200-sxm",
    "networks": "deepep-low-latency",
    "popularities": "deepseek-v3-served",
    "strategies": "softmax-top-k",
    "overflows": "reroute-to-best",
    "scopes": "source-rank",
    "substitutions": "least-loaded",
    "placements": "round-robin",
    "kernels": "sglang-deepep-fp8",
    "families": "qwen3_next",
    "layouts": "vllm-routes",
}


@pytest.mark.parametrize("kind", KNOWN)
def test_a_list_is_uncut_off_a_terminal(moesim: Call, kind: str) -> None:
    """Every entry has a line of its own with its whole name."""
    table = moesim("list", kind)
    entries = json.loads(moesim("list", kind, "--json").out)
    assert table.code == 0
    assert "…" not in table.out
    assert len(table.out.splitlines()) == 2 + len(entries) + 2 * (
        kind in ("strategies", "families")
    )  # what "gate" is, and the methods
    assert KNOWN[kind] in entries
    for name, entry in entries.items():
        line = next(line for line in table.out.splitlines() if line.startswith(f"{name} "))
        assert str(entry.get("source") or entry.get("summary") or entry["example"]) in line


@pytest.mark.parametrize("kind", KNOWN)
def test_no_column_is_empty(moesim: Call, kind: str) -> None:
    """Some entry has a value in every column."""
    entries = json.loads(moesim("list", kind, "--json").out)
    from moesim.cli.list import COLUMNS

    for field, _ in COLUMNS[kind]:
        outer, _, inner = field.partition(".")
        assert any(inner in entry.get(outer, {}) if inner else outer in entry for entry in entries.values()), field


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("kind", ["models", "gpus", "networks", "popularities"])
def test_a_list_fits_a_terminal(kind: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line an entry, uncut, and below the table a paragraph an entry with its source."""
    from moesim.cli import list as command

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", str(width))
    found, terminal = command.entries(kind), Terminal()
    command.print_entries(kind, found, terminal)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert all(len(line) <= width and "…" not in line for line in lines)
    table, _, below = "\n".join(line.rstrip() for line in lines).partition("\n\n")
    if kind != "popularities":  # what kinds say of themselves takes several lines
        assert [line.split()[0] for line in table.splitlines()[-len(found) :]] == list(found)
    assert not set(below.splitlines()) & set(found), "names with nothing beside them"
    words = " ".join(below.split())
    assert all(" ".join(entry["source"].split()) in words for entry in found.values() if "source" in entry)


def test_gpus_show_their_peaks_bandwidths_and_calibrated_kernels(moesim: Call) -> None:
    """The line of H100 has all of them; B200 has no constants of its own."""
    lines = {line.split()[0]: line for line in moesim("list", "gpus").out.splitlines()[2:]}
    for word in ("989.4   1978.9", "3352", "450 / 50", "datasheet (2023)", "trtllm-bf16, trtllm-fp8,"):
        assert word in lines["h100-sxm"]
    assert lines["b200-sxm"].rstrip().endswith(" -")  # none: its kernels take the constants of H100


def test_models_show_their_parameters(moesim: Call) -> None:
    """The line of Mixtral, with what publishers say of it."""
    lines = {line.split()[0]: line.split() for line in moesim("list", "models").out.splitlines()[2:]}
    assert lines["mixtral-8x7b"][1:9] == ["46.7B", "12.9B", "32", "32", "8", "2", "0", "4096"]
    assert lines["kimi-k2"][1:3] == ["1.03T", "32.9B"]
    entry = json.loads(moesim("list", "models", "--json").out)["mixtral-8x7b"]
    assert entry["parameters"]["total"] == pytest.approx(46.7e9, rel=0.001)
    assert entry["hugging_face"] == ["mistralai/Mixtral-8x7B-v0.1", "mistralai/Mixtral-8x7B-Instruct-v0.1"]


def test_an_unknown_kind_is_exit_2_with_a_suggestion(moesim: Call) -> None:
    """A misspelt list is answered by the nearest one."""
    outcome = moesim("list", "model")
    assert (outcome.code, outcome.out) == (2, "")
    assert "did you mean models?" in outcome.err


def test_schema_is_a_json_schema(moesim: Call) -> None:
    """The schema describes the blocks of a scenario."""
    outcome = moesim("schema")
    assert outcome.code == 0
    schema = json.loads(outcome.out)
    assert schema["type"] == "object"
    assert {"name", "model", "workload", "routing", "compare"} <= schema["properties"].keys()


def test_parameters_in_the_list_are_those_of_the_strategies() -> None:
    """Names and defaults, so that the table cannot fall behind."""
    gate = {field.name: field.default for field in dataclasses.fields(GateParameters)}
    assert ", ".join(f"{name}={value}" for name, value in gate.items()) == GATE_PARAMETERS
    for name, entry in STRATEGIES.items():
        found = strategy(name)
        own = dataclasses.asdict(parameters_for(found, {}))
        if issubclass(found.parameters, GateParameters):
            differ = {key: value for key, value in own.items() if key not in gate or value != gate[key]}
            expected = ["gate", *(f"{key}={value}" for key, value in differ.items())]
        else:
            other = {key: f" ({value} outside training)" for key, value in found.at_inference.items()}
            expected = [f"{key}={value}{other.get(key, '')}" for key, value in own.items()]
        assert entry.parameters == ", ".join(expected), name


def test_a_former_kind_is_listed_with_a_warning_that_says_the_new_name(moesim: Call) -> None:
    """On stderr, so that stdout is the same."""
    former, present = moesim("list", "balancers"), moesim("list", "substitutions")
    assert (former.code, former.out) == (0, present.out)
    assert former.err == "warning: balancers are now called substitutions; the old name still works\n"
