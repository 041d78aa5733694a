"""The model against the measured kernel that ships with the tests, fitted rows and held-out rows apart."""

from __future__ import annotations

import importlib

import pandas as pd
import pytest


@pytest.fixture
def expert_time(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.config.rootpath / "tests" / "validation"))
    return importlib.import_module("expert_time")


def test_errors_on_rows_never_fitted(expert_time):
    frame = expert_time.predictions(pd.read_parquet(expert_time.TABLE))
    error = expert_time.summary(frame).set_index("distribution")
    assert error.loc["uniform", "rows"] == "fitted"
    assert error.loc["all skewed", ["rows", "n"]].tolist() == ["held out", 112]
    # reached when fitted: 3.3 / 8.2 % and 5.2 / 12.3 %
    assert error.loc["uniform", "median %"] < 5
    assert error.loc["uniform", "p90 %"] < 12
    assert error.loc["all skewed", "median %"] < 7
    assert error.loc["all skewed", "p90 %"] < 16
