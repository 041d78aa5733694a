"""Calibration: constants of one's own tables, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from moesim import Scenario, simulate
from moesim.calibration import MEASURED, calibrate, read_kernels, validate
from moesim.calibration.calibrate import curves
from moesim.calibration.layout import load_layout
from moesim.calibration.predict import parts
from moesim.errors import InputError
from moesim.hardware.constants import load


@pytest.fixture
def nccl() -> pd.DataFrame:
    """The shipped table of NCCL."""
    return pd.read_parquet(MEASURED / "nccl_h100_calib.parquet")


@pytest.fixture
def folder(tmp_path: Path, nccl: pd.DataFrame) -> Path:
    """A folder with its all-gathers."""
    nccl[nccl["op_name"] == "all_gather"].to_parquet(tmp_path / "nccl_mine.parquet")
    return tmp_path


def test_constants_of_own_tables_are_met_and_written(folder: Path) -> None:
    """Errors are small, and the file has the constants."""
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


def test_the_shipped_constants_are_those_of_the_fitted_rows(nccl: pd.DataFrame) -> None:
    """A fit of them finds the shipped numbers again."""
    kind = load_layout("nccl")
    from moesim.calibration.gpus import published_gpus

    rows = nccl[kind.fitted(nccl) & nccl["op_name"].eq("alltoall")].reset_index(drop=True)
    found = kind.fit(rows, published_gpus())["NCCL/nccl/alltoall"]
    assert found == pytest.approx(load("collectives")["NCCL/nccl/alltoall"], rel=0.05)


def test_folds_leave_out_whole_curves(nccl: pd.DataFrame) -> None:
    """8 curves: four operations on 4 and 8 GPUs."""
    number = curves(load_layout("nccl"), nccl)
    assert sorted(set(number)) == list(range(8))
    assert (np.bincount(number) == 21).all()


def test_too_few_rows_name_file_and_column(tmp_path: Path, nccl: pd.DataFrame) -> None:
    """Seven where twelve are wanted."""
    nccl.head(7).to_parquet(tmp_path / "nccl_few.parquet")
    with pytest.raises(InputError, match=r"nccl_few.parquet: column latency: 7 usable rows of .* wanted at least 12"):
        calibrate(tmp_path, "h100_sxm")


def experts(n: int) -> pd.DataFrame:
    """Rows of one group of the experts' kernels."""
    rows = pd.read_parquet(MEASURED / "moe_h100_calib.parquet")
    mine = rows["framework"].eq("TRTLLM") & rows["moe_dtype"].eq("fp8_block") & rows["flag"].eq("")
    return rows[mine].sample(n, random_state=0)


def test_experts_need_more_rows_which_may_be_of_several_files(tmp_path: Path) -> None:
    """Twenty are too few; two files of them are enough."""
    experts(20).to_parquet(tmp_path / "moe_a.parquet")
    with pytest.raises(InputError, match=r"moe_a.parquet: column latency_ms: 20 usable rows of .*wanted at least 30"):
        calibrate(tmp_path, "h100_sxm", folds=0)
    experts(45).tail(25).to_parquet(tmp_path / "moe_b.parquet")
    assert calibrate(tmp_path, "h100_sxm", folds=0).errors["n"].tolist() == [45]


def test_what_has_too_few_rows_without_a_fold_has_no_error_left_out(tmp_path: Path) -> None:
    """It is fitted all the same."""
    experts(32).to_parquet(tmp_path / "moe_a.parquet")
    (row,) = calibrate(tmp_path, "h100_sxm", folds=2).errors.to_dict("records")
    assert row["median"] < 0.1
    assert np.isnan(row["cv_median"])


@pytest.mark.parametrize("factor, words", [(1000, "(999|1,)"), (0.001, "1/")])
def test_latencies_in_another_unit_are_pointed_out(
    tmp_path: Path, nccl: pd.DataFrame, factor: float, words: str
) -> None:
    """Microseconds and seconds where milliseconds are wanted."""
    nccl.assign(latency=nccl["latency"] * factor).to_parquet(tmp_path / "nccl_us.parquet")
    match = rf"nccl_us.parquet: column latency: its latencies are {words}.*wanted milliseconds"
    with pytest.raises(InputError, match=match):
        calibrate(tmp_path, "h100_sxm")


LAYERS = {
    "moe": ("experts", "trtllm/cutlass/bfloat16"),
    "gemm": ("gemm", "trtllm/cublas/bfloat16"),
    "attention_context": ("attention_context", "trtllm/mha-128/bfloat16"),
    "attention_generation": ("attention_generation", "trtllm/mha-128/bfloat16"),
    "elementwise": ("elementwise", "vllm/scale_matrix/fp8"),
    "allreduce": ("allreduce", "trtllm/custom/graph"),
}


@pytest.mark.slow
def test_constants_of_all_layers_are_those_that_a_scenario_takes(tmp_path: Path) -> None:
    """Every latency of one's own GPU is twice that of H100: so is the time of its step, without the network."""
    for name, (_, group) in LAYERS.items():
        kind, rows = load_layout(name), pd.read_parquet(MEASURED / f"{name}_h100_calib.parquet")
        rows = rows[kind.usable(rows) & kind.group(rows).eq(group)]
        few = rows.sample(min(len(rows), 300), random_state=0)
        few.assign(latency_ms=2 * few["latency_ms"]).to_parquet(tmp_path / f"{name}_mine.parquet")
    found = calibrate(tmp_path, "h100_sxm", folds=2)
    assert {(row.kind, row.group) for row in found.errors.itertuples()} == {(k, g) for k, (_, g) in LAYERS.items()}
    assert found.errors[["median", "p90", "cv_median", "cv_p90"]].notna().all(axis=None)
    assert (found.errors["median"] < 0.07).all()
    assert set(found.kernels) == set(found.used_in_steps)
    found.write(tmp_path / "mine.yaml")
    plain: dict[str, Any] = {"model": "olmoe-1b-7b", "cluster": {"gpu": "h100-sxm", "gpus_per_node": 4}}
    for phase, tokens, heads in (("decode", 64, "data"), ("prefill", 4096, "data"), ("decode", 64, "tensor")):
        work = {"workload": {"phase": phase, "steps": 1, "tokens_per_gpu": tokens}, "parallelism": {"attention": heads}}
        mine = {"cluster": {**plain["cluster"], "kernels": str(tmp_path / "mine.yaml")}}
        parts = [simulate(Scenario.from_dict({**plain, **work, **c})).summary["breakdown_s"] for c in ({}, mine)]
        for part in ("attention", "experts", "head", "router"):
            assert parts[1][part] == pytest.approx(2 * parts[0][part], rel=0.15), part


def test_a_gpu_is_known_by_the_name_of_its_preset_too(folder: Path) -> None:
    """Both spellings give the same constants."""
    named, preset = (calibrate(folder, name, name="mine", folds=0) for name in ("h100_sxm", "h100-sxm"))
    assert preset.kernels == named.kernels


def test_what_cannot_be_calibrated_is_named(folder: Path, nccl: pd.DataFrame) -> None:
    """Unknown systems, rows of another one, and latencies below zero."""
    with pytest.raises(InputError, match="system: found abacus"):
        calibrate(folder, "abacus")
    with pytest.raises(InputError, match="column system: found usable rows of h100_sxm, wanted b200_sxm"):
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
        ("gemm: {}", "holds no constants"),
        ("a: [", "cannot be read"),
        ("mlp: {7: {launch_s: 1.0}}", "mlp: found 7, wanted the name of a group"),
        (
            "mlp: {a/b/c: {launch_s: 1.0}}",
            "mlp.a/b/c: found no passes, wanted launch_s, passes",
        ),
        ("mlp: {a/b/c: {launch_s: 1.0, passes: 1, more: 2}}", "mlp.a/b/c: found more, wanted launch_s, passes"),
        ("mlp: {a/b/c: {launch_s: -1, passes: 1}}", "mlp.a/b/c.launch_s: found -1, wanted a number of 0 or more"),
        ("mlp: {a/b/c: {launch_s: .nan, passes: 1}}", "mlp.a/b/c.launch_s: found nan, wanted a number of 0 or more"),
        ("mlp: {a/b: {launch_s: 1, passes: 1}}", "mlp.a/b: wanted a group framework/kernel/data type"),
        (f"mlp: {{a/b/c: {{launch_s: 1{'0' * 400}, passes: 1}}}}", "mlp.a/b/c.launch_s: found 1000"),
        ("mlp: {a/b/c: {launch_s: 1, passes: 1}}", "gpu: found None, wanted the name of the GPU of the measurements"),
        (
            "collectives: {a/soup/b: {x: 1}}",
            "collectives.a/soup/b: wanted a group framework/deepep-ll/version/",
        ),
        ("collectives: {a/nccl/b: {x: 1}}", "collectives.a/nccl/b: found no ll_s"),
        ({"gemm": {"trtllm/cublas/fp8": {"bandwidth_share": 0}}}, "bandwidth_share: found 0, wanted a number above 0"),
        ({"experts": {"trtllm/cutlass/fp8": {"tile_low": 3}}}, "tile_low: found 3, wanted a power of two"),
        ({"collectives": {"NCCL/nccl/alltoall": {"ll_share": 0}}}, "ll_share: found 0, wanted a number above 0"),
    ],
)
def test_files_of_constants_are_checked(
    tmp_path: Path, text: dict[str, dict[str, dict[str, int]]] | str, words: str
) -> None:
    """A text, or what is changed of shipped constants."""
    if not isinstance(text, str):
        ((part, groups),) = text.items()
        changed = {name: {**load(part)[name], **values} for name, values in groups.items()}
        text = yaml.safe_dump({"gpu": "h100-sxm", part: changed})
    (tmp_path / "k.yaml").write_text(text)
    with pytest.raises(InputError, match=r"k\.yaml") as raised:
        read_kernels(tmp_path / "k.yaml")
    assert words in str(raised.value)


def test_the_shipped_constants_pass_the_checks_of_a_file(tmp_path: Path) -> None:
    """All parts in one file."""
    kernels = {part: dict(load(part)) for part in parts()}
    (tmp_path / "k.yaml").write_text(yaml.safe_dump({"gpu": "h100-sxm", **kernels}))
    assert read_kernels(tmp_path / "k.yaml") == kernels


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"moe_ep_size": 3}, "row 3, column moe_ep_size: found 3, wanted a divisor of num_experts"),
        ({"moe_dtype": "fp8_other"}, "row 3, column moe_dtype: found fp8_other, wanted one of bfloat16, "),
        ({"framework": "a/b"}, "row 3, column framework: found a/b, wanted a name without slashes"),
    ],
)
def test_rows_of_experts_that_no_formula_takes_are_named(
    tmp_path: Path, changed: dict[str, int | str], words: str
) -> None:
    """By the number of the row and the column."""
    rows = experts(40).reset_index(drop=True)
    for column, value in changed.items():
        rows.loc[2, column] = value
    rows.to_parquet(tmp_path / "moe_a.parquet")
    with pytest.raises(InputError, match=f"moe_a.parquet: {words}"):
        calibrate(tmp_path, "h100_sxm", folds=0)


def test_sums_on_one_gpu_are_named(tmp_path: Path) -> None:
    """An all-reduce needs two."""
    rows = pd.read_parquet(MEASURED / "allreduce_h100_calib.parquet")
    rows.assign(num_gpus=1).to_parquet(tmp_path / "allreduce_a.parquet")
    with pytest.raises(InputError, match=r"allreduce_a.parquet: row 1, column num_gpus: found 1"):
        calibrate(tmp_path, "h100_sxm", folds=0)


def test_latencies_far_off_are_fitted_and_noted(folder: Path, nccl: pd.DataFrame) -> None:
    """One latency of 1e300 does not spoil the others."""
    rows = nccl[nccl["op_name"] == "all_gather"].reset_index(drop=True)
    rows.loc[1, "latency"] = 1e300
    rows.to_parquet(folder / "nccl_mine.parquet")
    (note,) = calibrate(folder, "h100_sxm", folds=0).notes
    assert "nccl_mine.parquet: column latency: row 2 holds 1e+300" in note


def test_artefacts_are_not_fitted_and_counted(folder: Path, nccl: pd.DataFrame) -> None:
    """A row with a flag is left out."""
    rows = nccl[nccl["op_name"] == "all_gather"].reset_index(drop=True)
    flagged = rows.assign(flag=["spike", *[""] * (len(rows) - 1)], latency=[1e3, *rows["latency"][1:]])
    flagged.to_parquet(folder / "nccl_mine.parquet")
    found = calibrate(folder, "h100_sxm", folds=0)
    assert found.artefacts == {"nccl_mine": 1}
    assert found.errors["n"].tolist() == [len(rows) - 1]
