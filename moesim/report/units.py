"""Numbers as people read them: a fitting unit, few digits, and a dash for what is absent."""

from __future__ import annotations

import math

ABSENT = "-"

_TIME = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))


def number(value: float | None, digits: int = 4) -> str:
    """At most `digits` significant digits, thousands with commas: 0.01235, 12.35, 12,346; absent or not finite: "-"."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def count(value: float | None) -> str:
    """A whole number, thousands with commas."""
    return ABSENT if value is None or not math.isfinite(value) else f"{value:,.0f}"


def percent(share: float | None, digits: int = 3) -> str:
    """A share in [0, 1] in per cent, without the sign: the header has it."""
    if share is None or not math.isfinite(share):
        return ABSENT
    per_cent = 100.0 * share
    if 0 < abs(per_cent) < 0.01:  # not 0, and not worth more digits
        return "<0.01" if per_cent > 0 else ">-0.01"
    return number(round(per_cent, 2), digits)


def time_scale(largest_s: float) -> tuple[float, str]:
    """Seconds of the unit in which the largest time reads best, and its name: (1e-3, "ms")."""
    return _scale(largest_s, _TIME)


def bytes_scale(largest: float) -> tuple[float, str]:
    """Bytes of the unit in which the largest amount reads best, and its name: (1e6, "MB"); decimal units."""
    return _scale(largest, _BYTES)


def time_text(seconds: float | None, digits: int = 4) -> str:
    """A time with its unit: "12.35 ms"."""
    return _text(seconds, _TIME, digits)


def bytes_text(amount: float | None, digits: int = 4) -> str:
    """An amount of data with its unit: "1.5 GB"."""
    return _text(amount, _BYTES, digits)


def _scale(largest: float, units: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    for size, name in units:
        if abs(largest) >= size:
            return size, name
    return units[-1]


def _text(value: float | None, units: tuple[tuple[float, str], ...], digits: int) -> str:
    if value is None or not math.isfinite(value):
        return ABSENT
    # Nothing at all reads best in the plain unit, not in the smallest.
    size, name = _scale(value, units) if value else (1.0, dict(units)[1.0])
    return f"{number(value / size, digits)} {name}"
