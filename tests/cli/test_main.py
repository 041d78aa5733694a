"""The command line as a whole: help, versions, exit codes of the odd ends."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import moesim as package
from moesim.cli import main, output
from moesim.errors import ConservationError
from tests.cli.conftest import Call

HEAVY = ("jinja2", "numba", "numpy", "pandas", "plotly", "pyarrow", "pydantic", "scipy", "simpy", "joblib")
COMMANDS = (
    *("run", "compare", "sweep", "plot", "show", "init", "list", "schema"),
    *("import", "describe", "fit", "validate", "calibrate"),
)


def test_help_names_every_command(moesim: Call) -> None:
    """Every command stands there with a line about it that is not cut."""
    outcome = moesim("--help")
    assert outcome.code == 0
    for command in COMMANDS:
        assert f"  {command} " in outcome.out
    assert "..." not in outcome.out.partition("Commands:")[2]  # every command has a line that fits


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(moesim: Call, command: str) -> None:
    """It starts with how the command is called."""
    outcome = moesim(command, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"Usage: moesim {command}")
    assert "--help" in outcome.out


def test_without_a_command_the_help_is_shown(moesim: Call) -> None:
    """The exit code is that of wrong usage all the same."""
    outcome = moesim()
    assert outcome.code == 2
    assert "Usage: moesim" in outcome.out + outcome.err


def test_help_loads_no_heavy_library(source_environment: dict[str, str]) -> None:
    """None of the libraries that take long to import is loaded by the help."""
    code = (
        "import sys, moesim.cli\n"
        "try: moesim.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=source_environment)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"


def test_version(moesim: Call) -> None:
    """It is the version of the package."""
    outcome = moesim("--version")
    assert (outcome.code, outcome.out) == (0, f"moesim {package.__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [("runn", "x"), ("run",), ("run", "x", "--frobnicate"), ("run", "x", "-o"), ("show", "a", "b"), ("compare",)],
)
def test_a_wrong_argument_is_one_line_and_exit_2(moesim: Call, arguments: tuple[str, ...]) -> None:
    """Unknown commands and options, missing and superfluous arguments."""
    outcome = moesim(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert "--help)" in outcome.err


def test_a_failed_run_is_exit_1(moesim: Call, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of several lines is told in one."""

    def fail(*_: object, **__: object) -> None:
        raise ConservationError("layer 3:\n  17 tokens were lost")

    monkeypatch.setattr("moesim.simulation.run", fail)
    outcome = moesim("run", small)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-1] == "error: layer 3: 17 tokens were lost"


@pytest.mark.parametrize("raised, code", [(KeyboardInterrupt, 130), (MemoryError, 1)])
def test_an_end_from_outside_leaves_nothing_behind(
    moesim: Call, small: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, raised: type[BaseException], code: int
) -> None:
    """An interrupt or the end of memory during a run leaves no folder and no traceback."""

    def stop(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("moesim.simulation.run", stop)
    outcome = moesim("run", small, "-o", folder / "out")
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in outcome.err
    assert [path.name for path in folder.iterdir()] == ["small.yaml"]


def test_a_reader_that_stops_reading_is_no_traceback(folder: Path, source_environment: dict[str, str]) -> None:
    """The other end of the pipe closes at once."""
    command = f"{sys.executable} -m moesim list strategies --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=source_environment)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments, target, reason",
    [
        ("schema", "/dev/full", "No space left on device"),
        ("list models", "/dev/full", "No space left on device"),
        ("run small.yaml -o out", "/dev/full", "No space left on device"),
        ("run small.yaml -o out", "&-", "Bad file descriptor"),
    ],
)
def test_output_that_cannot_be_written_is_one_line(
    small: Path, source_environment: dict[str, str], arguments: str, target: str, reason: str
) -> None:
    """A full device or a closed stream is an error of the output."""
    command = f"{sys.executable} -m moesim {arguments} >{target}"
    done = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True, env=source_environment)
    assert done.returncode == 1
    *progress, error = done.stderr.splitlines()  # a slow machine says how far a run is
    assert error == f"error: the output cannot be written: {reason}"
    assert all(line.endswith(" left") for line in progress)


@pytest.mark.parametrize(
    "arguments, code", [("run small.yaml -q -o out >&-", 0), ("schema 2>&-", 0), ("run nowhere.yaml >&- 2>&-", 2)]
)
def test_a_closed_stream_that_nothing_is_written_to_does_no_harm(
    small: Path, source_environment: dict[str, str], arguments: str, code: int
) -> None:
    """The exit code is that of the command."""
    command = f"{sys.executable} -m moesim {arguments}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=source_environment)
    assert (done.returncode, done.stderr) == (code, "")


def test_main_ends_with_the_exit_code() -> None:
    """Called from Python it raises SystemExit with the code."""
    with pytest.raises(SystemExit) as ended:
        main(["list", "nothing"])
    assert ended.value.code == 2


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.mark.parametrize("patience, shown", [(0.0, True), (60.0, False)])
def test_the_progress_bar_appears_only_when_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, patience: float, shown: bool
) -> None:
    """Below the patience no bar is drawn."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output, "PATIENCE_S", patience)
    monkeypatch.setenv("TERM", "xterm")
    with output.progress_bar("work", quiet=False) as bar:
        time.sleep(0.2)
        bar.update("work", 3, 4)
    assert ("3/4" in stream.getvalue()) == shown


@pytest.mark.parametrize("stream, quiet", [(Terminal(), True), (io.StringIO(), False)])
def test_no_progress_bar_where_nobody_looks(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, quiet: bool) -> None:
    """Neither with --quiet nor off a terminal."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output, "PATIENCE_S", 0.0)
    with output.progress_bar("work", quiet=quiet) as bar:
        time.sleep(0.1)
        bar.update("work", 3, 4)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("updates", [0, 1])
@pytest.mark.parametrize("quiet", [False, True])
def test_an_interrupt_that_somebody_swallows_is_not_lost(hears_interrupts: None, quiet: bool, updates: int) -> None:
    """As one that arrives in a callback of C code, whose exceptions end there."""
    before = signal.getsignal(signal.SIGINT)
    reached = []

    def work() -> None:
        with output.progress_bar("work", quiet=quiet) as bar:
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            for i in range(updates):
                bar.update("work", 1, 2)
                reached.append(i)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == []
    assert signal.getsignal(signal.SIGINT) is before


def test_off_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each interval, with the name on one line and the time that is left."""
    monkeypatch.setattr(output, "LINE_S", 0.05)
    with output.progress_bar("work", quiet=False) as lines:
        lines.update("work", 0, 4)
        lines.update("work", 1, 4)
        time.sleep(0.1)
        lines.update("a\nb", 2, 4)
        lines.update("work", 3, 4)
    assert capsys.readouterr().err == "a b: 2 of 4, about 0 s left\n"


@pytest.mark.parametrize(
    "name, folder",
    [
        ("Small test", "small-test"),
        ("DeepSeek-V3 / 64 H200", "deepseek-v3-64-h200"),
        ("..", "scenario"),
        ("日本", "scenario"),
    ],
)
def test_the_default_folder_is_the_name_in_letters_and_digits(name: str, folder: str) -> None:
    """Other characters become hyphens."""
    assert output.default_folder(name).as_posix() == f"results/{folder}"
