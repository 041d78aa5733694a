"""Settings of all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# the first call of a kernel compiles it, which no deadline should measure; one seed, so that a failure is a bug
settings.register_profile("moesim", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("moesim")

if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a processor: more threads would only take turns
    for name in ("MOESIM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.fixture
def hears_interrupts() -> Iterator[None]:
    """Interrupts are raised, also where the tests run in the background of a shell and ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
