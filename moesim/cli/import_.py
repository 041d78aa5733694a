"""`moesim import`: recorded routing into a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moesim.cli.options import QuietOption


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Recordings, JSON lines with one (token, layer) each; plain or .gz."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="TRACE", help="The trace to write; an existing one is replaced.")
    ] = Path("trace.parquet"),
    quiet: QuietOption = False,
) -> None:
    """Turn recorded routing into a trace.

    `workload: {trace: trace.parquet}` replays it: the choices of a real router, simulated end to end.
    """
    from moesim.recordings import import_recordings

    report = import_recordings(files, output)
    if quiet:
        return
    print(
        f"wrote {output}: {report.n_tokens} tokens of {report.n_sequences} sequences, "
        f"{report.n_layers} layers, top-{report.top_k}"
    )
    for note in report.notes:
        print(f"note: {note}")
