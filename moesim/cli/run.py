"""`moesim run`: one scenario."""

from __future__ import annotations

from moesim.cli.options import FileArgument, JsonOption, OutputOption, QuietOption, SetOption, load_scenario
from moesim.cli.output import (
    default_folder,
    print_saved,
    print_summary_json,
    progress_bar,
    tell_compiling,
    will_compile,
)


def run(
    file: FileArgument,
    output: OutputOption = None,
    settings: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Simulate one scenario, without its variants.

    Writes a result folder with a report and prints a summary.
    """
    from moesim.report.sparkline import balancedness
    from moesim.report.terminal import summary_table
    from moesim.results import prepare_output
    from moesim.simulation import check, simulate

    cold = will_compile()
    scenario = load_scenario(file, settings)
    name = scenario.spec.name
    check(scenario)
    folder = prepare_output(output or default_folder(name))
    if cold and not quiet:
        tell_compiling()
    with progress_bar(name, quiet=quiet) as bar:
        result = simulate(scenario, progress=lambda done, total: bar.update(name, done, total))
    result.save(folder)
    if json:
        print_summary_json(folder)
    elif not quiet:
        print_saved(folder, summary_table(result.summary, result.manifest, sparkline=balancedness(result)))
