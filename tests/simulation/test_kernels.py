"""Families of calibrated kernels in a whole run: what a scenario names, what suits it, what the result says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import Result, Scenario, simulate
from moesim.errors import ScenarioError
from moesim.hardware import (
    Durations,
    ExpertShape,
    backend_of,
    backends,
    calibrated_backends,
    default_backend,
    memory_bytes,
    step_durations,
)
from moesim.hardware.backends import LAYERS, expert_kernel
from moesim.hardware.constants import load
from moesim.hardware.dense import gemm_seconds
from moesim.hardware.durations import is_throttled
from moesim.hardware.expert import calibrated_gpu
from moesim.hardware.gemm import GemmConstants, product_seconds
from moesim.simulation import check
from moesim.types import Precision, equal_decodes, equal_prompts
from tests.builders import network as links

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
    """The result of the small scenario with these overrides."""
    return simulate(scenario(folder, **overrides))


def precision(weights: str, activations: str) -> Precision:
    """Weights and activations of these types, all else in bf16."""
    return Precision(weights=weights, activations=activations, dispatch="bf16", combine="bf16", kv_cache="bf16")


def test_the_default_suits_the_data_types(tmp_path: Path) -> None:
    """In bf16 it is TensorRT-LLM's, and vLLM's differs."""
    named = run(tmp_path, cluster__kernels="trtllm-bf16")
    default = run(tmp_path)
    assert default.summary["step_time_s"] == named.summary["step_time_s"]
    assert run(tmp_path, cluster__kernels="vllm-bf16").summary["step_time_s"] != named.summary["step_time_s"]
    assert run(tmp_path, cluster__kernels="none").summary["step_time_s"] == named.summary["step_time_s"]


@pytest.mark.parametrize(
    "weights, activations, network, family",
    [
        ("bf16", "bf16", "nvlink4-ib400", "trtllm-bf16"),
        ("fp8", "fp8", "nvlink4-ib400", "sglang-fp8-block"),
        ("fp8", "fp8", "nccl-all-gather", "sglang-fp8-block"),
        ("fp8", "fp8", "deepep-low-latency", "sglang-deepep-fp8"),
        ("fp8", "fp8", "deepep-low-latency (changed)", "sglang-deepep-fp8"),
        ("fp8", "fp8", "vllm-deepep-low-latency", "sglang-deepep-fp8"),
        ("fp8", "fp8", "deepep-normal", "sglang-deepep-fp8-normal"),
        ("int8", "int8", "nvlink4-ib400", "sglang-fp8-block"),
        ("fp4", "bf16", "deepep-low-latency", "trtllm-mxfp4"),
        ("fp4", "fp8", "nvlink4-ib400", "sglang-fp8-block"),
        ("int4", "bf16", "nvlink4-ib400", "trtllm-bf16"),
        ("fp8", "bf16", "nvlink4-ib400", "trtllm-bf16"),
    ],
)
def test_the_default_family_is_that_of_the_kernels_that_run(
    weights: str, activations: str, network: str, family: str
) -> None:
    """DeepEP's kernels run behind DeepEP alone; weights that are only stored narrow are multiplied in bf16."""
    assert default_backend(precision(weights, activations), links(name=network)) == family


@pytest.mark.parametrize("prompts", [False, True])
def test_the_masked_kernels_are_those_of_low_latency_decode(prompts: bool) -> None:
    """What DeepEP's normal exchange delivers is packed in decode and with prompts."""
    low, normal = (backend_of(f"sglang-deepep-fp8{name}").experts(prompts=prompts) for name in ("", "-normal"))
    assert normal == "sglang/deepep-prefill/fp8_block"
    assert (low == "sglang/deepep-decode/fp8_block") == (not prompts)


def test_fp8_on_one_gpu_is_faster_than_bf16(tmp_path: Path) -> None:
    """One token of Qwen3-30B-A3B has half the bytes of weights; behind no exchange nothing is masked."""
    one = {"model": "qwen3-30b-a3b", "cluster__gpus_per_node": 1, "workload__tokens_per_gpu": 1}
    narrow = {"precision__weights": "fp8", "precision__activations": "fp8"}
    wide, fp8, named = (
        run(tmp_path, **one, **more).summary["step_time_s"]["mean"]
        for more in ({}, narrow, {**narrow, "cluster__kernels": "sglang-fp8-block"})
    )
    assert fp8 == named < wide


def test_deepseek_r1_over_tensor_parallel_gpus_takes_the_contiguous_kernels(tmp_path: Path) -> None:
    """8 and 64 requests on 8 H200 take the kernels of a deployment without DeepEP, which are the faster ones there."""
    shared = {
        "model": "deepseek-v3",
        "cluster__gpu": "h200-sxm",
        "cluster__gpus_per_node": 8,
        "parallelism": {"expert": 1, "expert_tp": 8, "attention": "tensor"},
        "workload__context_tokens": 1500,
    }
    for tokens in (1, 8):
        own, masked = (
            run(tmp_path, **shared, workload__tokens_per_gpu=tokens, cluster__kernels=kernels)
            for kernels in ("none", "sglang-deepep-fp8")
        )
        assert "constants of sglang-fp8-block on" in own.manifest["provenance"]["kernel times"]
        assert own.summary["step_time_s"]["mean"] < masked.summary["step_time_s"]["mean"]


WEIGHTS_ONLY = [
    ("h100-sxm", "int4", "trtllm-bf16", 0.53125),
    ("h100-sxm", "fp4", "trtllm-mxfp4", 0.53125),
    ("a100-sxm", "fp8", "trtllm-bf16", 1.0),
]


@pytest.mark.parametrize("gpu, weights, family, each", WEIGHTS_ONLY)
def test_narrow_weights_stream_their_own_bytes(
    tmp_path: Path, gpu: str, weights: str, family: str, each: float
) -> None:
    """On a GPU with slow memory the experts take as long as their bytes, multiplied in bf16."""
    one = scenario(tmp_path, cluster__gpu=gpu, cluster__gpus_per_node=1)
    slow = dataclasses.replace(one.cluster.gpu, memory_bandwidth_gb_per_s=1.0)
    kernel = expert_kernel(backend_of(family), slow, precision(weights, "bf16"), prompts=False, throttled=False)
    streamed = 64 * 3 * 2048 * 1024 * each / (kernel.constants.bandwidth_share * 1e9)
    seconds = kernel.time(np.full(64, 1), ExpertShape.of(one.model), mean_load=1)
    assert float(seconds) == pytest.approx(streamed, rel=0.02)
    assert kernel.dtype.compute == "bf16"


@pytest.mark.parametrize("gpu, weights, family, each", WEIGHTS_ONLY)
def test_the_result_says_whose_kernels_stand_in_for_narrow_weights(
    tmp_path: Path, gpu: str, weights: str, family: str, each: float
) -> None:
    """Where no kernel was fitted for them, that of bf16 does, with fewer bytes and so in less time."""
    one = {"cluster__gpu": gpu, "cluster__gpus_per_node": 1, "workload__tokens_per_gpu": 4}
    narrow = run(tmp_path, **one, precision__weights=weights)
    said = narrow.manifest["provenance"]["kernel times"]
    assert said.startswith(f"estimated: formulas with constants of {family} on h100-sxm")
    stands_in = family == "trtllm-bf16"
    assert (f"which stand in for weights in {weights} with their own bytes" in said) == stands_in
    if stands_in:
        assert each < 2
        assert narrow.summary["step_time_s"]["mean"] < run(tmp_path, **one).summary["step_time_s"]["mean"]


def test_a_kernel_for_four_bit_weights_takes_no_others(tmp_path: Path) -> None:
    """It would be charged for unpacking what is not packed."""
    refused = r"cluster\.kernels: found trtllm-mxfp4, wanted a family for weights in bf16; .* takes weights in fp4"
    with pytest.raises(ScenarioError, match=refused):
        check(scenario(tmp_path, cluster__kernels="trtllm-mxfp4"))
    check(scenario(tmp_path, cluster__kernels="trtllm-mxfp4", precision__weights="fp4"))
    check(scenario(tmp_path, cluster__kernels="vllm-bf16", precision__weights="fp4"))


def test_gpt_oss_120b_fits_one_h100_as_it_is_published() -> None:
    """114.7 billion weights of experts in 4.25 bits are 60.9 GB, 63.7 with all others; in bf16 the error says so."""
    model = {
        "hidden_size": 2880,
        "n_layers": 36,
        "n_experts": 128,
        "top_k": 4,
        "moe_intermediate_size": 2880,
        "vocab_size": 201088,
        "n_heads": 64,
        "n_kv_heads": 8,
        "head_dim": 64,
        "router": "gpt-oss",
        "weights_dtype": "fp4",
    }
    data = {
        "model": model,
        "cluster": {"gpu": "h100-sxm", "gpus_per_node": 1},
        "workload": {"steps": 1, "tokens_per_gpu": 1, "context_tokens": 1024},
    }
    found = Scenario.from_dict(data)
    check(found)
    work = equal_decodes(np.array([1]), 1024)
    need = memory_bytes(found.model, found.cluster, found.precision, work, slots_per_gpu=128)
    assert need["experts"] == 36 * 128 * 3 * 2880 * 2880 * 17 / 32
    assert (need["weights"] + need["experts"]) / 1e9 == pytest.approx(63.7, abs=0.1)
    refused = r"does not fit in memory on 1 GPU: needs 233\.7 GB \(weights 233\.6 GB in bf16"
    with pytest.raises(ScenarioError, match=refused):
        check(Scenario.from_dict(data, overrides={"precision.weights": "bf16"}))


def test_the_result_says_whose_constants_and_what_changed(tmp_path: Path) -> None:
    """On another GPU only published specifications change."""
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
def test_a_wrong_family_is_an_error_at_its_line(tmp_path: Path, name: str, message: str) -> None:
    """Unknown names, and families for other activations."""
    path = tmp_path / "s.yaml"
    path.write_text(BASE.replace("gpus_per_node: 4}", f"gpus_per_node: 4, kernels: {name}}}"))
    with pytest.raises(ScenarioError, match=r"s\.yaml:3:.*" + message):
        check(Scenario.from_yaml(path))


def test_resolved_scenarios_keep_the_family(tmp_path: Path) -> None:
    """A resolved scenario resolves to itself."""
    kept = scenario(tmp_path, cluster__kernels="vllm-bf16").resolved()
    assert kept["cluster"]["kernels"] == "vllm-bf16"
    assert Scenario.from_dict(kept).resolved() == kept


def test_every_family_names_groups_that_are_calibrated() -> None:
    """On H100 all of them, on H200 none."""
    assert calibrated_backends("h100-sxm") == [*backends()]
    assert calibrated_backends("h200-sxm") == []
    for name, family in backends().items():
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
    """Durations of a step with the kernels of a family."""
    made = scenario(folder, model=model)
    narrow = "fp8" if "fp8" in family else "bf16"
    n_layers, n_experts, tokens = len(made.model.moe_layers), made.model.n_experts, np.full(4, 32)
    return step_durations(
        made.model,
        made.cluster,
        precision(narrow, narrow),
        equal_decodes(tokens, 128) if phase == "decode" else equal_prompts(tokens, 128),
        slot_tokens=np.full((n_layers, n_experts), 16),
        slot_rank=np.repeat(np.arange(4, dtype=np.int32), n_experts // 4),
        kernels=backend_of(family),
    )


def test_the_router_of_fused_kernels_is_not_counted_twice(tmp_path: Path) -> None:
    """It is shorter where the kernel of the experts routes."""
    fused, apart = (durations(tmp_path, name).router[0, 0] for name in ("sglang-fp8-block", "sglang-deepep-fp8"))
    assert fused < apart


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("model", ["mixtral-8x7b", "deepseek-v3"])
def test_a_family_has_constants_of_every_part(tmp_path: Path, phase: str, model: str) -> None:
    """Two frameworks differ in each of them."""
    ours, theirs = (durations(tmp_path, name, phase, model) for name in ("trtllm-fp8-block", "vllm-fp8-block"))
    for part in ("attention", "router", "head", "experts"):
        first, second = getattr(ours, part), getattr(theirs, part)
        assert (first[first > 0] != second[first > 0]).all(), part
        assert first.any()
    assert model != "deepseek-v3" or (ours.dense[0] != theirs.dense[0]).all()
    assert model != "deepseek-v3" or (ours.shared_experts[1] != theirs.shared_experts[1]).all()


def test_a_family_may_take_other_groups_than_its_framework(tmp_path: Path) -> None:
    """FlashInfer's attention beside the same experts."""
    flash, infer = (
        durations(tmp_path, f"sglang-deepep-fp8{name}", model="deepseek-v3") for name in ("", "-flashinfer")
    )
    assert (flash.attention != infer.attention).all()
    assert (flash.experts == infer.experts).all()
    scaled, block = (durations(tmp_path, name, model="deepseek-v3") for name in ("trtllm-fp8", "trtllm-fp8-block"))
    assert (scaled.dense[0] != block.dense[0]).all()
    assert (scaled.head == block.head).all()  # bf16 in both
    kernels = backend_of("trtllm-fp8").layers(throttled=True)
    assert kernels.linear("fp8") == GemmConstants(**load("gemm")["trtllm/cublas/fp8"])
    assert kernels.linear("bf16") == GemmConstants(**load("gemm")["trtllm/cublas/bfloat16"])


@pytest.mark.parametrize("name, dtype", [("trtllm-bf16", "bf16"), ("sglang-deepep-fp8", "fp8")])
def test_a_gpu_is_at_its_power_limit_but_in_decode(name: str, dtype: str) -> None:
    """Where kernels lose what they lose when timed alone: half of it after a millisecond of computing."""
    family, sizes = backend_of(name), (np.array([16384]), 8192, 8192)
    took = {}
    tokens = np.array([16384])
    steps = {
        "decode": equal_decodes(tokens, 1024),
        "prefill": equal_prompts(tokens, 1024),
        "train": equal_prompts(tokens, 1024, every_logit=True),
    }
    for phase, work in steps.items():
        assert is_throttled(work) == (phase != "decode")
        layers = family.layers(throttled=is_throttled(work))
        assert layers.throttled == is_throttled(work)
        took[phase] = gemm_seconds(calibrated_gpu(), *sizes, weights=dtype, activations=dtype, kernels=layers)
    own: dict[str, Any] = {"weights": dtype, "activations": dtype}
    alone = product_seconds(
        family.layers(throttled=False).linear(dtype), calibrated_gpu(), *sizes, sustained=False, **own
    )
    assert took["decode"] == alone < took["prefill"] == took["train"]
