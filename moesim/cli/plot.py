"""`moesim plot`: a figure of a saved result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from moesim.report import RunLike


def plot(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="A result folder of run, compare or sweep.", show_default=False)
    ],
    figure: Annotated[
        str | None, typer.Option("--figure", "-f", metavar="NAME", help="Which figure; --list names them.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A .svg, .png, .pdf, .html or .csv (default: NAME.svg)."),
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="List the figures of these results, and draw none.")] = False,
    width: Annotated[int | None, typer.Option(min=100, max=10_000, help="Pixels across.")] = None,
    height: Annotated[int | None, typer.Option(min=100, max=10_000, help="Pixels down.")] = None,
) -> None:
    """Draw one figure of a saved result.

    Images are made by a Chromium or Chrome on this machine; .html and .csv (the data of the figure) need none.
    """
    from moesim.report import FIGURES, POINT_FIGURES, draw
    from moesim.report.export import write_figure

    runs, points = open_results(results)
    known = {name: title for name, (_, title) in FIGURES.items() if runs or name in POINT_FIGURES}
    if names:
        for name, title in known.items():
            print(f"{name:<20} {title}")
        return
    if figure is None:
        raise InputError(f"--figure: found none, wanted one of {', '.join(known)}")
    drawn = draw(figure, runs, points)
    path = write_figure(drawn, output or Path(f"{figure}.svg"), width=width, height=height)
    if drawn.layout.meta == "nothing":
        print(f"nothing to show: {drawn.layout.annotations[0].text}", file=sys.stderr)
    print(path)


def open_results(folder: Path) -> tuple[Mapping[str, RunLike], pd.DataFrame | None]:
    """The runs of a result folder by variant, and its points; of a sweep there are points only.

    Raises:
        OutputError: it is no result of moesim, or damaged.
    """
    from moesim.errors import OutputError
    from moesim.results import Result, Study
    from moesim.results.study import read_points

    try:
        is_run = (folder / "steps.parquet").exists()
    except OSError as error:
        raise OutputError(f"{folder}: cannot be read: {error.strerror or error}") from None
    if is_run:
        result = Result.load(folder)
        return {result.name: result}, None
    points = None
    for name in ("points.parquet", "summary.parquet"):
        if points is None and (folder / name).exists():
            frame = read_points(folder / name)
            points = frame if {"variant", "seed"} <= set(frame.columns) else None
    if points is not None and not any(folder.glob("*/steps.parquet")):
        return {}, points
    return Study.load(folder).results, points
