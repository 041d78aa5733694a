"""Small runs made of nothing but arithmetic, with every frame of a report."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from moesim.report import Run
from tests.report_runs import make_run


@pytest.fixture
def run() -> Callable[..., Run]:
    """Builds a run; see `make_run`."""
    return make_run


@pytest.fixture
def runs() -> dict[str, Run]:
    """Three variants that differ in balance and drops."""
    return {
        "as trained": make_run("as trained", skew=1.0),
        "capacity 1.25": make_run("capacity 1.25", skew=1.0, drop=0.5),
        "random": make_run("random", skew=0.1),
    }
