"""Predicting tables: how a kind is recognised, which constants a row takes, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from moesim.errors import InputError
from moesim.hardware import predict_table
from moesim.hardware.predict import gpu_of, published_gpus
from moesim.hardware.tables import kind_of
from moesim.hardware.tables.groups import Constant, fit_group, nearest
from moesim.validation import MEASURED


@pytest.fixture(scope="module")
def table():
    return pd.read_parquet(MEASURED / "deepep_ll_0.5.12_h100_calib.parquet")


def test_the_name_of_a_file_decides_before_its_columns(table):
    assert kind_of("deepep_ll_x", table.columns).name == "deepep_ll"
    assert kind_of("measured last week", table.columns).name == "deepep_ll"
    assert kind_of("nccl_x", table.columns).name == "nccl"
    assert kind_of("notes", ["a", "b"]) is None


def test_the_prediction_is_the_sum_of_the_columns_in_the_unit_of_the_row(table):
    measured = table["dispatch_avg_t_us"] + table["combine_avg_t_us"]
    assert predict_table(table).shape == (len(table),)
    assert np.median(predict_table(table) / measured) == pytest.approx(1, abs=0.05)


def test_the_order_of_rows_means_nothing(table):
    mixed = table.sample(frac=1, random_state=1)
    found = predict_table(mixed)
    assert pd.Series(found, mixed.index).sort_index().to_numpy() == pytest.approx(predict_table(table), rel=1e-15)


def test_an_unknown_version_takes_the_newest_constants(table):
    later = table.assign(version="9.9")
    assert predict_table(later).tolist() == predict_table(table).tolist()


def test_other_constants_change_the_prediction(table):
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


def test_no_constants_are_no_prediction(table):
    assert np.isnan(predict_table(table, constants={})).all()


def test_what_is_wrong_is_named(table):
    with pytest.raises(InputError, match="column num_topk is missing"):
        predict_table(table.drop(columns="num_topk"), name="deepep_ll_mine")
    with pytest.raises(InputError, match="column system: found abacus"):
        predict_table(table.assign(system="abacus"))
    with pytest.raises(InputError, match="no known kind"):
        predict_table(table[["num_token"]])
    with pytest.raises(InputError, match="kind: found soup"):
        predict_table(table, kind="soup")


def test_systems_are_the_presets():
    assert gpu_of("h100_sxm").name == gpu_of("H100-SXM").name == gpu_of("h100").name == "h100-sxm"
    assert gpu_of("gb200_sxm").name == "gb200"
    assert gpu_of("abacus") is None
    assert len(published_gpus()) >= 9


@pytest.mark.parametrize(
    "group, found",
    [("a/k/fp8", 1), ("a/other/fp8", 1), ("c/k/fp8", 2), ("b/k/int8", 2), ("c/k/int8", 3), ("c/x/int8", 3)],
)
def test_the_nearest_group_shares_the_data_type_then_the_framework(group, found):
    constants = {"a/k/fp8": {"x": 1}, "b/k/fp8": {"x": 2}, "a/k/bf16": {"x": 3}}
    assert nearest(group, constants)["x"] == found


def test_a_fit_finds_the_constants_of_its_own_formula():
    """Nine tenths of the rows are exact, the others artefacts of one and a half times."""
    x = np.linspace(1, 1000, 99)
    truth = {"start": 5.0, "rate": 0.25, "kept": 1.0}

    def predict(c):
        return c["start"] + x * c["rate"] * c["kept"]

    measured = predict(truth) * np.where(np.arange(len(x)) % 10, 1.0, 1.5)
    search = {name: Constant(start=1.0, low=1e-3, high=1e3) for name in truth}
    found = fit_group(search, ("start", "rate"), {"kept": 1.0}, predict, measured)
    assert found == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("pull, found", [(0.0, 4.0), (1.0, 2.0)])
def test_a_pull_counts_as_a_row_of_what_the_search_begins_with(pull, found):
    search = {"one": Constant(start=1.0, low=1e-3, high=1e3)}
    fitted = fit_group(search, ["one"], {}, lambda c: np.array([c["one"]]), np.array([4.0]), pull=pull)
    assert fitted["one"] == pytest.approx(found, rel=1e-3)
