"""`moesim run`: one scenario."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.options import (
    FileArgument,
    JsonOption,
    OutputOption,
    QuietOption,
    SetOption,
    StrictOption,
    load_scenario,
)
from moesim.cli.output import (
    default_folder,
    print_saved,
    print_summary_json,
    progress_bar,
    tell_compiling,
    will_compile,
)
from moesim.errors import InputError

if TYPE_CHECKING:
    from moesim.scenario import Scenario

# an option's value cannot be left out, so that --trace is a flag and its path an argument of the command
TracePathArgument = Annotated[
    Path | None, typer.Argument(metavar="[PATH]", help="Of the trace (default: timeline.json in the result folder).")
]
TraceOption = Annotated[
    bool, typer.Option("--trace", help="Write the kept steps as a trace, to PATH, for ui.perfetto.dev.")
]


def run(
    file: FileArgument,
    path: TracePathArgument = None,
    output: OutputOption = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    trace: TraceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Simulate one scenario, without its variants.

    Writes a result folder with a report and prints a summary. Timelines: run FILE --trace [PATH].
    """
    from moesim import simulation
    from moesim.report.sparkline import balancedness
    from moesim.report.terminal import summary_table
    from moesim.results import TRACE, prepare_output

    cold = will_compile()
    scenario = load_scenario(file, settings, strict=strict, quiet=quiet)
    name = scenario.spec.name
    ready = simulation.prepared(scenario)
    _check_trace(scenario, path, trace=trace)
    folder = prepare_output(output or default_folder(name))
    if cold and not quiet:
        tell_compiling()
    with progress_bar(name, quiet=quiet) as bar:
        result = simulation.run(ready, progress=lambda done, total: bar.update(name, done, total))
    result.save(folder, trace=trace and path is None)
    if path is not None:
        result.save_trace(path)
    if json:
        print_summary_json(folder)
    elif not quiet:
        print_saved(folder, summary_table(result.summary, result.manifest, sparkline=balancedness(result)))
        if trace:
            print(f"timeline: {path or folder / TRACE}")


def _check_trace(scenario: Scenario, path: Path | None, *, trace: bool) -> None:
    """Refuse, before anything runs, a trace that cannot be written."""
    if path is not None and not trace:
        raise InputError(f"{path}: found a second argument, wanted one scenario (or --trace and its path)")
    if trace and scenario.spec.keep.timeline_steps == 0:
        raise scenario.error("keep.timeline_steps", 0, "at least 1, as --trace writes the kept steps")
    if path is not None:
        from moesim.report.perfetto import OPENING
        from moesim.results import prepare_file

        prepare_file(path, opening=OPENING)
