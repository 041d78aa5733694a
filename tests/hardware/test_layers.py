"""Dense layers, attention, latent attention, all-reduce: laws that hold for every group of shipped constants."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from moesim.calibration import MEASURED
from moesim.hardware.attention import attention_seconds
from moesim.hardware.constants import load
from moesim.hardware.decode import DecodeConstants, decode_seconds
from moesim.hardware.dense import network_seconds, sum_seconds
from moesim.hardware.elementwise import ElementwiseConstants, pass_seconds
from moesim.hardware.gemm import GemmConstants, product_seconds
from moesim.hardware.gpu import peak_flops, sm_loads, stream_seconds, throttling, wide_sm_efficiency
from moesim.hardware.layer_kernels import LayerKernels
from moesim.hardware.mla import MlaDecodeConstants, MlaPrefillConstants, mla_decode_seconds, mla_prefill_seconds
from moesim.hardware.mla_linear import AbsorbedConstants, absorbed_seconds, mla_projection_seconds
from moesim.hardware.prefill import PrefillConstants, mixed_seconds, prefill_seconds
from moesim.types import DTYPE_BYTES, GpuSpec, ModelShape
from tests.hardware.shapes import DEEPSEEK_V3, FP8, H100, MIXTRAL, work

TOKENS = st.integers(1, 20000)
LENGTH = st.integers(1, 20000)
HEADS = st.sampled_from([1, 2, 4, 8, 16, 24, 32, 64, 128])


def linear(c: GemmConstants, gpu: GpuSpec, *, rows: int, n: int, k: int) -> NDArray[np.float64]:
    """A dense product in the data type of its constants."""
    dtype = "bf16" if c.quantise_passes == 0 else "fp8"
    return product_seconds(c, gpu, rows, n, k, weights=dtype, activations=dtype)


def prefill(
    c: PrefillConstants, gpu: GpuSpec, *, prompts: int, length: int, heads: int, kv_heads: int
) -> NDArray[np.float64]:
    """Attention over prompts of equal length, bf16."""
    return prefill_seconds(
        c,
        gpu,
        prompts=prompts,
        prompt_tokens=length,
        heads=heads * kv_heads,
        kv_heads=kv_heads,
        key_width=128,
        value_width=128,
        compute="bf16",
    )


def decode(c: Any, gpu: Any, *, requests: Any, context: Any, heads: Any, kv_heads: Any) -> Any:
    """Attention over a cache in bf16."""
    return decode_seconds(
        c,
        gpu,
        requests=requests,
        context_tokens=context,
        heads=heads * kv_heads,
        kv_heads=kv_heads,
        head_width=128,
        cache_bytes=2.0,
    )


def latent_decode(
    c: MlaDecodeConstants, gpu: GpuSpec, *, requests: int, context: int, heads: int
) -> NDArray[np.float64]:
    """Latent attention over a cache in bf16."""
    return mla_decode_seconds(c, gpu, requests=requests, context_tokens=context, heads=heads, cache_bytes=2.0)


def latent_prefill(
    c: MlaPrefillConstants, gpu: GpuSpec, *, prompts: int, length: int, heads: int
) -> NDArray[np.float64]:
    """Latent attention over prompts of equal length."""
    return mla_prefill_seconds(c, gpu, prompts=prompts, prompt_tokens=length, heads=heads)


def absorbed(c: AbsorbedConstants, gpu: GpuSpec, *, rows: int, heads: int, n: int, k: int) -> NDArray[np.float64]:
    """The products into the latent and out of it."""
    return absorbed_seconds(c, gpu, rows, heads, n, k)


def elementwise(c: ElementwiseConstants, gpu: GpuSpec, *, rows: int, width: int) -> NDArray[np.float64]:
    """One pass over rows of a width."""
    return pass_seconds(c, gpu, np.asarray(rows, dtype=np.float64), width)


# noun: constants, the formula, sizes that no less time may come from more of, the first of which may be none
LAWS = {
    "gemm": (GemmConstants, linear, {"rows": TOKENS, "n": LENGTH, "k": LENGTH}),
    "attention_context": (
        PrefillConstants,
        prefill,
        {"prompts": st.integers(1, 300), "length": LENGTH, "heads": st.integers(1, 16), "kv_heads": HEADS},
    ),
    "attention_generation": (
        DecodeConstants,
        decode,
        {"requests": st.integers(1, 3000), "context": LENGTH, "heads": st.integers(1, 16), "kv_heads": HEADS},
    ),
    "mla_context": (
        MlaPrefillConstants,
        latent_prefill,
        {"prompts": st.integers(1, 300), "length": LENGTH, "heads": HEADS},
    ),
    "mla_generation": (
        MlaDecodeConstants,
        latent_decode,
        {"requests": st.integers(1, 3000), "context": LENGTH, "heads": HEADS},
    ),
    "mla_bmm": (AbsorbedConstants, absorbed, {"rows": TOKENS, "heads": HEADS, "n": LENGTH, "k": LENGTH}),
    "elementwise": (ElementwiseConstants, elementwise, {"rows": TOKENS, "width": LENGTH}),
}
GROUPS = [(noun, group) for noun in LAWS for group in load(noun)]


@st.composite
def cases(draw: st.DrawFn, nouns: tuple[str, ...] = tuple(LAWS)) -> tuple[Any, ...]:
    """Constants of any group, the function of its part, and sizes for it."""
    noun, group = draw(st.sampled_from([(noun, group) for noun, group in GROUPS if noun in nouns]))
    kind, seconds, sizes = LAWS[noun]
    drawn = {name: draw(values) for name, values in sizes.items()}
    return kind(**load(noun)[group]), seconds, drawn


def faster(gpu: GpuSpec, compute: float = 1.0, bandwidth: float = 1.0) -> GpuSpec:
    """A GPU with multiplied peaks, clock and memory bandwidth."""
    peaks = {dtype: compute * peak for dtype, peak in gpu.peak_tflops.items()}
    clock, moved = compute * gpu.clock_ghz, bandwidth * gpu.memory_bandwidth_gb_per_s
    return dataclasses.replace(gpu, peak_tflops=peaks, clock_ghz=clock, memory_bandwidth_gb_per_s=moved)


def quicker(
    constants: GemmConstants | MlaPrefillConstants | PrefillConstants, factor: float
) -> GemmConstants | MlaPrefillConstants | PrefillConstants:
    """The same kernel with all latencies divided."""
    latencies = {f.name: getattr(constants, f.name) / factor for f in dataclasses.fields(constants)}
    return dataclasses.replace(constants, **{name: x for name, x in latencies.items() if name.endswith("_s")})


@given(cases(), st.data(), st.integers(1, 5000))
def test_more_work_is_never_faster(case: tuple[Any, ...], data: st.DataObject, more: int) -> None:
    """One of the sizes grows."""
    constants, seconds, sizes = case
    grown = data.draw(st.sampled_from([name for name in sizes if name not in ("heads", "kv_heads")] + ["kv_heads"]))
    if grown not in sizes:
        grown = next(iter(sizes))
    before, after = seconds(constants, H100, **sizes), seconds(constants, H100, **{**sizes, grown: sizes[grown] + more})
    assert after >= before * (1 - 1e-12)


@given(cases(), st.floats(1, 4), st.floats(1, 4))
def test_a_faster_gpu_is_never_slower(case: tuple[Any, ...], compute: float, bandwidth: float) -> None:
    """Compute and bandwidth grow independently."""
    constants, seconds, sizes = case
    before = seconds(constants, H100, **sizes)
    assert seconds(constants, faster(H100, compute, bandwidth), **sizes) <= before * (1 + 1e-12)


@given(cases(), st.data())
def test_splitting_a_batch_is_never_faster(case: tuple[Any, ...], data: st.DataObject) -> None:
    """Except for what stays in the L2 cache, which a part may fit, and for menus of tiles: the best of a menu jumps by
    less than half a per cent, tiles that follow from the rows alone by a sixth. The GPU itself jumps more there.
    """
    constants, seconds, sizes = case
    name, cold = next(iter(sizes)), dataclasses.replace(H100, l2_cache_mb=1e-9)
    other = data.draw(st.integers(1, 300 if name == "prompts" else 20000))
    parts = [seconds(constants, cold, **{**sizes, name: n}) for n in (sizes[name], other)]
    jump = 1e-12
    if isinstance(constants, GemmConstants):
        jump = 0.17 if constants.by_rows else 5e-3
    assert sum(parts) >= seconds(constants, cold, **{**sizes, name: sizes[name] + other}) * (1 - jump)


def test_measured_layers_jump_where_the_tile_follows_from_the_rows() -> None:
    """Why no law of splitting holds there: two batches of 128 rows take less time than one of 256."""
    table = pd.read_parquet(MEASURED / "gemm_h100_calib.parquet")
    table = table[table["flag"].eq("") & table["framework"].eq("SGLang") & table["gemm_dtype"].eq("fp8")]
    times = table.pivot_table(index=["n", "k"], columns="m", values="latency_ms")
    assert (times[256] / (2 * times[128])).max() > 1.25


@pytest.mark.parametrize("group", load("gemm"))
def test_the_weights_of_a_tile_come_at_64_bytes_a_clock(group: str) -> None:
    """However fast the tensor cores are; on the GPU that the constants are of, that binds nowhere."""
    constants = GemmConstants(**load("gemm")[group])
    dtype = "bf16" if constants.quantise_passes == 0 else "fp8"
    sizes: dict[str, Any] = {"weights": dtype, "activations": dtype, "resident": True}
    at_once = dataclasses.replace(faster(H100, 1e6), clock_ghz=2.0)
    one_tile = product_seconds(constants, at_once, 1, 64, 7168, **sizes)
    loads = 64 * 7168 * DTYPE_BYTES[dtype] / (64 * 2.0e9) / constants.max_split
    assert loads < one_tile < loads + 5e-5
    smallest = 2 * 64 * 64 * H100.n_sms / (constants.compute_share * peak_flops(H100, dtype))
    assert smallest > 64 * DTYPE_BYTES[dtype] / sm_loads(H100)


def test_the_share_of_the_peak_fades_on_sms_that_compute_more_a_clock() -> None:
    """To 0.91 with twice the FLOP of H100's, by their width alone; narrower ones, and faster clocks, keep theirs."""
    wider = dataclasses.replace(H100, n_sms=66)
    for dtype in ("bf16", "fp8"):
        for same in (H100, faster(H100, 2.0), dataclasses.replace(H100, n_sms=264)):
            assert wide_sm_efficiency(same, dtype) == pytest.approx(1.0, abs=1e-12)
        assert wide_sm_efficiency(wider, dtype) == pytest.approx(2**-0.13)
    fp4 = dataclasses.replace(H100, peak_tflops={**H100.peak_tflops, "fp4": 2 * H100.peak_tflops["fp8"]})
    assert wide_sm_efficiency(fp4, "fp4") == pytest.approx(2**-0.13)


def test_the_power_limit_is_reached_while_a_kernel_runs() -> None:
    """Half of the loss at 1 ms, all of it in the end and under sustained load, nothing where nothing is lost."""
    busy = np.array([0.0, 1e-3, 1e3])
    assert throttling(busy, 0.2, sustained=False) == pytest.approx([1.0, 1 / 0.9, 1 / 0.8], rel=1e-5)
    assert throttling(busy, 0.2, sustained=True) == pytest.approx(1 / 0.8)
    assert throttling(busy, 0.0, sustained=True) == pytest.approx(1.0)


@pytest.mark.parametrize("group", load("gemm"))
def test_a_product_takes_longer_under_sustained_load_than_timed_alone(group: str) -> None:
    """By all that the limit takes where it is short and computes, by little where it is long."""
    constants = GemmConstants(**load("gemm")[group])
    dtype = "bf16" if constants.quantise_passes == 0 else "fp8"
    sizes: dict[str, Any] = {"weights": dtype, "activations": dtype, "resident": True}
    for rows, width in ((2048, 2048), (1 << 20, 65536)):
        alone, sustained = (
            product_seconds(constants, H100, rows, width, width, sustained=way, **sizes) for way in (False, True)
        )
        assert alone <= sustained <= alone / (1 - constants.throttle)
    assert sustained < alone * 1.01


@given(cases())
def test_nothing_to_do_takes_no_time(case: tuple[Any, ...]) -> None:
    """The first size is zero."""
    constants, seconds, sizes = case
    assert seconds(constants, H100, **{**sizes, next(iter(sizes)): 0}) == 0


@given(cases(), st.floats(1.1, 8))
def test_a_gpu_with_all_times_divided_divides_the_time(case: tuple[Any, ...], factor: float) -> None:
    """Constants in seconds are divided as well."""
    # peak and bandwidth in inverse seconds, latencies in seconds: nothing else has a unit of time
    constants, seconds, sizes = case
    took = seconds(quicker(constants, factor), faster(H100, factor, factor), **sizes)
    assert took * factor == pytest.approx(seconds(constants, H100, **sizes), rel=1e-9)


def test_bytes_that_fit_the_cache_are_faster() -> None:
    """Half the L2 is read at twice the speed of memory."""
    # half of the cache stays in it, all of twice the cache does not
    cache = H100.l2_cache_mb * 2**20
    half, twice = stream_seconds(H100, np.array([cache / 2, 2 * cache]), 1.0, 2.0)
    assert half == pytest.approx(cache / 2 / 2 / 3352e9)
    assert twice == pytest.approx(2 * cache / 3352e9)


def test_a_prompt_visits_the_blocks_below_its_diagonal() -> None:
    """Four blocks alone; 1,320 prompts fill the SMs 100 times."""
    # one head, no latencies: 4 tiles visit 1 + 2 + 3 + 4 blocks on one SM's share, or the last visits 4 alone
    c = PrefillConstants(
        launch_s=0.0,
        unit_s=0.0,
        compute_share=1.0,
        bandwidth_share=1e9,
        score_s=0.0,
        longest_units=0.0,
        kv_passes=1.0,
        cache_speedup=1.0,
        window_blocks=0.0,
        packs=0.0,
    )
    block = 2 * 256 * 128 * 128 / (989.4e12 / 132)
    one = prefill(c, H100, prompts=1, length=512, heads=1, kv_heads=1)
    many = prefill(c, H100, prompts=1320, length=512, heads=1, kv_heads=1)
    assert one == pytest.approx(4 * block, rel=1e-6)
    assert many == pytest.approx(100 * block, rel=1e-6)


def test_a_window_bounds_the_blocks() -> None:
    """Twice the prompt takes twice the time with a window, and more than thrice without."""
    c = dataclasses.replace(
        PrefillConstants(**load("attention_context")["sglang/gqa-64/bfloat16"]), launch_s=0.0, window_blocks=0.0
    )
    common: dict[str, Any] = {"prompts": 64.0, "heads": 32.0, "kv_heads": 8.0, "key_width": 64.0, "value_width": 64.0}
    common |= {"compute": "bf16"}
    full, windowed = (
        prefill_seconds(c, H100, prompt_tokens=np.array([4096.0, 8192.0]), window=w, **common) for w in (0.0, 128.0)
    )
    assert (windowed < full).all()
    assert windowed[1] / windowed[0] == pytest.approx(2, rel=0.02)
    assert full[1] / full[0] > 3


def test_a_short_prompt_beside_others_is_one_launch() -> None:
    """It costs less than a launch of its own."""
    kernels = LayerKernels()
    c = kernels.prefill(MIXTRAL, FP8)
    common: dict[str, Any] = {"heads": 32, "kv_heads": 8, "key_width": 128, "value_width": 128, "compute": "bf16"}
    lengths: dict[str, Any] = {"prompts": np.array([3, 1]), "prompt_tokens": np.array([4096, 1000])}
    together = mixed_seconds(c, H100, **lengths, **common)
    apart = prefill_seconds(c, H100, prompts=3, prompt_tokens=4096, **common) + prefill_seconds(
        c, H100, prompts=1, prompt_tokens=1000, **common
    )
    assert prefill_seconds(c, H100, prompts=3, prompt_tokens=4096, **common) < together < apart


def test_latent_attention_works_in_the_latent() -> None:
    """Decode saves the up-projection of keys and values."""
    # the projections of DeepSeek-V3: in decode all but the keys' and values' up-projection
    c = LayerKernels().linear("bf16")
    common: dict[str, Any] = {"weights": "bf16", "activations": "bf16"}
    with_up, without = (
        mla_projection_seconds(c, H100, 64.0, 128.0, absorbed=absorbed, **common) for absorbed in (False, True)
    )
    assert with_up - without == pytest.approx(
        float(product_seconds(c, H100, 64.0, 128.0 * 256, 512.0, sustained=False, **common)), rel=1e-9
    )


@pytest.mark.parametrize("framework", ["trtllm", "sglang", "vllm"])
@pytest.mark.parametrize("model", [MIXTRAL, DEEPSEEK_V3])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_more_gpus_share_the_heads_and_the_width(framework: str, model: ModelShape, phase: str) -> None:
    """Eight GPUs take less time than one, in every framework."""
    kernels, tokens = LayerKernels(framework=framework), np.array([64, 4096])
    own = work(tokens, phase, sequence=2048)
    whole, part = (attention_seconds(model, H100, FP8, own, tensor_parallel=n, kernels=kernels) for n in (1, 8))
    assert (part < whole).all()
    whole, part = (network_seconds(model, H100, FP8, tokens, 16384, tensor_parallel=n, kernels=kernels) for n in (1, 8))
    assert (part < whole).all()
    assert (sum_seconds(model, H100, tokens, 8, kernels) > 0).all()
    assert not sum_seconds(model, H100, tokens, 1, kernels).any()


def test_constants_of_ones_own_come_before_the_shipped() -> None:
    """Groups that are not one's own stay as shipped."""
    mine = {"gemm": {"trtllm/cublas/bfloat16": {**load("gemm")["trtllm/cublas/bfloat16"], "launch_s": 1.0}}}
    assert LayerKernels(constants=mine).linear("bf16").launch_s == 1.0
    assert LayerKernels(constants=mine).decode(MIXTRAL, FP8) == LayerKernels().decode(MIXTRAL, FP8)
