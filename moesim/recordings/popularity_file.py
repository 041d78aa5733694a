"""Writing of `popularity.yaml`, which `workload.popularity: {from: FILE}` reads (moesim/scenario/fitted.py)."""

from __future__ import annotations

import json
import math
from pathlib import Path

from moesim.atomic import write_file
from moesim.errors import OutputError
from moesim.scenario.yaml_text import yaml_text
from moesim.types import FittedPopularity

OPENING = "popularity_version: "
_DIGITS = 5
"""Significant ones of a share."""


def popularity_text(fit: FittedPopularity) -> str:
    """The text of the file: fields a line, a row of shares a line."""
    head = {"popularity_version": 1, "source": fit.source, "model": fit.model}
    head |= {"n_experts": fit.n_experts, "top_k": fit.top_k}
    lines = [yaml_text(head).rstrip()]
    lines.append(f"topics: {{count: {fit.topic_count}, strength: {fit.topic_strength:g}}}")
    lines.append(f"layers: {json.dumps(list(fit.layers))}")
    lines.append(f"locality: {json.dumps(list(fit.locality))}")
    lines.append("shares:")
    lines += [f"- [{', '.join(map(_share, row))}]" for row in fit.shares]
    if fit.notes:
        lines.append(yaml_text({"notes": list(fit.notes)}).rstrip())
    return "\n".join(lines) + "\n"


def _share(value: float) -> str:
    return f"{value:.{max(0, _DIGITS - 1 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def check_replaceable(path: str | Path) -> None:
    """Refuse to write a fit over anything but a fit.

    Raises:
        OutputError: something else stands there.
    """
    try:
        with Path(path).open("rb") as file:
            opening = file.read(len(OPENING))
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
    if opening != OPENING.encode():
        raise OutputError(f"{path}: exists and was not written by moesim fit, so it is not replaced")


def write_popularity(fit: FittedPopularity, path: str | Path) -> None:
    """Write the file.

    Raises:
        OutputError: it cannot be written, or something else stands there.
    """
    check_replaceable(path)
    write_file(path, popularity_text(fit))
