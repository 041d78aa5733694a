"""The layout of an installed aiconfigurator-core, on a small imitation of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from moesim.calibration import MEASURED, validate
from moesim.calibration.aiconfigurator import FILES, PACKAGE
from moesim.errors import InputError


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with one table of DeepEP and one of NCCL for h200_sxm, without what the folders tell."""
    package = tmp_path / PACKAGE
    data = package / "systems" / "data" / "h200_sxm"
    (package / "systems" / "data" / "b200_sxm").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('it is only looked into')")
    for name, place in (("deepep_ll_0.5.12_h100", "wideep_deepep_ll"), ("nccl_h100", "nccl")):
        folder = data / "comm" / "x" / "1.0"
        folder.mkdir(parents=True, exist_ok=True)
        frame = pd.read_parquet(MEASURED / f"{name}_calib.parquet").drop(columns="system")
        frame.to_parquet(folder / f"{place}_perf.parquet")
    (data / "comm" / "x" / "1.0" / "mamba2_perf.parquet").write_bytes(b"of no interest")
    monkeypatch.syspath_prepend(tmp_path)


def test_its_tables_are_read_where_they_lie(installed: None) -> None:
    """Names and systems come from the folders of the package."""
    report = validate("aiconfigurator:h200_sxm")
    assert set(report.predictions["system"]) == {"h200_sxm"}
    tables = {"deepep_ll_h200_sxm_comm_x_1.0_wideep_deepep_ll", "nccl_h200_sxm_comm_x_1.0_nccl"}
    assert set(report.predictions["table"]) == tables
    assert report.predictions["predicted"].notna().all()
    assert set(report.errors["rows"]) == {"held out"}  # the constants are those of H100
    assert any("only published specifications changed" in note for note in report.notes)
    assert [path.rpartition("/")[2] for path in report.skipped] == ["mamba2_perf.parquet"]


def test_an_unknown_system_names_those_there_are(installed: None) -> None:
    """In one line."""
    with pytest.raises(InputError, match=r"found system 'abacus', wanted one of b200_sxm, h200_sxm"):
        validate("aiconfigurator:abacus")


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the extra."""
    monkeypatch.setattr("moesim.calibration.aiconfigurator.PACKAGE", "aiconfigurator_that_nobody_has")
    with pytest.raises(InputError, match=r"not installed; pip install 'moesim\[measured\]'"):
        validate("aiconfigurator:h200_sxm")


def test_every_file_is_of_a_kind_that_the_layouts_name() -> None:
    """The names of its files are known."""
    kinds = {
        "moe",
        "wideep_context",
        "wideep_generation",
        "wideep_trtllm_eplb",
        "deepep_ll",
        "deepep_normal",
        "moe_a2a",
        "nccl",
        "gemm",
        "attention_context",
        "attention_generation",
        "mla_context",
        "mla_generation",
        "mla_bmm",
        "allreduce",
        "elementwise",
        "mlp",
    }
    assert {kind for kind, _ in FILES.values()} == kinds
