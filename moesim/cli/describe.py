"""`moesim describe`: what a model is, and what is in a recording."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from moesim.cli.options import JsonOption
from moesim.errors import InputError

_RECORDED = frozenset(
    {".parquet", ".jsonl", ".csv", ".npy", ".npz", ".pt", ".gz", ".log", ".txt", ".pkl", ".bin", ".html", ".yaml"}
)
"""Endings of files that hold no configuration of a model."""
_HEAD_BYTES = 65_536
"""So much of a .json file tells what it is."""


def describe(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A model: a preset, a config.json or its folder, org/name of a known one. Or a trace or a recording.",
        ),
    ],
    gpu: Annotated[
        list[str] | None, typer.Option("--gpu", help="Of a model: a GPU to tell of (repeatedly). Default: all.")
    ] = None,
    context: Annotated[
        int, typer.Option("--context", min=1, help="Of a model: tokens of a sequence whose cache is counted.")
    ] = 8192,
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
    """Describe a model, or the skew of a recording.

    Of a model: parameters, layers, bytes of weights and KV cache, and how many of each GPU hold it. Of a recording:
    by layer and phase, with standard errors and what an even router shows by chance.
    """
    if is_model(what):
        if output is not None:
            raise InputError(f"--output: found {output}, wanted none, as only a recording has a report")
        describe_model(what, gpus=gpu or (), context_tokens=context, json=json)
    else:
        describe_recording(Path(what), ep=ep, top_k=top_k, output=output, json=json)


def is_model(what: str) -> bool:
    """Whether a text means a model: the name of one, a folder with a config.json, or a file that is such."""
    try:
        path = Path(what).expanduser()
        if not what.strip():
            return True
        if path.is_dir():
            return (path / "config.json").is_file()
        if not path.is_file():
            return path.suffix.lower() not in _RECORDED
        if path.suffix.lower() not in (".json", ""):
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError, RuntimeError):  # a NUL, an unknown user: the reader of models says what is wrong
        return True
    return path.name == "config.json" or b'"model_type"' in head or b'"architectures"' in head


def describe_model(what: str, *, gpus: Sequence[str], context_tokens: int, json: bool) -> None:
    """Print what a model is and needs.

    Raises:
        ScenarioError: there is no such model or GPU.
    """
    from moesim.study.describe import describe_model as facts_of

    facts = facts_of(what, gpus=gpus, context_tokens=context_tokens)
    if json:
        from moesim.results.files import json_text

        sys.stdout.write(json_text(facts))
        return
    from moesim.report.model import gpu_note, gpu_table, model_lines
    from moesim.report.terminal import print_table

    for line in model_lines(facts):
        print(line)
    print()
    print_table(gpu_table(facts), sys.stdout)
    print(f"\n{gpu_note(facts)}")


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
        if output.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"--output: found {output}, wanted a file that ends in .html")
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
