"""Families of calibrated kernels in a whole run: what a scenario names, what suits it, what the result says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Result, Scenario, simulate
from moesim.errors import ScenarioError
from moesim.hardware import Durations, calibrated_families, default_family, families, family_of, step_durations
from moesim.hardware.constants import load
from moesim.hardware.expert import calibrated_gpu
from moesim.hardware.families import LAYERS, expert_kernel
from moesim.hardware.gemm import GemmConstants
from moesim.simulation import check
from moesim.types import Precision

BASE = """
model: olmoe-1b-7b
cluster: {gpu: h100-sxm, nodes: 1, gpus_per_node: 4}
workload: {steps: 1, tokens_per_gpu: 32}
"""


def scenario(folder: Path, **overrides: Any) -> Scenario:
    """The small scenario; dots of a field are written as __."""
    path = folder / "small.yaml"
    path.write_text(BASE)
    return Scenario.from_yaml(path, overrides={name.replace("__", "."): v for name, v in overrides.items()})


def run(folder: Path, **overrides: Any) -> Result:
    return simulate(scenario(folder, **overrides))


def precision(weights: str, activations: str) -> Precision:
    return Precision(weights=weights, activations=activations, dispatch="bf16", combine="bf16", kv_cache="bf16")


def test_the_default_suits_the_data_types(tmp_path):
    named = run(tmp_path, cluster__kernels="trtllm-bf16")
    default = run(tmp_path)
    assert default.summary["step_time_s"] == named.summary["step_time_s"]
    assert run(tmp_path, cluster__kernels="vllm-bf16").summary["step_time_s"] != named.summary["step_time_s"]
    assert run(tmp_path, cluster__kernels="none").summary["step_time_s"] == named.summary["step_time_s"]
    assert default_family(precision("fp8", "fp8")) == "sglang-deepep-fp8"
    assert default_family(precision("fp4", "bf16")) == "trtllm-mxfp4"


def test_the_result_says_whose_constants_and_what_changed(tmp_path):
    own = run(tmp_path).manifest["provenance"]["kernel times"]
    other = run(tmp_path, cluster__gpu="h200-sxm").manifest["provenance"]["kernel times"]
    assert own == "estimated: formulas with constants of trtllm-bf16 on h100-sxm"
    assert other == (
        "estimated: formulas with constants of trtllm-bf16 on h100-sxm, "
        "for h200-sxm only the published specifications changed"
    )


@pytest.mark.parametrize(
    "name, message",
    [
        ("trtllm-bf61", r"cluster\.kernels: found trtllm-bf61, wanted one of .*did you mean trtllm-bf16"),
        ("trtllm-fp8", r"cluster\.kernels: found trtllm-fp8, wanted a family for activations in bf16; .* fp8"),
    ],
)
def test_a_wrong_family_is_an_error_at_its_line(tmp_path, name, message):
    path = tmp_path / "s.yaml"
    path.write_text(BASE.replace("gpus_per_node: 4}", f"gpus_per_node: 4, kernels: {name}}}"))
    with pytest.raises(ScenarioError, match=r"s\.yaml:3:.*" + message):
        check(Scenario.from_yaml(path))


def test_resolved_scenarios_keep_the_family(tmp_path):
    kept = scenario(tmp_path, cluster__kernels="vllm-bf16").resolved()
    assert kept["cluster"]["kernels"] == "vllm-bf16"
    assert Scenario.from_dict(kept).resolved() == kept


def test_every_family_names_groups_that_are_calibrated():
    assert calibrated_families("h100-sxm") == [*families()]
    assert calibrated_families("h200-sxm") == []
    for name, family in families().items():
        assert family["summary"], name
        groups = [family[part] for part in ("experts", "experts_prefill") if part in family]
        assert set(groups) <= load("experts").keys()
        assert family.keys() <= {"summary", "experts", "experts_prefill", "router", "framework", *LAYERS}, name
        assert family.get("router", "fused") == "fused"
        for noun in LAYERS:
            shipped = load(noun)
            framework = family["framework"]
            assert any(group.startswith(f"{framework}/") for group in shipped), (name, noun)
            own = family.get(noun, framework)
            assert own in shipped or any(group.startswith(f"{own}/") for group in shipped), (name, noun)
            assert noun != "gemm" or noun not in family or own in shipped, name


def durations(folder: Path, family: str, phase: str = "decode", model: str = "olmoe-1b-7b") -> Durations:
    made = scenario(folder, model=model)
    narrow = "fp8" if "fp8" in family else "bf16"
    n_layers, n_experts = len(made.model.moe_layers), made.model.n_experts
    return step_durations(
        made.model,
        made.cluster,
        precision(narrow, narrow),
        phase=phase,
        tokens_per_gpu=np.full(4, 32),
        context_tokens=128,
        sequence_tokens=128,
        slot_tokens=np.full((n_layers, n_experts), 16),
        slot_rank=np.repeat(np.arange(4, dtype=np.int32), n_experts // 4),
        kernels=family_of(family),
    )


def test_the_router_of_fused_kernels_is_not_counted_twice(tmp_path):
    fused, apart = (durations(tmp_path, name).router[0] for name in ("sglang-fp8-block", "sglang-deepep-fp8"))
    assert fused < apart


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("model", ["mixtral-8x7b", "deepseek-v3"])
def test_a_family_has_constants_of_every_part(tmp_path, phase, model):
    ours, theirs = (durations(tmp_path, name, phase, model) for name in ("trtllm-fp8-block", "vllm-fp8-block"))
    for part in ("attention", "router", "head", "experts"):
        assert (getattr(ours, part) != getattr(theirs, part)).all(), part
    assert model != "deepseek-v3" or (ours.dense != theirs.dense).all()
    assert model != "deepseek-v3" or (ours.shared_experts != theirs.shared_experts).all()


def test_a_family_may_take_other_groups_than_its_framework(tmp_path):
    flash, infer = (
        durations(tmp_path, f"sglang-deepep-fp8{name}", model="deepseek-v3") for name in ("", "-flashinfer")
    )
    assert (flash.attention != infer.attention).all()
    assert (flash.experts == infer.experts).all()
    scaled, block = (durations(tmp_path, name, model="deepseek-v3") for name in ("trtllm-fp8", "trtllm-fp8-block"))
    assert (scaled.dense != block.dense).all()
    assert (scaled.head == block.head).all()  # bf16 in both
    kernels = family_of("trtllm-fp8").layers("prefill")
    assert kernels.linear("fp8") == GemmConstants(**load("gemm")["trtllm/cublas/fp8"])
    assert kernels.linear("bf16") == GemmConstants(**load("gemm")["trtllm/cublas/bfloat16"])


@pytest.mark.parametrize("name, dtype", [("trtllm-bf16", "bf16"), ("sglang-deepep-fp8", "fp8")])
def test_a_gpu_is_at_its_power_limit_but_in_decode(name: str, dtype: str) -> None:
    family = family_of(name)
    for phase, at_limit in (("decode", False), ("prefill", True), ("train", True)):
        linear = family.layers(phase).linear(dtype)
        experts = expert_kernel(family, calibrated_gpu(), precision(dtype, dtype), phase).constants
        assert (linear.throttle > 0) == (experts.throttle > 0) == at_limit
