"""Colours that colour-blind readers can tell apart (Okabe and Ito), and what each of them stands for."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moesim.report.run import RunLike

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
    line = (index - turn) % len(_DASHES)
    return _style(place, line, line, turn)


def styles(groups: Sequence[Hashable]) -> list[Style]:
    """The style of each line of a figure; lines of one group, such as a strategy, share a colour.

    In a group the dash, the symbol and the pattern tell the lines apart. Where
    there is only one group, every line has a colour of its own.
    """
    order = list(dict.fromkeys(groups))
    if len(order) in (1, len(groups)):
        return [variant_style(i) for i in range(len(groups))]
    seen: dict[Hashable, int] = {}
    found = []
    for group in groups:
        place = seen[group] = seen.get(group, -1) + 1
        turn, hue = divmod(order.index(group), len(_COLOURS))
        found.append(_style(hue, place + 3 * turn, place + turn, place + turn))
    return found


def run_styles(runs: Mapping[str, RunLike]) -> list[Style]:
    """The styles of variants, in order: a colour a routing strategy where several are compared, else one a variant."""
    return styles([_strategy(run) for run in runs.values()])


def _strategy(run: RunLike) -> str:
    routing = run.scenario.get("routing") or {}
    return str(routing.get("strategy"))


def _style(colour: int, dash: int, symbol: int, pattern: int) -> Style:
    return Style(
        colour=_COLOURS[colour],
        dash=_DASHES[dash % len(_DASHES)],
        symbol=_SYMBOLS[symbol % len(_SYMBOLS)],
        pattern=_PATTERNS[pattern % len(_PATTERNS)],
    )
