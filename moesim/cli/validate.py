"""`moesim validate`: predictions of measured tables against their measurements."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.options import JsonOption, OutputOption, QuietOption
from moesim.errors import InputError

if TYPE_CHECKING:
    from moesim.calibration import Report


def validate(
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help="Measured tables, or aiconfigurator:h200_sxm (default: shipped)."),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="FILE", help="Write every row with its prediction (parquet)."),
    ] = None,
    kernels: Annotated[
        Path | None, typer.Option("--kernels", metavar="FILE", help="Constants that `moesim calibrate` wrote.")
    ] = None,
    output: OutputOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare predictions with measured tables.

    Prints the error by table, kernel, data type and regime, fitted and held-out rows apart, and writes a report. With
    --kernels, rows of groups that the file holds are called own constants: what they were fitted to is not known.
    """
    from moesim import calibration
    from moesim.results import prepare_output

    folder = prepare_output(output or Path("results") / "validate")
    report = calibration.validate(data, kernels=calibration.read_kernels(kernels) if kernels else None)
    if predictions:
        report.write_predictions(predictions)
    report.save(folder)
    if json:
        from moesim.results.files import json_text

        sys.stdout.write(json_text(report.summary()))
    elif not quiet:
        _print(report, folder)
    if report.problems:
        raise InputError("; ".join(report.problems) + "; these rows and tables are left out, all others are predicted")


def _print(report: Report, folder: Path) -> None:
    from moesim.report.terminal import print_table
    from moesim.report.validation import kind_table, skipped_lines, slowdown_rows, validation_table

    print_table(validation_table(report.errors), sys.stdout)
    print("\nof all tables of a kind:")
    print_table(kind_table(report.kinds), sys.stdout)
    rows = slowdown_rows(report.slowdown)
    if rows:
        print("\nslowdown of skewed against even load, error in % (median / p90), rank correlation:")
    for case, which, split, n, median, p90, spearman in rows:
        print(f"  {case}, {which} kernels, {split} rows: {median} / {p90}, {spearman} (n {n})")
    left_out = sum(report.left_out.values())
    if left_out:
        print(f"\n{left_out:,} rows are known artefacts and not scored")
    for line in skipped_lines(report.skipped):
        print(line)
    for note in report.notes:
        print(f"note: {note}")
    print(f"\nreport: {folder / 'report.html'}")
