"""What the tests of the command line share: a small scenario, and two ways to call a command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCENARIO = """\
scenario_version: 1
name: Small test
seed: 3
model: mixtral-8x7b
cluster: {gpu: h100-sxm, nodes: 1, gpus_per_node: 8}
workload: {kind: steps, phase: decode, steps: 2, tokens_per_gpu: 4, popularity: {kind: zipf, exponent: 0.5}}
compare:
  as trained: {}
  tight: {routing.capacity: {factor: 1.0}}
"""


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Outcome]
"""Calls the command line with these arguments."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(folder: Path) -> Path:
    """A scenario file that runs in a moment."""
    path = folder / "small.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path


@pytest.fixture
def moesim(folder: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command line in this process."""
    from moesim.cli import main

    def call(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def source_environment() -> dict[str, str]:
    """The environment of a subprocess that finds these sources wherever it runs."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def subprocess_moesim(folder: Path, source_environment: dict[str, str]) -> Call:
    """Call the command line in a process of its own, off a terminal."""

    def call(*arguments: object, **extra: str) -> Outcome:
        command = [sys.executable, "-m", "moesim", *map(str, arguments)]
        variables = {**source_environment, **extra}
        done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call
