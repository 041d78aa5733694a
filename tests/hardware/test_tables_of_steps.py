"""The tables of a step as files: what is wrong with them, and their digests."""

from __future__ import annotations

from pathlib import Path

import pytest

from moesim.calibration.lookup import with_table
from moesim.errors import InputError
from moesim.hardware import backend_of
from tests.hardware.measured_rows import experts, products, save
from tests.hardware.shapes import BF16, H100, MIXTRAL
from tests.hardware.steps import measured_by, step

WRONG = {
    "no such folder": (None, "no such folder, wanted one of measured tables"),
    "no table": (
        {"nccl": experts({1: 1.0})[["system"]]},
        "found nccl_test.csv, wanted tables that a step takes: moe, ",
    ),
    "a column": (
        {"moe": experts({64: 1.0}).drop(columns="topk")},
        "moe_test.csv: column topk is missing, wanted the columns of a moe table: system",
    ),
    "negative": (
        {"moe": experts({64: 1.0, 128: -2.0})},
        "moe_test.csv: row 2, column latency_ms: found -2, wanted a latency",
    ),
    "NaN": (
        {"gemm": products({64: 1.0, 128: float("nan")})},
        "gemm_test.csv: row 2, column latency_ms: found nan, wanted a latency",
    ),
    "no number": (
        {"moe": experts({64: 1.0}, num_experts="many")},
        "moe_test.csv: row 1, column num_experts: found many, wanted a whole number from 1 on",
    ),
    "seconds": (
        {"moe": experts({64: 0.001, 128: 0.001})},
        "moe_test.csv: column latency_ms: its latencies are 1/",
    ),
    "one in microseconds": (
        {"moe": experts({64: 1.0, 128: 1.0, 256: 1000.0})},
        "moe_test.csv: column latency_ms: row 3 holds 1000 where 0.9834 is predicted; is it in milliseconds?",
    ),
    "another GPU": (
        {"moe": experts({64: 1.0}, system="h200_sxm")},
        "column system: found h200_sxm, wanted rows of h100-sxm",
    ),
    "an unknown GPU": ({"moe": experts({64: 1.0}, system="h1000")}, "column system: found h1000, wanted one of "),
    "another framework": (
        {"moe": experts({64: 1.0}, framework="VLLM")},
        "column framework: found vllm, wanted rows of trtllm for trtllm-bf16",
    ),
    "artefacts alone": (
        {"moe": experts({64: 1.0}, flag="spike")},
        "found no row of h100-sxm that is no artefact",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_tables_is_said_in_one_line(tmp_path: Path, case: str) -> None:
    """With the file and the column."""
    tables, words = WRONG[case]
    path = tmp_path / "tables" if tables is None else save(tmp_path / "tables", **tables)
    with pytest.raises(InputError) as raised:
        with_table(backend_of("trtllm-bf16"), path, H100, {})
    assert words in str(raised.value)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_several_problems_are_counted(tmp_path: Path) -> None:
    """The first is told, and how many more there are."""
    save(tmp_path, moe=experts({64: -1.0}), gemm=products({64: -1.0}))
    with pytest.raises(InputError, match=r"gemm_test\.csv: row 1, .*\(and 1 more\)$"):
        with_table(backend_of("trtllm-bf16"), tmp_path, H100, {})


def test_the_tables_of_a_folder_have_a_digest_each_and_one_together(tmp_path: Path) -> None:
    """Files of other layouts are not among them."""
    folder = save(
        tmp_path / "t", moe=experts({64: 1.0}), moe_other=experts({128: 2.0}), nccl=experts({1: 1.0})[["system"]]
    )
    kernels = with_table(backend_of("trtllm-bf16"), folder, H100, {})
    assert sorted(measured_by(kernels).files) == ["moe_other_test.csv", "moe_test.csv"]
    assert step(MIXTRAL, BF16, [128], kernels).experts[0, 0] == 2e-3
    save(folder, moe=experts({64: 1.5}))
    again = with_table(backend_of("trtllm-bf16"), folder, H100, {})
    assert again.digest != kernels.digest
    assert step(MIXTRAL, BF16, [64], again).experts[0, 0] == 1.5e-3
    one = with_table(backend_of("trtllm-bf16"), folder / "moe_test.csv", H100, {})
    assert one.digest == measured_by(again).files["moe_test.csv"]
