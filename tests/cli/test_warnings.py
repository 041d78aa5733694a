"""What the commands say of fields without effect, and what `--strict` makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moesim import Result, Study
from tests.cli.conftest import Call

IDLE = """\
model: {preset: mixtral-8x7b, n_layers: 2}
cluster: {gpu: h100-sxm, gpus_per_node: 2}
workload: {steps: 1, tokens_per_gpu: 8, sequence_tokens: 64}
simulation: {overlap_slowdown: 0.1}
compare: {a: {}, b: {placement.strategy: round-robin}}
sweep: {workload.tokens_per_gpu: [4, 8]}
"""
SEQUENCE = "in decode a sequence has one token a step and context_tokens cached ones"
LOSS = "only two micro-batches compute while they exchange, and simulation.overlap is none"
LINES = [
    f"idle.yaml:3:41: workload.sequence_tokens: found 64, which has no effect: {SEQUENCE}",
    f"idle.yaml:4:14: simulation.overlap_slowdown: found 0.1, which has no effect: {LOSS}",
]
COMMANDS = {"run": ("-o", "out"), "compare": ("-o", "out"), "sweep": ("-o", "out", "--workers", "1"), "show": ()}


@pytest.fixture
def idle(folder: Path) -> str:
    """A file with two fields without effect."""
    (folder / "idle.yaml").write_text(IDLE, encoding="utf-8")
    return "idle.yaml"


def labelled(word: str) -> str:
    """The lines as they are printed, each after its word."""
    return "".join(f"{word}: {line}\n" for line in LINES)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_field_is_one_warning_on_stderr_and_in_the_report(
    moesim: Call, idle: str, folder: Path, command: str
) -> None:
    """Each command says it once, and standard output does not have it."""
    outcome = moesim(command, idle, *COMMANDS[command])
    assert (outcome.code, outcome.err) == (0, labelled("warning"))
    assert "which has no effect" not in outcome.out
    for report in folder.glob("out/report.html"):
        page = report.read_text(encoding="utf-8")
        assert all(page.count(f"<li>{line}</li>") == 1 for line in LINES)
    assert (folder / "out").exists() == (command != "show")
    if command in ("compare", "sweep"):
        assert Study.load(folder / "out").warnings == tuple(LINES)


@pytest.mark.parametrize("command", COMMANDS)
def test_strict_refuses_before_anything_is_simulated(moesim: Call, idle: str, folder: Path, command: str) -> None:
    """The warnings become errors, and no result is written."""
    outcome = moesim(command, idle, "--strict")
    assert (outcome.code, outcome.out, outcome.err) == (2, "", labelled("error"))
    assert [path.name for path in folder.iterdir()] == [idle]


def test_strict_lets_a_scenario_pass_whose_fields_all_count(moesim: Call, small: Path) -> None:
    """Nothing is said."""
    outcome = moesim("run", small, "--strict")
    assert (outcome.code, outcome.err) == (0, "")


def test_json_stays_alone_on_stdout_and_quiet_says_it_in_the_result_only(moesim: Call, idle: str, folder: Path) -> None:
    """The manifest holds the lines."""
    outcome = moesim("run", idle, "--json")
    assert (outcome.err, json.loads(outcome.out)["n_steps"]) == (labelled("warning"), 1)
    quiet = moesim("run", idle, "--quiet", "-o", "quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    assert Result.load(folder / "quiet").manifest["warnings"] == LINES
    assert moesim("run", idle, "--quiet", "--strict").err == labelled("error")


def test_of_several_files_each_is_judged(moesim: Call, idle: str, small: Path) -> None:
    """The second of two files has the fields without effect."""
    outcome = moesim("compare", small, idle, "--strict")
    assert (outcome.code, outcome.err) == (2, labelled("error"))


def test_the_file_that_init_writes_is_free_of_them(moesim: Call) -> None:
    """The template passes --strict."""
    assert moesim("init", "mine").code == 0
    outcome = moesim("show", "mine.yaml", "--strict")
    assert (outcome.code, outcome.err) == (0, "")
