"""Values of a summary by their dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lookup(summary: Mapping[str, Any], key: str) -> float | None:
    """The number at a dotted key of a nested summary, or None."""
    found: Any = summary
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return None if found is None else float(found)
