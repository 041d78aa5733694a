"""Laws of a step's kernels but the experts': none below its roofline on any GPU, none faster with more to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.calibration.gpus import published_gpus
from moesim.hardware.attention import attention_in_seconds, attention_seconds
from moesim.hardware.backends import backend_of, backends
from moesim.hardware.constants import load
from moesim.hardware.decode import DecodeConstants, decode_seconds
from moesim.hardware.dense import gemm_seconds, head_seconds, network_seconds, router_seconds
from moesim.hardware.gpu import memory_bandwidth, peak_flops
from moesim.hardware.layer_kernels import LayerKernels
from moesim.hardware.mla import MlaDecodeConstants, MlaPrefillConstants, mla_decode_seconds, mla_prefill_seconds
from moesim.hardware.mla_linear import AbsorbedConstants, absorbed_seconds
from moesim.hardware.prefill import PrefillConstants, prefill_seconds
from moesim.types import DTYPE_BYTES, GpuSpec, ModelShape, Precision
from tests.hardware.shapes import BF16, DEEPSEEK_V3, FP8, H100, MIXTRAL, work

GPUS = st.sampled_from(list(published_gpus().values()))
PRECISIONS = st.sampled_from(
    [BF16, FP8, replace(FP8, kv_cache="fp8"), replace(BF16, kv_cache="fp8"), replace(BF16, weights="fp4")]
)
PHASES = ("decode", "prefill")
TOKENS = st.one_of(st.integers(1, 300), st.integers(1, 20_000))
WIDTHS = st.integers(1, 20_000)
LENGTHS = st.one_of(st.integers(1, 300), st.integers(1, 40_000))


@st.composite
def kernels(draw: st.DrawFn, phase: str) -> LayerKernels:
    """The layers of any family in a phase."""
    return backend_of(draw(st.sampled_from(list(backends())))).layers(throttled=phase != "decode")


@st.composite
def models(draw: st.DrawFn) -> ModelShape:
    """Heads of any grouping, 64 or 128 wide, or latent attention of any number of heads."""
    if draw(st.booleans()):
        return replace(DEEPSEEK_V3, n_heads=draw(st.sampled_from([16, 24, 40, 64, 128])))
    kv_heads, share = draw(st.sampled_from([1, 2, 4, 8, 32])), draw(st.sampled_from([1, 3, 8, 16, 64]))
    width = draw(st.sampled_from([64, 96, 128]))
    return replace(MIXTRAL, n_heads=kv_heads * share, n_kv_heads=kv_heads, head_dim=width)


def roofline(gpu: GpuSpec, dtype: str, flops: float, read: float = 0.0) -> float:
    """Seconds of the published peak or of the bytes that nothing but the memory holds."""
    return max(flops / peak_flops(gpu, dtype), read / memory_bandwidth(gpu))


def product(gpu: GpuSpec, precision: Precision, rows: float, n: float, k: float) -> float:
    """The roofline of a linear layer."""
    return roofline(gpu, precision.activations, 2.0 * rows * n * k, n * k * DTYPE_BYTES[precision.weights])


def kernel_law(gpu: GpuSpec, noun: str, group: str, n: int, length: int, heads: int, share: int) -> tuple[float, float]:
    """(seconds, roofline) of a kernel of attention in a step: `n` requests or prompts of `length` tokens."""
    constants, narrow = load(noun)[group], group.endswith("fp8")
    each, kv_heads, width = (1.0 if narrow else 2.0), heads, 64 if "-64/" in group else 128
    cached, latent = DEEPSEEK_V3.kv_lora_rank + DEEPSEEK_V3.qk_rope_head_dim, DEEPSEEK_V3.kv_lora_rank
    pairs = n * length * (length + 1) / 2
    if noun == "attention_generation":
        shape: dict[str, Any] = {"heads": heads * share, "kv_heads": kv_heads, "head_width": width, "cache_bytes": each}
        took = decode_seconds(DecodeConstants(**constants), gpu, requests=n, context_tokens=length, **shape)
        flops, read = 4.0 * n * length * heads * share * width, 2.0 * n * length * kv_heads * width * each
        return float(took), roofline(gpu, "bf16", flops, read)
    if noun == "attention_context":
        shape = {"heads": heads * share, "kv_heads": kv_heads, "key_width": width, "value_width": width}
        dtype = "fp8" if narrow else "bf16"
        own: dict[str, Any] = {"prompts": n, "prompt_tokens": length, "compute": dtype, "sustained": False}
        took = prefill_seconds(PrefillConstants(**constants), gpu, **own, **shape)
        return float(took), roofline(gpu, dtype, 4.0 * width * heads * share * pairs)
    if noun == "mla_generation":
        own = {"requests": n, "context_tokens": length, "heads": heads, "cache_bytes": each}
        took = mla_decode_seconds(MlaDecodeConstants(**constants), gpu, **own)
        flops, read = 2.0 * (cached + latent) * heads * n * length, n * length * cached * each
        return float(took), roofline(gpu, "bf16", flops, read)
    if noun == "mla_context":
        own = {"prompts": n, "prompt_tokens": length, "heads": heads, "sustained": False}
        took = mla_prefill_seconds(replace(MlaPrefillConstants(**constants), host_s=0.0), gpu, **own)
        return float(took), roofline(gpu, "bf16", 2.0 * (128 + 64 + 128) * heads * pairs)
    took = absorbed_seconds(AbsorbedConstants(**constants), gpu, n, heads, 512, 128, dtype="fp8" if narrow else "bf16")
    dtype, weights = ("fp8" if narrow else "bf16"), heads * 512 * 128 * each
    return float(took), roofline(gpu, dtype, 2.0 * n * heads * 512 * 128, weights)


KERNELS = ("attention_context", "attention_generation", "mla_context", "mla_generation", "mla_bmm")
GROUPS = st.sampled_from([(noun, group) for noun in KERNELS for group in load(noun)])


@given(GPUS, GROUPS, TOKENS, LENGTHS, st.sampled_from([1, 2, 8, 16, 40, 128]), st.sampled_from([1, 3, 8, 64]))
def test_no_kernel_of_attention_is_below_its_roofline(
    gpu: GpuSpec, group: tuple[str, str], n: int, length: int, heads: int, share: int
) -> None:
    """Multiplied at the peak at best, caches and weights read from the memory, on every GPU."""
    took, least = kernel_law(gpu, *group, n, length, heads, share)
    assert took >= least


@pytest.mark.parametrize("phase", PHASES)
@given(st.data(), GPUS, PRECISIONS, TOKENS, WIDTHS, WIDTHS)
def test_no_product_is_below_its_roofline(
    phase: str, data: st.DataObject, gpu: GpuSpec, precision: Precision, tokens: int, n: int, k: int
) -> None:
    """Linear layers, and the networks and gates that are made of them."""
    layers, rows, bf16 = data.draw(kernels(phase)), np.array([tokens]), BF16
    dtypes: dict[str, Any] = {"weights": precision.weights, "activations": precision.activations, "kernels": layers}
    assert gemm_seconds(gpu, rows, n, k, **dtypes)[0] >= product(gpu, precision, tokens, n, k)
    model = replace(DEEPSEEK_V3, hidden_size=k)
    up, down = product(gpu, precision, tokens, 2 * n, k), product(gpu, precision, tokens, k, n)
    assert network_seconds(model, gpu, precision, rows, n, kernels=layers)[0] >= up + down
    assert router_seconds(model, gpu, rows, layers)[0] >= product(gpu, bf16, tokens, model.n_experts, k)
    assert head_seconds(model, gpu, rows, layers)[0] >= product(gpu, bf16, tokens, model.vocab_size, k)


@given(st.data(), GPUS, PRECISIONS, st.sampled_from([32, 64, 128, 256, 512]), WIDTHS, WIDTHS)
def test_a_row_beyond_a_power_of_two_is_one_row_more(
    data: st.DataObject, gpu: GpuSpec, precision: Precision, rows: int, n: int, k: int
) -> None:
    """Not a tile more: a product grows past it as before it, except where a library changes its tile by the rows."""
    layers = data.draw(kernels("decode"))
    dtypes: dict[str, Any] = {"weights": precision.weights, "activations": precision.activations, "kernels": layers}
    took = gemm_seconds(gpu, np.array([rows - 1, rows, rows + 1]), n, k, **dtypes)
    if not layers.linear(precision.activations).by_rows:
        assert took[2] <= took[1] * (1 + 2 / rows)


@pytest.mark.parametrize("phase", PHASES)
@given(st.data(), GPUS, PRECISIONS, models(), TOKENS, LENGTHS, LENGTHS, st.integers(1, 40))
def test_a_further_token_never_makes_a_layer_faster(
    phase: str,
    data: st.DataObject,
    gpu: GpuSpec,
    precision: Precision,
    model: ModelShape,
    tokens: int,
    context: int,
    sequence: int,
    more: int,
) -> None:
    """Nor a further cached one, by more than 1 %: attention, what comes before its kernel, networks, gate and head."""
    layers, rows = data.draw(kernels(phase)), np.array([tokens, tokens + more, tokens])
    lengths = [context, context, context + more]

    def parts(rows: int, context: int) -> list[float]:
        counts = np.array([rows])
        own = work(counts, phase, context=context, sequence=sequence)
        return [
            float(seconds[0])
            for seconds in (
                attention_seconds(model, gpu, precision, own, kernels=layers),
                attention_in_seconds(model, gpu, precision, own, kernels=layers),
                network_seconds(model, gpu, precision, counts, 2048, kernels=layers),
                router_seconds(model, gpu, counts, layers),
                head_seconds(model, gpu, counts, layers),
            )
        ]

    before, *after = (parts(int(n), length) for n, length in zip(rows, lengths, strict=True))
    assert (np.array(after) >= 0.99 * np.array(before)).all()


def test_cached_tokens_come_from_the_memory_in_a_step() -> None:
    """48 more tokens of 128 sequences of Qwen3-30B are 12.6 MB a layer, 3.75 us; replayed alone they stay in the L2."""
    constants = DecodeConstants(**load("attention_generation")["sglang/gqa-128/bfloat16"])
    shape: dict[str, Any] = {
        "requests": 128,
        "heads": 32,
        "kv_heads": 4,
        "head_width": 128,
        "cache_bytes": 2,
        "replayed": True,
    }
    model, layers = replace(MIXTRAL, hidden_size=2048, n_kv_heads=4), backend_of("sglang-bf16").layers(throttled=False)

    def within(context: int) -> float:
        return float(attention_seconds(model, H100, BF16, work([128], context=context), kernels=layers)[0])

    few, many = (float(decode_seconds(constants, H100, context_tokens=n, **shape)) for n in (16, 64))
    assert 48 * 128 * 2 * 4 * 128 * 2 / memory_bandwidth(H100) == pytest.approx(3.75e-6, rel=2e-3)
    assert 3.75e-6 <= within(64) - within(16) < 4.5e-6
    assert many - few < 1.5e-6


@pytest.mark.parametrize("group", load("attention_generation"))
def test_beyond_the_cache_a_step_takes_what_a_table_shows(group: str) -> None:
    """Where the L2 cache holds nothing when a kernel is replayed, both are the same."""
    constants = DecodeConstants(**load("attention_generation")[group])
    shape = {"context_tokens": 4096, "heads": 32, "kv_heads": 8, "head_width": 128, "cache_bytes": 2}
    for requests, same in ((1, False), (128, True)):
        alone, within = (
            float(decode_seconds(constants, H100, requests=requests, replayed=way, **shape)) for way in (True, False)
        )
        assert within == alone if same else within >= alone


def test_latent_caches_and_absorbed_weights_come_from_the_memory_in_a_step() -> None:
    """DeepSeek-V3: 16.8 MB of weights into the latent, and 9.4 MB of a cache of 16 requests."""
    weights, cache = 128 * 512 * 128 * 2, 16 * 512 * 576 * 2
    absorbed = AbsorbedConstants(**load("mla_bmm")["sglang/bmm/bfloat16"])
    decode = MlaDecodeConstants(**load("mla_generation")["sglang/wideep_module-fa3/fp8_block-bfloat16"])
    sizes: dict[str, Any] = {"requests": 16, "context_tokens": 512, "heads": 128, "cache_bytes": 2}
    for way, holds in ((False, np.greater_equal), (True, np.less)):
        products = absorbed_seconds(absorbed, H100, 16, 128, 512, 128, replayed=way) - absorbed.launch_s
        assert holds(products, weights / memory_bandwidth(H100))
        within = mla_decode_seconds(decode, H100, replayed=way, **sizes)
        assert within - mla_decode_seconds(decode, H100, replayed=True, **sizes) >= 0
    assert mla_decode_seconds(decode, H100, **sizes) > cache / memory_bandwidth(H100)


@pytest.mark.parametrize("noun", ["gemm", *KERNELS])
def test_no_share_of_a_peak_is_above_one(noun: str) -> None:
    """Of any kernel's constants."""
    for group, constants in load(noun).items():
        for share in ("compute_share", "bandwidth_share"):
            assert constants.get(share, 0.0) <= 1.0, f"{group} {share}"
