"""Predicting tables: how a kind is recognised, which constants a row takes, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from moesim.calibration import MEASURED, predict_table
from moesim.calibration.fitting import fit_constants
from moesim.calibration.gpus import gpu_of, published_gpus
from moesim.calibration.layout import layout_of
from moesim.errors import InputError
from moesim.hardware.constants.fitted import Search
from moesim.hardware.kernel_dtypes import nearest


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """The shipped table of DeepEP's low-latency mode."""
    return pd.read_parquet(MEASURED / "deepep_ll_0.5.12_h100_calib.parquet")


def test_the_name_of_a_file_decides_before_its_columns(table: pd.DataFrame) -> None:
    """Columns decide where the name says nothing."""
    found = [layout_of(stem, table.columns) for stem in ("deepep_ll_x", "measured last week", "nccl_x")]
    assert [layout and layout.name for layout in found] == ["deepep_ll", "deepep_ll", "nccl"]
    assert layout_of("notes", ["a", "b"]) is None


def test_the_prediction_is_the_sum_of_the_columns_in_the_unit_of_the_row(table: pd.DataFrame) -> None:
    """Dispatch and combine, microseconds."""
    measured = table["dispatch_avg_t_us"] + table["combine_avg_t_us"]
    assert predict_table(table).shape == (len(table),)
    assert np.median(predict_table(table) / measured) == pytest.approx(1, abs=0.05)


def test_the_order_of_rows_means_nothing(table: pd.DataFrame) -> None:
    """Mixed rows have the same predictions."""
    mixed = table.sample(frac=1, random_state=1)
    found = predict_table(mixed)
    assert pd.Series(found, mixed.index).sort_index().to_numpy() == pytest.approx(predict_table(table), rel=1e-15)


def test_an_unknown_version_takes_the_newest_constants(table: pd.DataFrame) -> None:
    """Version 9.9 is predicted as the shipped one."""
    later = table.assign(version="9.9")
    assert predict_table(later).tolist() == predict_table(table).tolist()


def test_other_constants_change_the_prediction(table: pd.DataFrame) -> None:
    """A launch of a second is seen in every row."""
    constants = {"x/deepep-ll/1/dispatch": DISPATCH, "x/deepep-ll/1/combine": {**DISPATCH, "launch_s": 1.0}}
    assert predict_table(table, constants=constants).min() > 1e6


DISPATCH = {
    "launch_s": 1e-5,
    "per_hidden_s": 1e-12,
    "per_wave_s": 1e-8,
    "link_share": 0.5,
    "round_s": 1e-8,
    "norm": 1.0,
    "across_launch_s": 1e-5,
    "across_hop_s": 1e-6,
    "nic_share": 0.5,
}


def test_no_constants_are_no_prediction(table: pd.DataFrame) -> None:
    """Every row is NaN."""
    assert np.isnan(predict_table(table, constants={})).all()


def test_what_is_wrong_is_named(table: pd.DataFrame) -> None:
    """Missing columns, unknown systems and tables."""
    with pytest.raises(InputError, match="column num_topk is missing"):
        predict_table(table.drop(columns="num_topk"), name="deepep_ll_mine")
    with pytest.raises(InputError, match="column system: found abacus"):
        predict_table(table.assign(system="abacus"))
    with pytest.raises(InputError, match="no known kind"):
        predict_table(table[["num_token"]])
    with pytest.raises(InputError, match="kind: found soup"):
        predict_table(table, kind="soup")


@pytest.mark.parametrize(
    "name, changed, words",
    [
        ("moe", {"topk": 0}, "row 1, column topk: found 0, wanted a whole number from 1 on"),
        ("moe", {"topk": 9, "num_experts": 8}, "row 1, column topk: found 9, wanted no more than num_experts"),
        ("moe", {"num_tokens": np.nan}, "row 1, column num_tokens: found nan"),
        ("moe", {"num_tokens": "many"}, "row 1, column num_tokens: found many"),
        ("moe", {"num_tokens": -5}, "row 1, column num_tokens: found -5"),
        ("moe", {"num_experts": 10**400}, "row 1, column num_experts: found 1000"),
        ("moe", {"moe_dtype": "nvfp4"}, "row 1, column moe_dtype: found nvfp4 on h100_sxm, wanted a data type"),
        ("gemm", {"m": 0}, "row 1, column m: found 0"),
        ("gemm", {"m": "abc"}, "row 1, column m: found abc"),
        ("gemm", {"gemm_dtype": "weird"}, "row 1, column gemm_dtype: found weird on h100_sxm"),
        ("allreduce", {"num_gpus": 1}, "row 1, column num_gpus: found 1, wanted a whole number from 2 on"),
    ],
)
def test_rows_that_cannot_be_predicted_are_named(name: str, changed: dict[str, float | str], words: str) -> None:
    """With the name of the table."""
    rows = pd.read_parquet(MEASURED / f"{name}_h100_calib.parquet").head(3)
    with pytest.raises(InputError, match=f"^mine: {words}"):
        predict_table(rows.assign(**{column: [value] * 3 for column, value in changed.items()}), kind=name, name="mine")


def test_rows_are_predicted_alike_however_their_numbers_are_held() -> None:
    """16-bit integers and text, which products would overflow."""
    rows = pd.read_parquet(MEASURED / "moe_h100_calib.parquet").query("num_tokens < 30000").tail(40)
    assert (rows["num_tokens"] * rows["topk"]).max() > 2**16
    sizes = ["num_tokens", "topk", "num_experts"]
    found = predict_table(rows).tolist()
    for held in ("int16", "uint16", str):
        assert predict_table(rows.astype(dict.fromkeys(sizes, held))).tolist() == found


def test_distributions_that_cannot_be_drawn_have_no_prediction() -> None:
    """None, an empty name and an unknown one."""
    rows = pd.read_parquet(MEASURED / "moe_h100_calib.parquet").head(3)
    assert np.isnan(predict_table(rows.assign(distribution=pd.Series([None, "", "soup"])))).all()


def test_systems_are_the_presets() -> None:
    """In any spelling; an unknown one is None."""
    found = [
        gpu_of(system) for system in ("h100_sxm", "H100-SXM", "h100", "NVIDIA H100 80GB HBM3", "gb200_sxm", "abacus")
    ]
    assert [gpu and gpu.name for gpu in found] == ["h100-sxm"] * 4 + ["gb200", None]
    assert len(published_gpus()) >= 9


@pytest.mark.parametrize(
    "group, found",
    [("a/k/fp8", 1), ("a/other/fp8", 1), ("c/k/fp8", 2), ("b/k/int8", 2), ("c/k/int8", 3), ("c/x/int8", 3)],
)
def test_the_nearest_group_shares_the_data_type_then_the_framework(group: str, found: int) -> None:
    """The kernel comes last."""
    constants = {"a/k/fp8": {"x": 1}, "b/k/fp8": {"x": 2}, "a/k/bf16": {"x": 3}}
    assert nearest(group, constants) == {"x": found}


def test_a_fit_finds_the_constants_of_its_own_formula() -> None:
    """Nine tenths of the rows are exact, the others artefacts of one and a half times."""
    x = np.linspace(1, 1000, 99)
    truth = {"start": 5.0, "rate": 0.25, "kept": 1.0}

    def predict(c: Mapping[str, float]) -> NDArray[np.float64]:
        return c["start"] + x * c["rate"] * c["kept"]

    measured = predict(truth) * np.where(np.arange(len(x)) % 10, 1.0, 1.5)
    search = {name: Search(1.0, 1e-3, 1e3) for name in truth}
    found = fit_constants(search, ("start", "rate"), {"kept": 1.0}, predict, measured)
    assert found == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("pull, found", [(0.0, 4.0), (1.0, 2.0)])
def test_a_pull_counts_as_a_row_of_what_the_search_begins_with(pull: float, found: float) -> None:
    """Between 1 and 4, half way in logarithms."""
    search = {"one": Search(1.0, 1e-3, 1e3)}
    fitted = fit_constants(search, ["one"], {}, lambda c: np.array([c["one"]]), np.array([4.0]), pull=pull)
    assert fitted["one"] == pytest.approx(found, rel=1e-3)
