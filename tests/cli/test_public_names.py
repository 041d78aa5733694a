"""`import moesim`: what it offers and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import moesim


def test_every_public_name_can_be_imported() -> None:
    """Names are imported lazily, so each is looked up once."""
    for name in moesim.__all__:
        assert getattr(moesim, name) is not None


def test_public_names_are_sorted_and_listed() -> None:
    """`dir` shows them as well."""
    assert sorted(moesim.__all__) == moesim.__all__
    assert set(moesim.__all__) <= set(dir(moesim))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """It is the error that Python raises for any module."""
    with pytest.raises(AttributeError, match="sweeep"):
        _ = moesim.sweeep


def test_importing_it_imports_nothing_else(source_environment: dict[str, str]) -> None:
    """No other module of moesim and no heavy library is loaded."""
    heavy = ("moesim", "numba", "numpy", "pandas", "plotly", "pyarrow", "pydantic", "scipy", "simpy")
    code = f"import sys, moesim; print(sorted(name for name in sys.modules if name.startswith({heavy})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=source_environment)
    assert done.stdout.strip() == "['moesim']"


def test_errors_about_input_are_value_errors() -> None:
    """Errors of runs are not."""
    assert issubclass(moesim.ScenarioError, ValueError)
    assert issubclass(moesim.ScenarioError, moesim.MoesimError)
    assert not issubclass(moesim.RunError, ValueError)
