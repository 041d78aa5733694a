"""Where the wall time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Profile:
    """Wall seconds by stage, for the manifest."""

    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("generate", "route", "place", "layout", "engine", "metrics"), 0.0)
    )

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what was measured elsewhere, by stage."""
        for stage, own in seconds.items():
            self.seconds[stage] += own

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start
