"""The command line: one file a command.

In: arguments, scenario files, recordings. Out: tables and paths on stdout,
progress and errors on stderr, and an exit code: 0 done, 1 the run failed, 2 the
input was wrong, 130 interrupted. Commands import the rest of moesim inside their
functions, so that `--help` is quick.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer

from moesim.cli.calibrate import calibrate
from moesim.cli.compare import compare
from moesim.cli.describe import describe
from moesim.cli.fit import fit
from moesim.cli.import_ import import_
from moesim.cli.init import init
from moesim.cli.list import list_
from moesim.cli.plot import plot
from moesim.cli.run import run
from moesim.cli.schema import schema
from moesim.cli.show import show
from moesim.cli.sweep import sweep
from moesim.cli.validate import validate
from moesim.errors import InputError, MoesimError

app = typer.Typer(
    name="moesim",
    help="Simulate the routing and load of Mixture-of-Experts models. Start with: moesim compare quickstart",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
for _command, _name in (
    (run, "run"),
    (compare, "compare"),
    (sweep, "sweep"),
    (plot, "plot"),
    (show, "show"),
    (init, "init"),
    (list_, "list"),
    (describe, "describe"),
    (schema, "schema"),
    (import_, "import"),
    (describe, "describe"),
    (fit, "fit"),
    (validate, "validate"),
    (calibrate, "calibrate"),
):
    app.command(_name)(_command)

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Errors of a standard output, which have no file name, on a full device or closed."""
# the root of what typer raises about arguments; it brings its own copy of click or imports one, as its version has it
_UsageError = cast("type[Exception]", typer.BadParameter.__base__)


def _print_version(wanted: bool) -> None:
    if wanted:
        from moesim import __version__

        typer.echo(f"moesim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; errors of moesim are one line on stderr.

    Raises:
        SystemExit: always, with 0 (done), 1 (the run failed), 2 (the input was wrong) or 130 (interrupted).
    """
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: Sequence[str] | None) -> int:
    _open_closed_streams()
    try:
        code = app(args=arguments, prog_name="moesim", standalone_mode=False)
        sys.stdout.flush()  # a closed pipe shows here, not at interpreter exit
    except _UsageError as error:
        return _usage_error(error)
    except MoesimError as error:
        _print_error(str(error))
        return 2 if isinstance(error, InputError) else 1
    except MemoryError:
        _print_error("this machine's memory is exhausted; fewer steps, tokens or GPUs, or keep less")
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # the reader, `head` for one, had enough
        _drop_output()
        return 1
    except OSError as error:
        if error.errno not in UNWRITABLE or error.filename is not None:
            raise
        _drop_output()
        _print_error(f"the output cannot be written: {error.strerror}")
        return 1
    if code == 130:
        _print_error("interrupted")
    return code or 0


def _open_closed_streams() -> None:
    """Give closed standard streams files: Python has None for them, and other files would get their numbers."""
    if sys.stdout is None:  # opened for reading, so that output fails, as in other tools
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def _drop_output() -> None:
    """What is left to write goes nowhere, so that it does not fail again at interpreter exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_error(error: Any) -> int:
    """One line about a wrong argument; without any argument the help is the answer."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        command = error.ctx.command_path if error.ctx else "moesim"
        _print_error(f"{error.format_message().rstrip('.')} (see {command} --help)")
    return 2


def _print_error(text: str) -> None:
    """An error as one line, unwrapped, whatever is in the text."""
    print("error: " + " ".join(text.split()), file=sys.stderr)
