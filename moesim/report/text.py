"""Names that users wrote, made safe for a terminal and for a plot."""

from __future__ import annotations

import html
import textwrap

MAX_LENGTH = 120


def printable(text: object, max_length: int = MAX_LENGTH) -> str:
    """One printable line: control characters (line ends, terminal escapes) become spaces, runs of spaces one.

    What is longer than `max_length` characters ends in dots.
    """
    printable = "".join(c if c.isprintable() else " " for c in str(text))
    line = " ".join(printable.split())
    return line if len(line) <= max_length else line[: max_length - 3] + "..."


def label(text: object, width: int = 28) -> str:
    """Text for a Plotly label, wrapped at `width` characters.

    Plotly renders a subset of HTML and fills in %{...}, so both are escaped.
    Quotes stay as they are: Plotly knows few entities.
    """
    lines = textwrap.wrap(printable(text), width) or [""]
    return "<br>".join(html.escape(line, quote=False).replace("%{", "%\u200b{") for line in lines)
