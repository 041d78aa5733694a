"""`moesim import`: recorded routing into a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.options import QuietOption

if TYPE_CHECKING:
    from moesim.recordings import ImportReport


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Recordings of one layout, plain or .gz: see `moesim list layouts`."),
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
    print(f"wrote {output}: {described(report)}")
    for note in report.notes:
        print(f"note: {note}")


def described(report: ImportReport) -> str:
    """What a recording holds, in one line."""
    parts = [report.kind]
    if report.n_tokens:
        parts.append(f"{report.n_tokens:,} tokens of {report.n_sequences:,} sequences")
    if report.n_steps:
        parts.append(f"{report.n_steps:,} steps")
    parts.append(f"{report.n_layers} layers")
    parts.append(f"top-{report.top_k} of {report.n_experts} experts" if report.top_k else f"{report.n_experts} experts")
    parts += [f"{number:,} {phase}" for phase, number in report.phases.items()]
    return f"{', '.join(parts)} ({report.layout})"
