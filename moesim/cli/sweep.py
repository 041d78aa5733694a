"""`moesim sweep`: a scenario over the points of its `sweep:` block."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.atomic import write_file
from moesim.cli.options import (
    FileArgument,
    JsonOption,
    OutputOption,
    QuietOption,
    SeedsOption,
    SetOption,
    StrictOption,
    UntilCiOption,
    load_scenario,
    parse_percent,
)
from moesim.cli.output import default_folder, progress_bar, tell_compiling, tell_shortfall, will_compile

if TYPE_CHECKING:
    from moesim.results import Study

MAX_ERRORS = 10


def sweep(
    file: FileArgument,
    output: OutputOption = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    seeds: SeedsOption = None,
    until_ci: UntilCiOption = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Processes of one thread each (default: processors).")
    ] = None,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="ADDRESS", help="Dask scheduler to run on, as tcp://host:8786.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Simulate every point of a sweep.

    Points, variants and seeds are multiplied. Results go to DIR/summary.parquet as they finish, one row a run. After an
    interruption the same command goes on where it was; what fails is shown at the end.
    """
    from moesim import study
    from moesim.results import Study
    from moesim.simulation.threads import default_threads

    cold = will_compile()
    scenario = load_scenario(file, settings, strict=strict, quiet=quiet)
    name = scenario.spec.name
    width = parse_percent(until_ci)
    folder = output or default_folder(name, "-sweep")
    if cold and not quiet:
        tell_compiling()
    n_workers = default_threads() if workers is None else workers
    try:
        with progress_bar(name, quiet=quiet) as bar:
            done = study.sweep(
                scenario,
                folder=folder,
                seeds=seeds,
                until_ci=width,
                workers=n_workers,
                dask=dask,
                progress=bar.update,
            )
    except KeyboardInterrupt:
        if (folder / "summary.parquet").exists():
            kept = len(Study.load(folder).points)
            print(f"interrupted; {kept} runs are in {folder}, the same command goes on from there", file=sys.stderr)
        raise
    if len(done.points):
        write_file(folder / "report.html", done.report_html())
    if width is not None and not quiet:
        tell_shortfall(study.shortfall(done.points, width, done.axes or ()))
    if json:
        sys.stdout.write(done.points.to_json(orient="records", indent=2) + "\n")
    elif not quiet:
        _print(done, folder)
    if done.errors:
        _print_error(done)
        raise typer.Exit(1)


def _print(done: Study, folder: Path) -> None:
    from moesim.report.terminal import print_table
    from moesim.report.terminal_tables import paired_text_table, points_text_table

    print_table(points_text_table(done.summary, done.axes or ()), sys.stdout)
    if len(done.paired) and done.paired["n"].max() > 1:
        print()
        print_table(paired_text_table(done.paired, ["step_time_s.mean"]), sys.stdout)
    print(f"\n{len(done.points)} runs: {folder / 'summary.parquet'}")
    print(f"report: {folder / 'report.html'}")


def _print_error(done: Study) -> None:
    """The runs that failed, on stderr, whatever is in their texts."""
    from moesim.report.text import printable

    print(f"{len(done.errors)} of {len(done.errors) + len(done.points)} runs failed:", file=sys.stderr)
    for error in done.errors[:MAX_ERRORS]:
        place = ", ".join(f"{name}={value}" for name, value in error.items() if name != "error" and value is not None)
        print(f"  {printable(place)}: {printable(error['error'], 500)}", file=sys.stderr)
    if len(done.errors) > MAX_ERRORS:
        print(f"  and {len(done.errors) - MAX_ERRORS} more in errors.json", file=sys.stderr)
