"""`moesim calibrate`: constants from measurements of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    import pandas as pd


def calibrate(
    data: Annotated[str, typer.Argument(metavar="DIR", help="Measured tables, or aiconfigurator:h200_sxm.")],
    system: Annotated[str, typer.Option("--system", metavar="NAME", help="The system in the tables, as h200_sxm.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file of constants to write.")],
    folds: Annotated[int, typer.Option("--folds", min=0, help="Parts for the cross-validated error; 0 for none.")] = 5,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit the constants of kernels to measured tables.

    Writes a file that a scenario names as cluster.kernels, and prints how well rows are met that were fitted, and rows
    that were left out curve by curve.
    """
    from moesim import calibration
    from moesim.cli.output import progress_bar

    with progress_bar("calibrating", quiet=quiet) as bar:
        found = calibration.calibrate(data, system, name=output.stem, folds=folds, progress=bar.update)
    found.write(output)
    if json:
        from moesim.calibration.validate import records
        from moesim.results.files import json_text

        document = {
            "file": str(output),
            "errors": records(found.errors),
            "taken": sorted(found.used_in_steps),
            "artefacts": found.artefacts,
            "notes": found.notes,
        }
        sys.stdout.write(json_text(document))
    elif not quiet:
        _print(found.errors)
        if found.artefacts:
            print(f"\n{sum(found.artefacts.values()):,} rows are known artefacts and were not fitted")
        for note in found.notes:
            print(f"note: {note}")
        others = sorted(set(found.kernels) - set(found.used_in_steps))
        if found.used_in_steps:
            print(f"\na scenario that names the file takes its constants of {', '.join(sorted(found.used_in_steps))}")
        if others:
            print(f"no step takes those of {', '.join(others)}; moesim validate --kernels does")
        print(f"\nconstants: {output}")


def _print(errors: pd.DataFrame) -> None:
    from moesim.report.terminal import print_table, text_table
    from moesim.report.text import printable
    from moesim.report.units import count, percent

    headers = ("kind", "group", "n", "median %", "p90 %", "left out: median %", "p90 %")
    rows = []
    for row in errors.to_dict("records"):
        shares = [percent(float(row[name])) for name in ("median", "p90", "cv_median", "cv_p90")]
        rows.append([printable(row["kind"]), printable(row["group"]), count(row["n"]), *shares])
    print_table(text_table(headers, rows, n_left=2), sys.stdout)
