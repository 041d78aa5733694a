"""The metadata of a formula's constants: where a fit searches for each, and which values a file may hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

_SEARCH, _LIMITS = "search", "limits"


@dataclass(frozen=True)
class Search:
    """Where the search for a constant begins, and the range that it stays in."""

    start: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The values of a constant that its formula takes: finite numbers from `minimum` on."""

    minimum: float = 0.0
    positive: bool = False
    power_of_two: bool = False

    def wanted(self, value: float) -> str:
        """What a value should be; "" where it is right."""
        if not math.isfinite(value) or value < self.minimum or (self.positive and value == 0):
            return f"a number {'above 0' if self.positive else f'of {self.minimum:g} or more'}"
        return "a power of two" if self.power_of_two and math.frexp(value)[0] != 0.5 else ""


POSITIVE = Limits(positive=True)
"""Of constants that a formula divides by."""
TILE = Limits(minimum=1.0, power_of_two=True)


def fitted(start: float, low: float, high: float, limits: Limits | None = None) -> Mapping[str, Any]:
    """The metadata of a field that fits search for."""
    return {_SEARCH: Search(start, low, high), _LIMITS: limits or Limits()}


THROTTLE = fitted(0.1, 1e-3, 0.3)
"""Part of the compute rate that the power limit takes: H100's clock goes from 1.98 GHz down to some 1.4 GHz."""


def given(limits: Limits) -> Mapping[str, Any]:
    """The metadata of a field that no fit searches for."""
    return {_LIMITS: limits}


def searches(constants: type[Any]) -> dict[str, Search]:
    """Where the constants of a formula, a dataclass, are searched, in order; without those that are not."""
    return {field.name: field.metadata[_SEARCH] for field in fields(constants) if _SEARCH in field.metadata}


def limits_of(constants: type[Any]) -> dict[str, Limits]:
    """The limits of all constants of a formula, a dataclass."""
    return {field.name: field.metadata.get(_LIMITS, Limits()) for field in fields(constants)}
