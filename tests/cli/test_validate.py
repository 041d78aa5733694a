"""`moesim validate` and `moesim calibrate`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from moesim.calibration import MEASURED
from tests.cli.conftest import Call


@pytest.fixture
def data(folder: Path) -> Path:
    """Two of the shipped tables."""
    place = folder / "data"
    place.mkdir()
    for name in ("deepep_ll_0.5.12_h100_calib", "nccl_h100_calib"):
        pd.read_parquet(MEASURED / f"{name}.parquet").to_parquet(place / f"{name}.parquet")
    return place


def test_a_table_a_report_and_the_predictions(moesim: Call, folder: Path, data: Path) -> None:
    """Errors are printed by kind, and every row has its prediction in the file."""
    outcome = moesim("validate", "--data", data, "--predictions", folder / "out.parquet")
    assert (outcome.code, outcome.err) == (0, "")
    assert "held out" in outcome.out
    assert "alltoall, to 64 KiB" in outcome.out
    assert "of all tables of a kind:" in outcome.out
    assert outcome.out.splitlines()[-1] == "report: results/validate/report.html"
    page = (folder / "results" / "validate" / "report.html").read_text(encoding="utf-8")
    assert "<title>Validation - moesim</title>" in page
    assert "nccl_h100_calib" in page
    assert "Errors by kind of table" in page
    assert len(pd.read_parquet(folder / "out.parquet")) == 278


def test_json_is_the_summary(moesim: Call, folder: Path, data: Path) -> None:
    """Standard output has what summary.json holds."""
    outcome = moesim("validate", "--data", data, "--json", "-o", folder / "v")
    summary = json.loads(outcome.out)
    assert summary == json.loads((folder / "v" / "summary.json").read_text())
    assert {row["rows"] for row in summary["errors"]} == {"fitted", "held out"}


def test_the_same_bytes_again(moesim: Call, folder: Path, data: Path) -> None:
    """Predictions and report depend on nothing but the tables."""
    for name in ("a", "b"):
        moesim("validate", "--data", data, "-q", "-o", folder / name, "--predictions", folder / f"{name}.parquet")
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()
    assert (folder / "a" / "report.html").read_bytes() == (folder / "b" / "report.html").read_bytes()


def test_bad_rows_are_exit_2_and_one_line_and_the_rest_is_done(moesim: Call, folder: Path, data: Path) -> None:
    """The other table is scored all the same."""
    path = data / "nccl_h100_calib.parquet"
    pd.read_parquet(path).assign(latency=lambda table: -table["latency"]).to_parquet(path)
    outcome = moesim("validate", "--data", data, "--predictions", folder / "out.parquet")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "nccl_h100_calib.parquet: row 1, column latency: found -" in outcome.err
    assert pd.read_parquet(folder / "out.parquet")["predicted"].notna().all()


def test_an_empty_name_of_the_data_is_exit_2(moesim: Call, folder: Path) -> None:
    """It would be the current folder otherwise."""
    for command in (("validate", "--data", ""), ("calibrate", "", "--system", "h100_sxm", "-o", folder / "k.yaml")):
        outcome = moesim(*command)
        assert (outcome.code, outcome.out) == (2, "")
        assert "data: found an empty name, wanted a folder" in outcome.err


def test_constants_that_no_formula_takes_are_exit_2(moesim: Call, folder: Path, data: Path) -> None:
    """The missing constant is named with its group."""
    (folder / "k.yaml").write_text("gpu: h100-sxm\nmlp: {a/b/c: {launch_s: 0}}\n")
    outcome = moesim("validate", "--data", data, "--kernels", folder / "k.yaml")
    assert (outcome.code, outcome.out) == (2, "")
    assert "k.yaml: mlp.a/b/c: found no passes" in outcome.err


def test_text_of_a_table_is_escaped_in_the_report(moesim: Call, folder: Path, data: Path) -> None:
    """No script of a table runs in the page."""
    path = data / "nccl_h100_calib.parquet"
    pd.read_parquet(path).assign(framework="<script>alert(1)</script>").to_parquet(path)
    assert moesim("validate", "--data", data, "-q").code == 0
    assert "<script>alert" not in (folder / "results" / "validate" / "report.html").read_text(encoding="utf-8")


def test_constants_are_fitted_written_and_used(moesim: Call, folder: Path, data: Path) -> None:
    """The file that `calibrate` writes is one that `validate` takes."""
    (data / "deepep_ll_0.5.12_h100_calib.parquet").unlink()
    outcome = moesim("calibrate", data, "--system", "h100_sxm", "-o", folder / "k.yaml", "--folds", 0)
    assert (outcome.code, outcome.err) == (0, "")
    assert "NCCL/nccl/alltoall" in outcome.out
    assert outcome.out.splitlines()[-1] == f"constants: {folder / 'k.yaml'}"
    assert "no step takes those of collectives; moesim validate --kernels does" in outcome.out
    used = moesim("validate", "--data", data, "--kernels", folder / "k.yaml", "--json")
    shipped = moesim("validate", "--data", data, "--json")
    assert used.code == shipped.code == 0
    assert used.out != shipped.out


def test_latencies_far_off_are_noted_where_constants_are_fitted(moesim: Call, folder: Path, data: Path) -> None:
    """One latency of 1e300 is pointed out by `calibrate`."""
    (data / "deepep_ll_0.5.12_h100_calib.parquet").unlink()
    path = data / "nccl_h100_calib.parquet"
    rows = pd.read_parquet(path)
    rows.assign(latency=rows["latency"].mask(rows.index == 1, 1e300)).to_parquet(path)
    command = ("calibrate", data, "--system", "h100_sxm", "-o", folder / "k.yaml", "--folds", 0)
    assert "column latency: row 2 holds 1e+300" in moesim(*command).out
    assert "row 2 holds 1e+300" in json.loads(moesim(*command, "--json").out)["notes"][0]


def test_too_few_rows_are_exit_2(moesim: Call, folder: Path, data: Path) -> None:
    """The table and the number of its usable rows are named, and no file is written."""
    path = data / "nccl_h100_calib.parquet"
    pd.read_parquet(path).head(5).to_parquet(path)
    outcome = moesim("calibrate", data, "--system", "h100_sxm", "-o", folder / "k.yaml")
    assert (outcome.code, outcome.out) == (2, "")
    assert "nccl_h100_calib.parquet: column latency: 5 usable rows" in outcome.err
    assert not (folder / "k.yaml").exists()
