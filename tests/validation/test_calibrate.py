"""Calibration: constants of one's own tables, and refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from moesim.errors import InputError
from moesim.hardware.constants import load
from moesim.hardware.tables import load_kind
from moesim.validation import MEASURED, calibrate, read_kernels, validate
from moesim.validation.calibrate import curves


@pytest.fixture
def nccl():
    return pd.read_parquet(MEASURED / "nccl_h100_calib.parquet")


@pytest.fixture
def folder(tmp_path, nccl):
    nccl[nccl["op_name"] == "all_gather"].to_parquet(tmp_path / "nccl_mine.parquet")
    return tmp_path


def test_constants_of_own_tables_are_met_and_written(folder):
    told = []
    found = calibrate(folder, "h100_sxm", folds=2, progress=lambda *step: told.append(step))
    assert list(found.kernels) == ["collectives"]
    (row,) = found.errors.to_dict("records")
    assert (row["kind"], row["group"], row["n"]) == ("nccl", "NCCL/nccl/all_gather", 42)
    assert row["median"] < 0.04
    assert row["cv_median"] > row["median"]  # the curve of 8 GPUs from that of 4 and the other way round
    assert [(done, total) for _, done, total in told] == [(0, 3), (1, 3), (2, 3)]
    found.write(folder / "mine.yaml")
    document = yaml.safe_load((folder / "mine.yaml").read_text())
    assert (document["name"], document["gpu"]) == ("h100_sxm", "h100-sxm")
    report = validate(folder, kernels=read_kernels(folder / "mine.yaml"))
    assert report.scores["error"].abs().median() == pytest.approx(row["median"], rel=1e-3)


def test_the_shipped_constants_are_those_of_the_fitted_rows(nccl):
    kind = load_kind("nccl")
    from moesim.hardware.predict import published_gpus

    rows = nccl[kind.fitted(nccl) & nccl["op_name"].eq("alltoall")].reset_index(drop=True)
    found = kind.fit(rows, published_gpus())["NCCL/nccl/alltoall"]
    assert found == pytest.approx(load("collectives")["NCCL/nccl/alltoall"], rel=0.05)


def test_folds_leave_out_whole_curves(nccl):
    """8 curves: four operations on 4 and 8 GPUs."""
    number = curves(load_kind("nccl"), nccl)
    assert sorted(set(number)) == list(range(8))
    assert (np.bincount(number) == 21).all()


def test_too_few_rows_name_file_and_column(tmp_path, nccl):
    nccl.head(7).to_parquet(tmp_path / "nccl_few.parquet")
    with pytest.raises(InputError, match=r"nccl_few.parquet: column latency: 7 usable rows of .* wanted at least 12"):
        calibrate(tmp_path, "h100_sxm")


def test_what_cannot_be_calibrated_is_named(folder, nccl):
    with pytest.raises(InputError, match="system: found abacus"):
        calibrate(folder, "abacus")
    with pytest.raises(InputError, match="column system: no usable row of b200_sxm"):
        calibrate(folder, "b200_sxm")
    nccl.assign(latency=-1.0).to_parquet(folder / "nccl_bad.parquet")
    with pytest.raises(InputError, match="column latency: found -1"):
        calibrate(folder, "h100_sxm")


@pytest.mark.parametrize(
    "text, words",
    [
        ("- 1", "found list"),
        ("collectives: {a: 3}", "collectives.a: found 3, wanted a mapping"),
        ("collectives: {a: {b: x}}", "collectives.a.b: found 'x', wanted a number"),
        ("name: x", "holds no constants"),
        ("a: [", "cannot be read"),
    ],
)
def test_files_of_constants_are_checked(tmp_path, text, words):
    (tmp_path / "k.yaml").write_text(text)
    with pytest.raises(InputError, match=r"k\.yaml") as raised:
        read_kernels(tmp_path / "k.yaml")
    assert words in str(raised.value)
