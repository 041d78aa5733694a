"""Errors and slowdowns of tables whose numbers can be worked by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from moesim.calibration.checks import computing_dtype
from moesim.calibration.layout import Layout
from moesim.calibration.reading import Table, far_off
from moesim.calibration.scores import error_table, score, slowdown_table, slowdowns, well_behaved
from moesim.hardware.constants import Constants
from moesim.types import GpuSpec


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
