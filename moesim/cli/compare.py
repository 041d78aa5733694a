"""`moesim compare`: the variants of a scenario, or several scenarios."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from moesim.cli.options import JsonOption, OutputOption, QuietOption, SetOption, load_scenario
from moesim.cli.output import (
    default_folder,
    print_saved,
    print_summary_json,
    progress_bar,
    tell_compiling,
    will_compile,
)


def compare(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="One scenario with variants under `compare:`, or two and more."),
    ],
    output: OutputOption = None,
    settings: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Simulate variants on the same tokens.

    Of one file its variants, of several files their base scenarios; the first is the baseline. Writes a result
    folder with one report and prints one table.
    """
    from moesim import study
    from moesim.report.sparkline import balancedness
    from moesim.report.terminal import compare_table
    from moesim.results import Study, prepare_output

    cold = will_compile()
    scenarios = [load_scenario(file, settings) for file in files]
    name = scenarios[0].spec.name
    runs = study.plan(*scenarios)
    folder = prepare_output(output or default_folder(name, "-compare"))
    if cold and not quiet:
        tell_compiling()
    done = Study(name=name, results={})
    try:
        with progress_bar(name, quiet=quiet) as bar:
            for variant, result in study.run_all(runs, bar.update):
                done = Study(name=name, results={**done.results, variant: result})
    except KeyboardInterrupt:
        if done.results:
            done.save(folder)
            print(f"interrupted; {len(done.results)} of {len(runs)} variants are in {folder}", file=sys.stderr)
        raise
    done.save(folder)
    if json:
        print_summary_json(folder)
    elif not quiet:
        lines = {variant: balancedness(result) for variant, result in done.results.items()}
        rows = {variant: result.summary for variant, result in done.results.items()}
        print_saved(folder, compare_table(rows, sparklines=lines))
