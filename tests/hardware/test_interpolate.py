"""Interpolation in measured tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from moesim.errors import InputError
from moesim.hardware.measured import interpolate
from moesim.hardware.predict import predict_columns
from moesim.hardware.tables import load_kind
from moesim.validation import MEASURED

KIND = load_kind("nccl")


@pytest.fixture
def table():
    """10 us at 1,000 elements and 40 us at 4,000, of one operation on 8 GPUs."""
    return pd.DataFrame(
        {
            "system": "h100_sxm",
            "op_name": "alltoall",
            "nccl_dtype": "half",
            "num_gpus": 8,
            "message_size": [1000, 4000],
            "latency": [0.01, 0.04],
        }
    )


def test_between_two_measurements_time_is_a_power_law(table):
    rows = table.drop(columns="latency").assign(message_size=[2000, 4000])
    found = interpolate(table, rows, KIND, np.ones((2, 1)))
    assert found.seconds[:, 0].tolist() == pytest.approx([20e-6, 40e-6])
    assert found.source.tolist() == ["interpolated", "measured"]


def test_outside_a_curve_and_without_one_the_formula_stands(table):
    rows = pd.concat([table.assign(message_size=[999, 4001]), table.assign(num_gpus=4), table.assign(op_name="x")])
    found = interpolate(table, rows, KIND, np.arange(6.0)[:, None])
    assert found.seconds[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert found.provenance() == {"formula": 6}


def test_artefacts_are_left_out_and_equal_rows_are_their_median(table):
    spike = table.assign(latency=[9.0, 9.0], flag="spike")
    again = pd.concat([table.assign(flag=""), table.assign(flag="", latency=[0.03, 0.04]), spike])
    found = interpolate(again, table.head(1), KIND, np.ones((1, 1)))
    assert found.seconds[0, 0] == pytest.approx(20e-6)


def test_leaving_out_every_second_size_it_is_better_than_the_formula():
    measured = pd.read_parquet(MEASURED / "nccl_h100_calib.parquet")
    measured = measured[measured["op_name"] != "alltoall"]
    odd = np.log2(measured["message_size"].astype(float)) % 2 == 1
    rows, formula = measured[odd], predict_columns(measured[odd], KIND)
    found = interpolate(measured[~odd], rows, KIND, formula)
    truth = rows["latency"].to_numpy() * 1e-3
    assert set(found.source) == {"interpolated"}
    error, of_formula = (np.median(np.abs(s[:, 0] / truth - 1)) for s in (found.seconds, formula))
    assert error < 0.06
    assert of_formula < 0.06


def test_a_missing_column_is_named(table):
    with pytest.raises(InputError, match="column num_gpus is missing"):
        interpolate(table.drop(columns="num_gpus"), table, KIND, np.ones((2, 1)))
