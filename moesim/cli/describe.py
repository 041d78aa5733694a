"""`moesim describe`: what is in a recording."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from moesim.cli.options import JsonOption


def describe(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="A trace of moesim import, or a recording.")],
    ep: Annotated[
        int | None, typer.Option("--ep", metavar="N", help="Of a recording: also the load of N expert-parallel ranks.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", help="Of recorded logits or counts: choices of a token.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Of a recording: write a report (.html).")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Describe a recording: its skew and its likeness of neighbours.

    By layer and phase, with standard errors and what an even router shows by chance.
    """
    describe_recording(Path(what), ep=ep, top_k=top_k, output=output, json=json)


def describe_recording(path: Path, *, ep: int | None, top_k: int | None, output: Path | None, json: bool) -> None:
    """Print the statistics of a trace or a recording, and write its report where that is asked for.

    Raises:
        InputError: it cannot be read, or an option does not fit it.
    """
    from moesim.recordings.description import describe_recording as statistics_of
    from moesim.recordings.reading import read_recording
    from moesim.report.recording import closing_lines, facts, recording_html, statistic_tables
    from moesim.report.terminal import print_table
    from moesim.report.text import printable
    from moesim.results.files import json_text, new_file, prepare_file

    if output is not None:
        prepare_file(output, opening="<!DOCTYPE html>")
    found = statistics_of(read_recording(path), n_ranks=ep, top_k=top_k)
    if output is not None:
        with new_file(output, opening="<!DOCTYPE html>") as file:
            file.write(recording_html(found))
    if json:
        sys.stdout.write(json_text(found.data()))
        return
    print(_wrapped("; ".join(f"{name} {text}" for name, text in facts(found))))
    for title, table in statistic_tables(found):
        print(f"\n{title}:")
        print_table(table, sys.stdout)
    print()
    for line in closing_lines(found):
        print(_wrapped(line))
    for note in found.notes:
        print(_wrapped(f"note: {printable(note, 400)}"))
    if output is not None:
        print(f"report: {output}")


def _wrapped(text: str) -> str:
    """The text in lines of a terminal."""
    return textwrap.fill(text, 80, subsequent_indent="  ", break_on_hyphens=False)
