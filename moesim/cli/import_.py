"""`moesim import`: recorded routing into a trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.options import QuietOption
from moesim.errors import InputError

if TYPE_CHECKING:
    from moesim.cli.output import InterruptibleProgress
    from moesim.recordings import ImportOptions, ImportReport

COUNTED = ("all", "first-choice")
IDS = ("logical", "physical")


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Recordings of one layout, files or a folder: moesim list layouts."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="TRACE", help="The trace to write; an existing one is replaced.")
    ] = Path("trace.parquet"),
    layout: Annotated[
        str, typer.Option("--layout", metavar="NAME", help="Its layout, in place of recognising it by content.")
    ] = "",
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="Of which model: a preset or its config.json.")
    ] = "",
    n_experts: Annotated[
        int | None, typer.Option("--n-experts", metavar="E", min=1, help="Experts of a layer; else the highest id + 1.")
    ] = None,
    counts: Annotated[
        str, typer.Option("--counts", metavar="WHICH", help="Counts hold all choices, or first-choice alone.")
    ] = "all",
    ids: Annotated[str, typer.Option("--ids", metavar="SPACE", help="Ids are logical experts or physical slots.")] = "",
    keep_warm_up: Annotated[
        bool, typer.Option("--keep-warm-up", help="Keep the dummy tokens of warm-up passes and padding.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Turn recorded routing into a trace.

    `workload: {trace: trace.parquet}` replays it: the choices of a real router, simulated end to end.
    """
    from moesim.cli.output import progress_bar
    from moesim.recordings import import_recordings
    from moesim.report.text import printable

    for name, found, known in (("counts", counts, COUNTED), ("ids", ids or IDS[0], IDS)):
        if found not in known:
            raise InputError(f"--{name}: found {found}, wanted {' or '.join(known)}")
    options = _options(layout=layout, model=model, n_experts=n_experts, counts=counts, ids=ids, keep=keep_warm_up)
    with progress_bar("importing", quiet=quiet) as bar:
        report = import_recordings(files, output, options, progress=_megabytes(files, bar))
    if quiet:
        return
    print(f"wrote {output}: {described(report)}")
    for note in report.notes:
        print(f"note: {printable(note, 400)}")


def _options(*, layout: str, model: str, n_experts: int | None, counts: str, ids: str, keep: bool) -> ImportOptions:
    from moesim.recordings import ImportOptions, known_model

    return ImportOptions(
        layout=layout,
        model=known_model(model) if model else None,
        n_experts=n_experts,
        first_choice=counts == "first-choice",
        ids=ids,
        keep_warm_up=keep,
    )


def _megabytes(files: list[Path], bar: InterruptibleProgress) -> Callable[[int], None]:
    """A function that adds bytes which were read to a bar."""
    done = 0
    inside = [file for path in files for file in (path.rglob("*") if path.is_dir() else [path])]
    total = sum(file.stat().st_size for file in inside if file.is_file())

    def add(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        bar.update("importing, MB", done // 10**6, max(total, done) // 10**6)

    return add


def described(report: ImportReport) -> str:
    """What a recording holds, in one line."""
    parts = [report.kind]
    if report.n_tokens:
        parts.append(f"{_several(report.n_tokens, 'token')} of {_several(report.n_sequences, 'sequence')}")
    if report.n_steps:
        parts.append(_several(report.n_steps, "step"))
    parts.append(_several(report.n_layers, "layer"))
    parts.append(f"top-{report.top_k} of {report.n_experts} experts" if report.top_k else f"{report.n_experts} experts")
    parts += [f"{number:,} {phase}" for phase, number in report.phases.items()]
    return f"{', '.join(parts)} ({report.layout})"


def _several(number: int, noun: str) -> str:
    """A number of things, in words that agree."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
