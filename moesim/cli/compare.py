"""`moesim compare`: the variants of a scenario, or several scenarios."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from moesim.cli.options import (
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
from moesim.cli.output import (
    default_folder,
    print_summary_json,
    progress_bar,
    tell_compiling,
    tell_shortfall,
    will_compile,
)


def compare(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="One scenario with variants under `compare:`, or two and more."),
    ],
    output: OutputOption = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    seeds: SeedsOption = None,
    until_ci: UntilCiOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Simulate variants on the same tokens.

    Of one file its variants, of several files their base scenarios; the first is the baseline. Writes a result
    folder with one report and prints one table; with several seeds also what differs, paired by seed.
    """
    from moesim import study
    from moesim.report.sentence import sentence
    from moesim.report.sparkline import balancedness
    from moesim.report.terminal import compare_table, print_table
    from moesim.report.terminal_tables import paired_text_table
    from moesim.results import Study, prepare_output

    cold = will_compile()
    scenarios = [load_scenario(file, settings, strict=strict, quiet=quiet) for file in files]
    name = scenarios[0].spec.name
    width = parse_percent(until_ci)
    runs = study.plan(*scenarios)
    folder = prepare_output(output or default_folder(name, "-compare"))
    if cold and not quiet:
        tell_compiling()
    done = Study(name=name, results={})
    try:
        with progress_bar(name, quiet=quiet) as bar:
            for done in study.replicate(name, runs, seeds=seeds, until_ci=width, progress=bar.update):  # noqa: B007
                pass
    except KeyboardInterrupt:
        if done.results:
            done.save(folder)
            print(f"interrupted; {len(done.results)} of {len(runs)} variants are in {folder}", file=sys.stderr)
        raise
    done.save(folder)
    if width is not None and not quiet:
        tell_shortfall(study.shortfall(done.points, width))
    if json:
        print_summary_json(folder)
    elif not quiet:
        lines = {variant: balancedness(result) for variant, result in done.results.items()}
        tables = [compare_table(done.summaries(), sparklines=lines, paired=done.paired)]
        if done.paired["n"].max() > 1:
            tables.append(paired_text_table(done.paired))
        for table in tables[:-1]:
            print_table(table, sys.stdout)
            print()
        print_table(tables[-1], sys.stdout)
        if line := sentence(done.summary, done.paired):
            print(f"\n{line}")
        print(f"\nreport: {folder / 'report.html'}")
