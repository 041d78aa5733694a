"""Tests, one folder a package of moesim, with scripts that measure and compare in benchmarks and validation."""
