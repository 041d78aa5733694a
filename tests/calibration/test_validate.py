"""Validation of small folders of tables, right and wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moesim.calibration import MEASURED, validate
from moesim.errors import InputError, OutputError
from moesim.hardware.constants import load


@pytest.fixture
def low_latency() -> pd.DataFrame:
    """The shipped table of DeepEP's low-latency mode."""
    return pd.read_parquet(MEASURED / "deepep_ll_0.5.12_h100_calib.parquet")


@pytest.fixture
def nccl() -> pd.DataFrame:
    """The shipped table of NCCL."""
    return pd.read_parquet(MEASURED / "nccl_h100_calib.parquet")


@pytest.fixture
def moe() -> pd.DataFrame:
    """Sixty rows of Mixtral's experts in bf16."""
    rows = pd.read_parquet(MEASURED / "moe_h100_calib.parquet")
    mixtral = rows["num_experts"].eq(8) & rows["moe_dtype"].eq("bfloat16") & rows["framework"].eq("TRTLLM")
    return rows[mixtral & rows["flag"].eq("")].head(60).reset_index(drop=True)


def test_every_row_is_predicted_and_every_column_kept(
    tmp_path: Path, low_latency: pd.DataFrame, nccl: pd.DataFrame
) -> None:
    """Of CSV and parquet; files of no layout are skipped."""
    low_latency.to_parquet(tmp_path / "deepep_ll_mine.parquet")
    nccl.to_csv(tmp_path / "nccl_mine.csv", index=False)
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "notes.csv")
    report = validate(tmp_path)
    report.write_predictions(tmp_path / "out.parquet")
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert len(found) == len(low_latency) + len(nccl)
    assert {*low_latency.columns, *nccl.columns, "table", "predicted", "predicted_dispatch_avg_t_us"} <= {
        *found.columns
    }
    assert found["predicted"].notna().all()
    mine = found[found["table"] == "deepep_ll_mine"].reset_index(drop=True)
    assert mine["num_token"].tolist() == low_latency["num_token"].tolist()
    both = mine["predicted_dispatch_avg_t_us"] + mine["predicted_combine_avg_t_us"]
    assert mine["predicted"].tolist() == both.tolist()
    assert [path.rpartition("/")[2] for path in report.skipped] == ["notes.csv"]
    assert not report.problems
    again = validate(tmp_path)  # the predictions beside the tables are no table
    assert len(again.predictions) == len(found)
    assert len(again.skipped) == 2


def test_the_same_rows_in_csv_and_parquet_are_predicted_alike(tmp_path: Path, nccl: pd.DataFrame) -> None:
    """To the last digit."""
    nccl = nccl.assign(flag="")
    nccl.to_csv(tmp_path / "nccl_a.csv", index=False)
    nccl.to_parquet(tmp_path / "nccl_b.parquet")
    report = validate(tmp_path)
    assert report.left_out == {}
    found = report.predictions
    parts = [found[found["table"] == name]["predicted"].tolist() for name in ("nccl_a", "nccl_b")]
    assert parts[0] == parts[1]


@pytest.mark.parametrize("narrow", ["int16", "uint16", "Int16", "float32"])
def test_narrow_numbers_of_a_table_are_predicted_as_wide_ones(tmp_path: Path, moe: pd.DataFrame, narrow: str) -> None:
    """Products of 16-bit numbers would overflow."""
    moe = moe[moe["num_tokens"] < 2**15]
    assert (moe["num_tokens"] * moe["topk"]).max() >= 2**15
    moe.to_parquet(tmp_path / "moe_wide.parquet")
    moe.astype(dict.fromkeys(("num_tokens", "topk", "num_experts"), narrow)).to_parquet(tmp_path / "moe_narrow.parquet")
    found = validate(tmp_path).predictions
    parts = [found[found["table"] == name]["predicted"].tolist() for name in ("moe_wide", "moe_narrow")]
    assert parts[0] == parts[1]


def test_a_latency_of_any_size_is_drawn(tmp_path: Path, nccl: pd.DataFrame) -> None:
    """The report is written, and a note names the row."""
    broken(nccl, latency=1e300).to_parquet(tmp_path / "nccl.parquet")
    report = validate(tmp_path)
    report.save(tmp_path / "report")
    (note,) = report.notes
    assert "row 4 holds 1e+300" in note


@pytest.mark.parametrize("changed", [{"moe_ep_size": 3}, {"moe_ep_size": 64}, {"moe_dtype": "fp8_static"}])
def test_a_table_of_rows_without_a_prediction_is_noted(
    tmp_path: Path, moe: pd.DataFrame, changed: dict[str, int | str]
) -> None:
    """It has no scores."""
    moe.assign(**changed).to_parquet(tmp_path / "moe_x.parquet")
    report = validate(tmp_path)
    assert report.notes == [f"moe_x: {len(moe)} rows have no prediction"]
    assert not len(report.scores) + len(report.slowdowns) + len(report.problems)
    report.save(tmp_path / "report")


def test_rows_of_unknown_systems_or_distributions_are_no_artefacts(tmp_path: Path, moe: pd.DataFrame) -> None:
    """They are counted apart."""
    moe.assign(distribution="balanced_eplb").to_parquet(tmp_path / "moe_a.parquet")
    moe.assign(system="mars").to_parquet(tmp_path / "moe_b.parquet")
    moe.assign(latency_ms=-1.0).drop(columns="flag").to_parquet(tmp_path / "moe_c.parquet")
    report = validate(tmp_path)
    assert report.left_out == {}
    assert report.notes == [f"moe_a: {len(moe)} rows have no prediction"]
    assert len(report.problems) == 2


def test_a_wrong_latency_makes_no_artefact_of_other_rows(tmp_path: Path, moe: pd.DataFrame) -> None:
    """As a latency of -1 at the end of a curve, than which all others take longer."""
    moe = moe.drop(columns="flag")
    moe.to_parquet(tmp_path / "moe_a.parquet")
    n_scored = len(validate(tmp_path).scores)
    last = moe["num_tokens"].idxmax()
    moe.assign(latency_ms=moe["latency_ms"].mask(moe.index == last, -1.0)).to_parquet(tmp_path / "moe_a.parquet")
    report = validate(tmp_path)
    assert len(report.problems) == 1
    assert len(report.scores) >= n_scored - 1


def test_constants_of_ones_own_predict_their_groups_and_no_others(tmp_path: Path) -> None:
    """The other groups are predicted by the shipped constants."""
    rows = pd.read_parquet(MEASURED / "gemm_h100_calib.parquet")
    rows[rows["framework"].eq("TRTLLM")].to_parquet(tmp_path / "gemm.parquet")
    name = "trtllm/cublas/fp8"
    own = {"gemm": {name: {**load("gemm")[name], "launch_s": 1.0}}}
    shipped, mine = validate(tmp_path), validate(tmp_path, kernels=own)
    fp8 = mine.predictions["gemm_dtype"].eq("fp8")
    assert (mine.predictions["predicted"][fp8] > 1e3).all()
    assert mine.predictions[~fp8].equals(shipped.predictions[~fp8])
    assert set(mine.errors["rows"][mine.errors["dtype"].eq("fp8")]) == {"own constants"}
    assert set(mine.errors["rows"][mine.errors["dtype"].ne("fp8")]) == {"fitted", "held out"}
    mine.save(tmp_path / "mine")
    shipped.save(tmp_path / "shipped")
    page = {name: (tmp_path / name / "report.html").read_text(encoding="utf-8") for name in ("mine", "shipped")}
    assert "may have been fitted to them" in page["mine"]
    assert "may have been fitted to them" not in page["shipped"]


def test_constants_of_no_group_of_the_tables_are_noted(
    tmp_path: Path, nccl: pd.DataFrame, low_latency: pd.DataFrame
) -> None:
    """They changed nothing."""
    nccl.to_parquet(tmp_path / "nccl.parquet")
    low_latency.to_parquet(tmp_path / "deepep_ll.parquet")
    report = validate(tmp_path, kernels={"collectives": {"other/nccl/alltoall": {}}})
    assert report.notes == [
        "no row is of a group of the constants given (collectives: other/nccl/alltoall): all are predicted as shipped"
    ]
    assert report.predictions.equals(validate(tmp_path).predictions)


@pytest.mark.parametrize("column", ["table", "predicted", "predicted_dispatch_avg_t_us"])
def test_a_column_that_predictions_would_overwrite_is_refused(
    tmp_path: Path, low_latency: pd.DataFrame, nccl: pd.DataFrame, column: str
) -> None:
    """The table is named with the column."""
    nccl.to_parquet(tmp_path / "nccl.parquet")
    low_latency.assign(**{column: 1}).to_parquet(tmp_path / "deepep_ll.parquet")
    report = validate(tmp_path)
    (problem,) = report.problems
    assert f"deepep_ll.parquet: column {column}: predictions add one of this name" in problem
    assert set(report.predictions["table"]) == {"nccl"}
    (tmp_path / "nccl.parquet").unlink()
    with pytest.raises(InputError, match=f"column {column}"):
        validate(tmp_path)


def test_tables_of_one_name_are_refused(tmp_path: Path, nccl: pd.DataFrame) -> None:
    """Both files are named."""
    nccl.to_parquet(tmp_path / "nccl.parquet")
    nccl.to_csv(tmp_path / "nccl.csv", index=False)
    report = validate(tmp_path)
    (problem,) = report.problems
    assert all(f"{tmp_path}/nccl.{ending}" in problem for ending in ("csv", "parquet"))
    assert len(report.predictions) == len(nccl)


def test_the_tables_of_a_kind_are_summed_up_and_systems_noted_once(tmp_path: Path, low_latency: pd.DataFrame) -> None:
    """Three tables are one line."""
    low_latency.to_parquet(tmp_path / "deepep_ll_a.parquet")
    for name in ("b", "c"):
        low_latency.assign(system="h200_sxm", version="0.5.12").to_parquet(tmp_path / f"deepep_ll_{name}.parquet")
    report = validate(tmp_path)
    assert report.notes == ["h200_sxm: constants of H100, only published specifications changed (tables: 2)"]
    kinds = report.kinds.set_index(["kind", "rows"])
    other = report.scores[report.scores["rows"].eq("held out")]
    found = kinds.xs(("deepep_ll", "held out"))
    assert found["n"] == len(other) > 4 * (len(low_latency) - 1)
    assert found["median"] == pytest.approx(other["error"].abs().median())
    assert found["bias"] == pytest.approx(other["error"].median())
    assert report.summary()["kinds"][0]["kind"] == "deepep_ll"


def test_the_shipped_tables_have_their_split() -> None:
    """Nearly every row is predicted, without a problem."""
    report = validate()
    assert set(report.errors["rows"]) == {"fitted", "held out"}
    assert not report.problems
    assert report.predictions["predicted"].notna().mean() > 0.98  # rows after expert load balancing have none yet
    assert report.summary()["errors"][0].keys() >= {"table", "kernel", "dtype", "regime", "n", "median", "p90", "bias"}


def broken(frame: pd.DataFrame, **changed: float | str) -> pd.DataFrame:
    """The table with one cell of each of these columns replaced."""
    frame = frame.copy()
    for column, value in changed.items():
        frame[column] = frame[column].astype(object) if isinstance(value, str) else frame[column]
        frame.loc[3, column] = value
    return frame


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.drop(columns="num_topk"), "column num_topk is missing"),
        (lambda t: broken(t, combine_avg_t_us=-3.0), "row 4, column combine_avg_t_us: found -3, wanted a latency"),
        (lambda t: broken(t, dispatch_avg_t_us=np.nan), "row 4, column dispatch_avg_t_us: found nan"),
        (lambda t: broken(t, dispatch_avg_t_us=0.0, combine_avg_t_us=0.0), "wanted a latency above 0"),
        (lambda t: broken(t, num_token=np.nan), "row 4, column num_token: found nan, wanted a whole number"),
        (lambda t: broken(t, combine_avg_t_us=np.inf), "row 4, column combine_avg_t_us: found inf, wanted a latency"),
        (lambda t: broken(t, num_token="many"), "row 4, column num_token: found many, wanted a whole number from 1 on"),
        (lambda t: broken(t, combine_avg_t_us="fast"), "row 4, column combine_avg_t_us: found fast, wanted a latency"),
        (lambda t: broken(t, num_topk=0), "row 4, column num_topk: found 0, wanted a whole number from 1 on"),
        (lambda t: t.assign(num_token=t["num_token"] + 0.5), "column num_token: found 1.5, wanted a whole number"),
        (lambda t: broken(t, system="abacus"), "row 4, column system: found abacus, wanted one of a100_sxm"),
        (lambda t: broken(t, num_topk=300), "row 4, column num_topk: found 300, wanted no more than num_experts"),
        (lambda t: broken(t, num_experts=2**40), "row 4, column num_experts: found 1.09951e+12, wanted a whole number"),
        (lambda t: broken(t, num_token="1" * 400), "row 4, column num_token: found 1111"),
        (lambda t: t.assign(framework="a/b"), "row 1, column framework: found a/b, wanted a name without slashes"),
        (lambda t: t.assign(moe_dtype="nvfp4"), "found nvfp4 on h100_sxm, wanted a data type that the GPU has (fp32,"),
        (lambda t: t.assign(comm_dtype="int3"), "column comm_dtype: found int3 on h100_sxm, wanted a data type"),
        (
            lambda t: t.assign(dispatch_avg_t_us=t["dispatch_avg_t_us"] / 1000),
            "column dispatch_avg_t_us: its latencies are 1/",
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_and_column(
    tmp_path: Path, low_latency: pd.DataFrame, nccl: pd.DataFrame, change: Callable[..., Any], words: str
) -> None:
    """The good table beside it is scored."""
    change(low_latency).to_csv(tmp_path / "deepep_ll_bad.csv", index=False)
    nccl.to_parquet(tmp_path / "nccl_good.parquet")
    report = validate(tmp_path)
    (problem,) = report.problems
    assert "deepep_ll_bad.csv" in problem
    assert words in problem
    assert "nccl_good" in set(report.errors["table"])


def test_rows_that_are_wrong_are_left_out_and_the_others_scored(tmp_path: Path, low_latency: pd.DataFrame) -> None:
    """One row of the table is missing from the count."""
    broken(low_latency, combine_avg_t_us=-3.0).to_parquet(tmp_path / "deepep_ll_bad.parquet")
    report = validate(tmp_path)
    assert report.left_out == {}
    assert report.errors["n"].sum() == 2 * (len(low_latency) - 1)
    assert report.predictions["predicted"].notna().all()


def test_single_latencies_a_thousand_times_off_are_pointed_out(tmp_path: Path, low_latency: pd.DataFrame) -> None:
    """A note has file, column and row."""
    broken(low_latency, combine_avg_t_us=1000 * low_latency["combine_avg_t_us"][3]).to_parquet(
        tmp_path / "deepep_ll_bad.parquet"
    )
    report = validate(tmp_path)
    (note,) = report.notes
    assert "deepep_ll_bad.parquet: column combine_avg_t_us: row 4" in note
    assert "microseconds" in note
    assert not report.problems


@pytest.mark.parametrize("name, content", [("x.parquet", b"nonsense"), ("x.csv", b"\x00\xff\xfe")])
def test_a_damaged_file_is_one_problem(tmp_path: Path, nccl: pd.DataFrame, name: str, content: bytes) -> None:
    """Or it is skipped as no table."""
    nccl.to_parquet(tmp_path / "nccl.parquet")
    (tmp_path / name).write_bytes(content)
    report = validate(tmp_path)
    assert len(report.problems) + len(report.skipped) == 1


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    """Empty names, empty folders and missing ones."""
    with pytest.raises(InputError, match="data: found an empty name"):
        validate("")
    with pytest.raises(InputError, match="holds no parquet or CSV"):
        validate(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        validate(tmp_path / "absent")
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "notes.csv")
    with pytest.raises(InputError, match="no table of a known layout"):
        validate(tmp_path)


def test_predictions_are_written_whole_or_not_at_all(tmp_path: Path, nccl: pd.DataFrame) -> None:
    """No partial file is left where the folder is missing."""
    nccl.to_parquet(tmp_path / "nccl.parquet")
    report = validate(tmp_path)
    with pytest.raises(OutputError, match="cannot be written"):
        report.write_predictions(tmp_path / "absent" / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["nccl.parquet"]
