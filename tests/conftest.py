"""Settings of all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# the first call of a kernel compiles it, which no deadline should measure; one seed, so that a failure is a bug
settings.register_profile("moesim", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("moesim")
