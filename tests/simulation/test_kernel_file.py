"""A file of constants as `cluster.kernels`: what of it is used, what the result says, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from moesim import Scenario, simulate, sweep
from moesim.calibration import Calibration
from moesim.calibration.constants_file import read_backend
from moesim.errors import ScenarioError
from moesim.hardware import ExpertKernel, expert_kernel
from moesim.hardware.backends import LAYERS
from moesim.hardware.constants import load
from moesim.simulation import check
from moesim.types import Precision
from tests.builders import network

BF16 = Precision(weights="bf16", activations="bf16", dispatch="bf16", combine="bf16", kv_cache="bf16")
FP8 = Precision(weights="fp8", activations="fp8", dispatch="fp8", combine="bf16", kv_cache="bf16")
SCENARIO = """
model: olmoe-1b-7b
cluster:
  gpu: h100-sxm
  gpus_per_node: 4
  kernels: KERNELS
workload: {steps: 1, tokens_per_gpu: 32}
"""


def write(path: Path, gpu: str = "h100-sxm", **kernels: dict[str, Any]) -> Path:
    """A file as `moesim calibrate` writes it."""
    Calibration(name="mine", gpu=gpu, source="a test", kernels=kernels, errors=pd.DataFrame()).write(path)
    return path


def group(noun: str, name: str, **changes: float) -> dict[str, Any]:
    """A shipped group of constants, changed."""
    return {name: {**load(noun)[name], **changes}}


def scenario(folder: Path, kernels: str = "mine.yaml") -> Scenario:
    """A small model with this entry for its kernels."""
    path = folder / "s.yaml"
    path.write_text(SCENARIO.replace("KERNELS", kernels))
    return Scenario.from_yaml(path)


def test_the_constants_of_a_file_replace_those_of_its_parts(tmp_path: Path) -> None:
    """A launch of one and of two seconds in each of 16 layers."""
    write(
        tmp_path / "mine.yaml",
        experts=group("experts", "trtllm/cutlass/bfloat16", launch_s=1.0),
        attention_generation=group("attention_generation", "trtllm/mha-128/bfloat16", launch_s=2.0),
    )
    mine, shipped = simulate(scenario(tmp_path)), simulate(scenario(tmp_path, "trtllm-bf16"))
    n_layers = 16
    more = mine.summary["step_time_s"]["mean"] - shipped.summary["step_time_s"]["mean"]
    assert more == pytest.approx(n_layers * 3.0, rel=1e-3)


def test_the_shipped_constants_in_a_file_change_nothing(tmp_path: Path) -> None:
    """All of them, read back from the file."""
    nouns = ("experts", "elementwise", *LAYERS)
    shipped_constants: dict[str, Any] = {noun: dict(load(noun)) for noun in nouns}
    write(tmp_path / "mine.yaml", **shipped_constants)
    mine, shipped = simulate(scenario(tmp_path)), simulate(scenario(tmp_path, "trtllm-bf16"))
    assert mine.summary["step_time_s"] == shipped.summary["step_time_s"]
    # the same for latent attention and fp8, whose families differ
    for precision in (BF16, FP8):
        assert read_backend(tmp_path / "mine.yaml", precision).parts["experts"]


def test_the_result_says_which_file_and_gpu_and_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By digest, and from the resolved scenario."""
    file = write(tmp_path / "mine.yaml", "h200-sxm", gemm=group("gemm", "trtllm/cublas/bfloat16", launch_s=1e-3))
    result = simulate(scenario(tmp_path))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert result.manifest["kernels"] == {
        "name": "mine.yaml",
        "sha256": digest,
        "gpu": "h200-sxm",
        "constants": {"gemm": ["trtllm/cublas/bfloat16"]},
    }
    said = result.manifest["provenance"]["kernel times"]
    assert said == (
        f"estimated: formulas with constants of mine.yaml on h200-sxm (gemm; sha256 {digest}), others of trtllm-bf16 "
        "on h100-sxm, for h100-sxm only the published specifications changed"
    )
    json.dumps(result.manifest)
    assert str(tmp_path) not in result.shown_yaml()
    saved = result.save(tmp_path / "saved")
    monkeypatch.chdir("/")  # the resolved scenario has the whole path
    again = simulate(Scenario.from_yaml(saved / "scenario.yaml"))
    assert again.summary == result.summary
    assert all(again.manifest[key] == result.manifest[key] for key in ("kernels", "provenance", "inputs"))


def test_the_experts_are_those_that_the_file_holds(tmp_path: Path) -> None:
    """The group is chosen by data type, and masked kernels by the network."""

    def kernel(precision: Precision, prompts: bool = False, **kernels: Any) -> ExpertKernel:
        masked = network(name="deepep-low-latency")
        family = read_backend(write(tmp_path / "k.yaml", **kernels), precision, masked)
        from moesim.calibration.gpus import published_gpus

        return expert_kernel(family, published_gpus()["h100_sxm"], precision, prompts=prompts, throttled=prompts)

    vllm = group("experts", "vllm/triton/bfloat16", launch_s=0.5)
    assert kernel(BF16, experts=vllm).name == "vllm/triton/bfloat16"
    assert kernel(BF16, experts=vllm).constants.launch_s == 0.5
    other = {"mine/own/bfloat16": vllm["vllm/triton/bfloat16"]}
    assert kernel(BF16, experts=other).constants.launch_s == 0.5
    # prefill has other experts, which the file lacks
    decode = group("experts", "sglang/deepep-decode/fp8_block", launch_s=0.5)
    assert kernel(FP8, experts=decode).constants.launch_s == 0.5
    assert kernel(FP8, True, experts=decode) == kernel(FP8, True, gemm=group("gemm", "trtllm/cublas/fp8"))


def test_layers_take_their_own_data_type_from_the_file_or_what_is_shipped(tmp_path: Path) -> None:
    """A file may have bf16 alone."""
    only_bf16 = group("gemm", "vllm/cublas/bfloat16", launch_s=0.5)
    layers = read_backend(write(tmp_path / "k.yaml", gemm=only_bf16), FP8).layers(throttled=True)
    assert layers.linear("bf16").launch_s == 0.5
    assert layers.linear("fp8").launch_s == load("gemm")["sglang/deepgemm/fp8_block"]["launch_s"]


def test_a_sweep_keeps_runs_of_another_file_apart(tmp_path: Path) -> None:
    """Resumed with another content of the same file, nothing old is taken."""
    write(tmp_path / "mine.yaml", gemm=group("gemm", "trtllm/cublas/bfloat16"))
    (tmp_path / "s.yaml").write_text(SCENARIO.replace("KERNELS", "mine.yaml") + "sweep: {grid: {seed: [0, 1]}}\n")
    times = []
    for launch in (1e-6, 1.0):
        write(tmp_path / "mine.yaml", gemm=group("gemm", "trtllm/cublas/bfloat16", launch_s=launch))
        found = sweep(Scenario.from_yaml(tmp_path / "s.yaml"), folder=tmp_path / "out", workers=1)
        times.append(found.summary["step_time_s.mean"].to_numpy())
    assert (np.array(times[1]) > times[0] + 1).all()


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "cannot be read as constants of kernels: No such file"),
        ("a: [", "cannot be read as constants of kernels"),
        ("- 1", "found list, wanted a mapping"),
        ({"name": "x"}, "gpu: found None, wanted the name of the GPU"),
        ({"gpu": "h100-sxm"}, "holds no constants"),
        ({"gpu": "h100-sxm", "collectives": {"a/b/c": {"x": 1.0}}}, "holds no constants of a part of a step"),
        ({"gpu": "h100-sxm", "gemm": {"a/b/bfloat16": {"launch_s": 1.0}}}, "gemm.a/b/bfloat16: found no per_k_s"),
        (
            {"gpu": "h100-sxm", "gemm": group("gemm", "trtllm/cublas/fp8", extra=1.0)},
            "gemm.trtllm/cublas/fp8: found extra",
        ),
        (
            {"gpu": "h100-sxm", "gemm": {"cublas": load("gemm")["trtllm/cublas/fp8"]}},
            "gemm.cublas: wanted a group framework/kernel/data type",
        ),
        (
            {"gpu": "h100-sxm", "experts": {"a/b/fp99": load("experts")["trtllm/cutlass/fp8"]}},
            "experts.a/b/fp99: wanted a group",
        ),
        (
            {"gpu": "h100-sxm", "gemm": group("gemm", "trtllm/cublas/fp8", launch_s=-1.0)},
            "launch_s: found -1.0, wanted a number of 0 or more",
        ),
        (
            {"gpu": "h100-sxm", "gemm": group("gemm", "trtllm/cublas/fp8", launch_s=float("nan"))},
            "launch_s: found nan, wanted a number",
        ),
        (
            {"gpu": "h100-sxm", "gemm": group("gemm", "trtllm/cublas/fp8", bandwidth_share=0)},
            "bandwidth_share: found 0, wanted a number above 0",
        ),
        (
            {"gpu": "h100-sxm", "experts": group("experts", "trtllm/cutlass/bfloat16", tile_low=24.0)},
            "tile_low: found 24.0, wanted a power of two",
        ),
        (
            {"gpu": "h100-sxm", "experts": group("experts", "trtllm/cutlass/fp8")},
            "found trtllm/cutlass/fp8, wanted constants for activations in bf16",
        ),
    ],
)
def test_what_a_file_lacks_is_an_error_at_the_line_of_the_scenario(
    tmp_path: Path, text: str | dict[str, Any] | None, words: str
) -> None:
    """What is wrong in the file follows."""
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    with pytest.raises(
        ScenarioError, match=r"s\.yaml:6:3: cluster\.kernels: found mine\.yaml, wanted a file"
    ) as raised:
        check(scenario(tmp_path))
    assert words in str(raised.value)
