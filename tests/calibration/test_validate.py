"""Validation of small folders of tables, right and wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from moesim.calibration import MEASURED, validate
from moesim.calibration.checks import computing_dtype
from moesim.calibration.layout import Layout
from moesim.calibration.reading import Table, far_off
from moesim.calibration.scores import error_table, score, slowdown_table, slowdowns, well_behaved
from moesim.errors import InputError, OutputError
from moesim.hardware.constants import Constants, load
from moesim.types import GpuSpec


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
    """The other groups have the shipped ones' errors or none."""
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


@pytest.mark.parametrize(
    "word, dtype",
    [
        ("bfloat16", "bf16"),
        ("fp8_block", "fp8"),
        ("w4a16_mxfp4", "bf16"),
        ("int8_wo", "bf16"),
        ("w4a8_mxfp4_mxfp8", "fp8"),
        ("w4afp8", "fp8"),
        ("nvfp4", "fp4"),
        ("sq", "int8"),
        ("half", "fp16"),
        ("float16", "fp16"),
        ("", ""),
        ("default", ""),
        ("int3", None),
    ],
)
def test_words_for_data_types(word: str, dtype: str | None) -> None:
    """What a word of a table means for the tensor cores."""
    assert computing_dtype(word) == dtype


class Imaginary(Layout):
    """A layout of which nothing is known."""

    def predict(self, frame: pd.DataFrame, gpus: Mapping[str, GpuSpec], constants: Constants) -> NDArray[np.float64]:
        """Nothing takes any time."""
        return np.zeros((len(frame), 1))

    def fit(self, frame: pd.DataFrame, gpus: Mapping[str, GpuSpec]) -> dict[str, dict[str, float]]:
        """There is nothing to fit."""
        return {}


def skewed_table() -> Table:
    """Two curves of an imaginary kernel: balanced 10 ms, skewed 20 ms at EP 2 and 10 ms at EP 1."""
    frame = pd.DataFrame(
        {
            "framework": "TRTLLM",
            "kernel_source": "any_cutlass",
            "moe_dtype": "fp8",
            "num_tokens": [8, 8, 8, 8, 16],
            "moe_ep_size": [1, 1, 2, 2, 2],
            "distribution": ["balanced", "power_law_1.01", "balanced", "power_law_1.01", "power_law_1.01"],
            "latency_ms": [10.0, 10.0, 10.0, 20.0, 20.0],
        }
    )

    def all_true(rows: pd.DataFrame) -> pd.Series[Any]:
        return pd.Series(data=True, index=rows.index)

    layout = Imaginary(
        name="imaginary",
        part="imaginary",
        prefixes=("imaginary",),
        columns={
            "num_tokens": "number",
            "moe_ep_size": "number",
            "moe_dtype": "text",
            "distribution": "text",
            "latency_ms": "number",
        },
        group=lambda rows: rows["framework"],
        regime=lambda rows: rows["distribution"].map({"balanced": "even"}).fillna("skewed"),
        fitted=all_true,
        usable=all_true,
    )
    ones = np.ones(len(frame), dtype=np.bool_)
    return Table(path="t.parquet", stem="t", layout=layout, frame=frame, predictable=ones, scored=ones, artefact=~ones)


def test_slowdowns_are_of_rows_with_the_same_key_and_even_load() -> None:
    """Row 5 has no balanced row of 16 tokens. EP 1: 0.9 against 1; EP 2: 1.8 / 0.9 against 2."""
    predicted = 1e-3 * np.array([[10.0], [9.0], [9.0], [18.0], [20.0]])
    slow = slowdowns(skewed_table(), predicted)
    assert slow["row"].tolist() == [1, 3]
    assert slow["measured"].tolist() == [1.0, 2.0]
    assert slow["predicted"].tolist() == pytest.approx([0.9, 2.0])
    assert slow["error"].tolist() == pytest.approx([-0.1, 0.0])
    cases = slowdown_table(slow).set_index(["case", "kernels", "rows"])
    assert cases.loc[("all skewed rows", "core", "all"), "n"] == 2
    assert cases.loc[("EP 2 and more, measured 1.3 and more", "core", "all"), "n"] == 1
    assert cases.loc[("EP 2 and more, measured 1.3 and more", "core", "all"), "median"] == pytest.approx(0.0)


def test_skewed_rows_without_even_ones_have_no_slowdown() -> None:
    """There is nothing to divide by."""
    table = skewed_table()
    frame = table.frame.assign(distribution="power_law_1.01")
    alone = Table(**{**vars(table), "frame": frame})
    assert len(slowdowns(alone, np.full((5, 1), 0.01))) == 0
    found = error_table(score(alone, np.full((5, 1), 0.01)), slowdowns(alone, np.full((5, 1), 0.01)))
    assert found["n"].tolist() == [5]
    assert len(slowdown_table(slowdowns(alone, np.full((5, 1), 0.01)))) == 0


def test_the_error_table_by_hand() -> None:
    """Skewed rows are off by -10, -10 and 0 %."""
    table = skewed_table()
    predicted = 1e-3 * np.array([[10.0], [9.0], [9.0], [18.0], [20.0]])
    found = error_table(score(table, predicted), slowdowns(table, predicted)).set_index("regime")
    skewed, even = (found.loc[[regime]].iloc[0] for regime in ("skewed", "even"))
    assert skewed[["n", "median", "bias"]].tolist() == pytest.approx([3, 0.1, -0.1])
    assert skewed["p90"] == pytest.approx(0.1)
    assert skewed[["slowdown_n", "slowdown_median"]].tolist() == pytest.approx([2, 0.05])
    assert np.isnan(even["slowdown_median"])


def test_a_unit_is_only_doubted_when_hundreds_of_times_off() -> None:
    """A hundred times is still believed."""
    table = skewed_table()
    right = table.frame["latency_ms"].to_numpy()[:, None] / 1e3
    assert far_off(table, right * 100) == ([], [])
    (problem,), _ = far_off(table, right * 1000)
    assert "wanted milliseconds" in problem


def test_well_behaved_kernels_are_those_with_constants_of_their_own() -> None:
    """Others are tuned anew for each shape."""
    rows = pd.DataFrame(
        [
            ("TRTLLM", "moe_torch_flow_cutlass", "bfloat16", True),
            ("TRTLLM", "moe_torch_flow_nongated", "bfloat16", False),
            ("TRTLLM", "deepgemm", "fp8_block", False),
            ("TRTLLM", "moe_torch_flow_cutlass", "nvfp4", False),
            ("VLLM", "vllm_fp8moe_flashinfer_cutlass_flashinferexperts", "fp8_block", True),
            ("VLLM", "vllm_fp8moe_triton_tritonexperts", "fp8_block", True),
            ("VLLM", "vllm_fp8moe_flashinfer_trtllm_trtllmfp8expertsmonolithic", "fp8_block", False),
            ("VLLM", "vllm_modeloptfp8moe_flashinfer_cutlass_flashinferexperts", "fp8", False),
            ("SGLang", "sglang_fused_moe_triton", "fp8_block", True),
            ("SGLang", "sglang_fused_moe_triton", "bfloat16", False),
        ],
        columns=["framework", "kernel_source", "moe_dtype", "core"],
    )
    assert well_behaved(rows).tolist() == rows["core"].tolist()
    layers = rows.rename(columns={"moe_dtype": "gemm_dtype"})
    assert well_behaved(layers).all()
