"""Artefacts are found in tables that do not flag them, as the flags of the measured tables have them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from moesim.calibration import MEASURED
from moesim.calibration.artefacts import spikes, without_artefacts
from moesim.calibration.layout import load_layout

# Flagged rows that need the curves of the whole table: its spikes stand out against sizes that this selection lacks.
UNSEEN = {"gemm": 35, "moe": 1}
# Rows that the tables do not flag: a smaller slice of experts that takes longer than a larger one.
MORE = {"moe": 7}
LAYOUTS = ("moe", "gemm", "attention_context", "attention_generation", "mla_context", "mla_generation", "mla_bmm")


@pytest.mark.parametrize("name", [*LAYOUTS, "allreduce", "elementwise"])
def test_the_known_patterns_are_what_the_tables_flag(name: str) -> None:
    """The few rows that fit a pattern without a flag, or the reverse, are counted."""
    table = pd.read_parquet(MEASURED / f"{name}_h100_calib.parquet")
    flagged = table["flag"].ne("")
    fine = load_layout(name).usable(table.drop(columns="flag"))
    assert (~fine & ~flagged).sum() == MORE.get(name, 0)
    assert (fine & flagged).sum() == UNSEEN.get(name, 0)


def curve(**columns: float | list[float | str | None] | str) -> pd.DataFrame:
    """Four sizes of one kernel."""
    rows = {"framework": "VLLM", "version": "1", "n": 64, "size": [1, 2, 4, 8], "latency_ms": [1.0, 1.4, 1.31, 1.0]}
    return pd.DataFrame(rows | columns)


def test_a_spike_is_slower_than_any_larger_size_of_its_own_curve() -> None:
    """Rows of other curves, in any order, do not matter."""
    table = pd.concat([curve(), curve(n=128, latency_ms=[9.0, 1.0, 1.3, 1.0]), curve(latency_ms=0.1, version="2")])
    table = table.sample(frac=1.0, random_state=1).reset_index(drop=True)
    found = table[spikes(table, size="size", curve=("n", "absent"))].sort_values(["n", "size"])
    assert found[["n", "size"]].to_numpy().tolist() == [[64, 2], [64, 4], [128, 1]]


def test_a_flag_decides_where_there_is_one() -> None:
    """Patterns are looked for only without flags."""

    def wrong(_rows: pd.DataFrame) -> pd.Series[Any]:
        return pd.Series([True, False, False, False])

    assert without_artefacts(curve(), size="size", curve=("n",), wrong=wrong).tolist() == [False, False, False, True]
    flags = curve(flag=["", "spike", None, ""])
    assert without_artefacts(flags, size="size", curve=("n",), wrong=wrong).tolist() == [True, False, True, True]
