"""`moesim fit`: the generator's parameters from recorded routing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moesim.cli.options import QuietOption


def fit(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="A trace of moesim import, or recordings that it reads.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The fit to write; an existing one is replaced.")
    ] = Path("popularity.yaml"),
    topics: Annotated[
        int | None,
        typer.Option("--topics", metavar="N", min=2, max=10_000, help="Topics (default: as recorded, or by sequence)."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="TEXT", help="Where the recording is from (default: its name).")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Fit popularity, topics and locality to a recording.

    `workload: {popularity: {from: popularity.yaml}}` then draws tokens with the statistics of the recording, as many as
    are wanted and for any router.
    """
    import dataclasses

    import numpy as np

    from moesim.recordings.fitting import fit_popularity
    from moesim.recordings.popularity_file import check_replaceable, write_popularity
    from moesim.recordings.reading import read_recording
    from moesim.report.text import printable

    check_replaceable(output)
    found = fit_popularity(read_recording(*files), topics=topics)
    found = dataclasses.replace(found, source=source or ", ".join(path.name for path in files))
    write_popularity(found, output)
    if quiet:
        return
    violation = found.shares.max(axis=1) * found.n_experts - 1
    print(f"wrote {output}: {len(found.layers)} layers of {found.n_experts} experts")
    print(
        f"  shares    MaxVio {violation.mean():.2f} ({violation.min():.2f} to {violation.max():.2f}), noise taken out"
    )
    if found.topic_count:
        print(f"  topics    {found.topic_count} of strength {found.topic_strength:.2f}")
    if found.locality:
        print(f"  locality  {np.mean(found.locality):.2f} ({min(found.locality):.2f} to {max(found.locality):.2f})")
    for note in found.notes:
        print(f"note: {printable(note, 200)}")
