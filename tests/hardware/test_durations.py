"""Durations of the other parts: shapes, hand-worked bounds, zero tokens, monotonicity."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.hardware import Durations, step_durations
from moesim.hardware.attention import attention_seconds
from moesim.hardware.dense import gemm_seconds
from moesim.hardware.gemm import GemmConstants, product_seconds
from moesim.hardware.gpu import peak_flops, without_sms
from moesim.hardware.p_norm import p_norm
from moesim.types import ModelShape, Precision
from tests.hardware.shapes import BF16, DEEPSEEK_V3, FP8, H100, MIXTRAL, cluster, work

TIMED = ("attention", "router", "dense", "shared_experts", "experts", "head")


def durations(
    model: ModelShape,
    precision: Precision,
    tokens: list[int],
    phase: str = "decode",
    context: int = 4096,
    sequence: int = 4096,
) -> Durations:
    """A step on as many GPUs as there are numbers of tokens, four tokens in every slot."""
    n_layers, n_experts = len(model.moe_layers), model.n_experts
    slots = np.full((n_layers, n_experts), 4, dtype=np.int64) * (max(tokens) > 0)
    return step_durations(
        model,
        cluster(1, len(tokens)),
        precision,
        work(tokens, phase, context=context, sequence=sequence),
        slot_tokens=slots,
        slot_rank=(np.arange(n_experts) % len(tokens)).astype(np.int32),
    )


def attention(
    model: ModelShape,
    precision: Precision,
    tokens: int,
    phase: str = "decode",
    context: int = 4096,
    sequence: int = 4096,
) -> float:
    """Seconds of attention of one layer on one GPU."""
    own = work([tokens], phase, context=context, sequence=sequence)
    return float(attention_seconds(model, H100, precision, own)[0])


@pytest.mark.parametrize("model, precision", [(MIXTRAL, BF16), (DEEPSEEK_V3, FP8)])
@pytest.mark.parametrize("phase", ["decode", "prefill", "train"])
def test_shapes_and_types(model: ModelShape, precision: Precision, phase: str) -> None:
    """Every part has a row of each layer that it is in, and a column of each GPU."""
    made = durations(model, precision, [64, 0, 128, 64], phase)
    for part in TIMED:
        values = getattr(made, part)
        assert values.dtype == np.float64
        n_rows = {"experts": len(model.moe_layers)}.get(part, len(model.layers))
        assert values.shape == ((4,) if part == "head" else (n_rows, 4))
        assert np.all(np.isfinite(values))
    for attention in made.attention:
        assert attention[0] == attention[3] < attention[2]
    assert not made.attention[:, 1].any()
    assert not made.router[:, 1].any()
    assert made.head[1] == 0


@pytest.mark.parametrize("model, precision", [(MIXTRAL, BF16), (DEEPSEEK_V3, FP8)])
def test_decode_with_an_empty_cache_is_decode(model: ModelShape, precision: Precision) -> None:
    """A token reads itself; it is not the prompt that tokens make up together."""
    empty, one = (attention(model, precision, 2048, context=context, sequence=128) for context in (0, 1))
    assert empty == one == attention(model, precision, 2048, context=0, sequence=4096)


def test_absent_parts_are_zero() -> None:
    """Mixtral has neither dense layers nor shared experts."""
    made = durations(MIXTRAL, BF16, [64] * 8)
    assert not made.dense.any()
    assert not made.shared_experts.any()


@pytest.mark.parametrize("phase", ["decode", "prefill", "train"])
def test_no_tokens_take_no_time(phase: str) -> None:
    """No part of a step without tokens takes any."""
    made = durations(DEEPSEEK_V3, FP8, [0, 0], phase)
    assert not any(getattr(made, part).any() for part in TIMED)


def test_gemm_by_hand() -> None:
    """Compute, weights, tiles and launch of one product, each worked out."""
    # no split, no quantisation: 65 rows are two tiles of 64, and 2 x 16 tiles find an SM each
    constants = GemmConstants(
        launch_s=3e-6,
        per_k_s=0.5e-9,
        compute_share=0.7,
        bandwidth_share=0.9,
        tile_s=1e-7,
        split_s=0.0,
        max_split=1.0,
        widest_tile=64.0,
        by_rows=0.0,
        activation_passes=1.0,
        quantise_passes=0.0,
        quantise_row_s=0.0,
        cache_speedup=1.0,
        norm=4.0,
    )
    took = product_seconds(constants, H100, np.array([65]), 1024, 4096, weights="bf16", activations="bf16")[0]
    compute = 2 * 64 * 64 * 4096 / (0.7 * 989.4e12 / 132) + 1e-7
    stream = 2 * (1024 * 4096 + 65 * (4096 + 1024)) / (0.9 * 3352e9)
    assert took == pytest.approx(3e-6 + 4096 * 0.5e-9 + (compute**4 + stream**4) ** 0.25, rel=1e-12)


def test_join_lies_between_maximum_and_sum() -> None:
    """Norm 2 of 3 and 4 is 5."""
    a, b = np.array([0.0, 3.0, 1.0]), np.array([0.0, 4.0, 0.0])
    assert p_norm(a, b, 2.0) == pytest.approx([0.0, 5.0, 1.0])


def test_decode_reads_the_cache() -> None:
    """Twice the context takes as much longer as its bytes take from memory."""
    # doubling the context adds the bytes of the cache at 0.92 of the bandwidth, far from the compute bound
    one, two = (attention(MIXTRAL, BF16, 256, context=c) for c in (8192, 16384))
    cache = 256 * 8192 * 2 * 8 * 128 * 2
    assert two - one == pytest.approx(cache / (0.92 * 3352e9), rel=0.05)


def test_mla_decode_has_both_terms() -> None:
    """It is bound by the operations in the latent and by the bytes of the cache."""
    # 2 (576 + 512) FLOPs a head against 1,152 bytes a cached token
    one, two = (attention(DEEPSEEK_V3, FP8, 128, context=c) for c in (8192, 16384))
    cached = 128 * 8192
    flops, cache = cached * 128 * 2 * (576 + 512), cached * 1152
    assert two - one >= flops / 989.4e12
    assert two - one >= cache / 3352e9
    assert two - one < 1.3 * (flops / (0.6 * 989.4e12) + cache / (0.83 * 3352e9))


def test_prefill_counts_causal_blocks_of_each_prompt() -> None:
    """Four short prompts visit a quarter of the blocks of a long one."""
    # the quadratic part of one prompt of 16,384 is about 16 times that of 4,096, but 4 times that of four of 4,096
    base = attention(MIXTRAL, BF16, 16384, "prefill", sequence=128)
    long = attention(MIXTRAL, BF16, 16384, "prefill", sequence=16384) - base
    short = attention(MIXTRAL, BF16, 16384, "prefill", sequence=4096) - base
    assert long / short == pytest.approx(4.0, rel=0.05)


def test_head_of_prefill_serves_the_last_token_of_each_prompt() -> None:
    """8,192 tokens are two prompts, and training serves all."""
    assert durations(MIXTRAL, BF16, [8192], "prefill").head == durations(MIXTRAL, BF16, [2], "train").head
    assert durations(MIXTRAL, BF16, [8192], "train").head > durations(MIXTRAL, BF16, [8192], "prefill").head


@given(st.sampled_from(["decode", "prefill", "train"]), st.integers(0, 20000), st.integers(1, 4000))
def test_more_tokens_are_never_faster(phase: str, tokens: int, more: int) -> None:
    """In no part, phase or model."""
    for model, precision in ((MIXTRAL, BF16), (DEEPSEEK_V3, FP8)):
        made = durations(model, precision, [tokens, tokens + more], phase, sequence=1000)
        for part in ("attention", "router", "dense", "shared_experts", "head"):
            values = getattr(made, part)
            assert (values[..., 1] >= values[..., 0]).all(), part


@given(st.integers(1, 30000), st.integers(1, 30000))
def test_longer_contexts_are_never_faster(context: int, more: int) -> None:
    """Attention over keys and values, and in the latent."""
    for model in (MIXTRAL, DEEPSEEK_V3):
        assert attention(model, BF16, 64, context=context + more) >= attention(model, BF16, 64, context=context)


def test_a_type_without_a_peak_computes_in_the_next_wider_one() -> None:
    """H100 computes fp4 as fp8 and int8 as bf16; fp32 has none."""
    assert peak_flops(H100, "fp4") == 1978.9e12
    assert peak_flops(H100, "int8") == 989.4e12
    with pytest.raises(InputError, match="no peak for fp32"):
        peak_flops(H100, "fp32")


def test_a_published_decode_step_is_in_reach() -> None:
    """The bounds are of a published profile."""
    # DeepSeek's profile: 128 requests a GPU, 4,096 cached tokens; attention of 61 layers must be 5 to 40 ms
    assert 5e-3 < 61 * attention(DEEPSEEK_V3, FP8, 128) < 40e-3
    slower = dataclasses.replace(H100, memory_bandwidth_gb_per_s=1000)
    tokens = np.array([128])
    common: dict[str, Any] = {"weights": "fp8", "activations": "fp8"}
    assert gemm_seconds(slower, tokens, 7168, 7168, **common) > gemm_seconds(H100, tokens, 7168, 7168, **common)


def test_sms_that_a_collective_holds_slow_down_what_computes_but_not_what_streams() -> None:
    """Many rows compute, one streams."""
    # 24 of 132 held: a product of many rows takes 132 / 108 times as long, one row, which streams weights, as before
    left = without_sms(H100, 24)
    many, one = (
        [
            gemm_seconds(gpu, np.array([rows]), 16384, 16384, weights="bf16", activations="bf16")[0]
            for gpu in (H100, left)
        ]
        for rows in (65536, 1)
    )
    assert many[1] / many[0] == pytest.approx(132 / 108, rel=0.02)
    assert one[1] / one[0] == pytest.approx(1, abs=0.02)
    assert without_sms(H100, 0) is H100


@pytest.mark.parametrize("model, precision", [(MIXTRAL, BF16), (DEEPSEEK_V3, FP8)])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_what_comes_before_the_kernel_is_a_part_of_attention(
    model: ModelShape, precision: Precision, phase: str
) -> None:
    """It is positive where there are tokens, and below the whole."""
    made = durations(model, precision, [64, 0, 128, 64], phase)
    assert (made.attention_in <= made.attention).all()
    assert (made.attention_in[:, [0, 2, 3]] > 0).all()
    assert not made.attention_in[:, 1].any()
