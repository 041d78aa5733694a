"""Colours that colour-blind readers can tell apart (Okabe and Ito), and who has which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, TEXT, GRID = "#999999", "#222222", "#DDDDDD"

PART_COLOURS: Mapping[str, tuple[str, str]] = {
    "attention": (SKY, ""),
    "dense": (SKY, "/"),
    "shared_experts": (BLUE, "/"),
    "router": (PURPLE, ""),
    "experts": (BLUE, ""),
    "head": (GREY, ""),
    "planning": (BLACK, "."),
    "migration": (BLACK, "x"),
    "dispatch": (GREEN, ""),
    "combine": (YELLOW, ""),
    "wait": (VERMILLION, ""),
}
"""Colour and pattern of each part of a step: the same in every figure. Related parts share a colour."""


def fill(colour: str, pattern: str) -> dict[str, Any]:
    """The Plotly marker of a bar: its colour, with white lines of the pattern over it."""
    return {"color": colour, "pattern": {"shape": pattern, "fgcolor": "white", "fillmode": "overlay"}}


_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY)
_DASHES = ("solid", "dash", "dot", "dashdot", "10px,2px", "8px,2px,2px,2px,2px,2px")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
_PATTERNS = ("", "/", ".", "x", "\\", "+")

SEQUENTIAL = "Cividis"
"""Colour scale of heat maps: even in lightness, so that it survives print and colour blindness."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a variant is drawn; the pattern of bars changes after every eight colours."""

    colour: str
    dash: str
    symbol: str
    pattern: str


def variant_style(index: int) -> Style:
    """The style of the variant at this place in the order of variants (0 = baseline).

    Neighbours differ in colour and dash, so that lines on top of each other
    all show and grey prints can be read; no two of 48 variants look the same.
    """
    turn, place = divmod(index, len(_COLOURS))
    return Style(
        colour=_COLOURS[place],
        dash=_DASHES[(index - turn) % len(_DASHES)],
        symbol=_SYMBOLS[(index - turn) % len(_SYMBOLS)],
        pattern=_PATTERNS[turn % len(_PATTERNS)],
    )
