"""Models whose layers differ, by hand from their published shapes: weights, caches and what attention reads."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.hardware import memory_bytes, parameter_count, step_durations
from moesim.hardware.attention import attention_in_seconds, attention_seconds
from moesim.hardware.decode import decode_seconds
from moesim.hardware.dense import elementwise_seconds, gemm_seconds
from moesim.hardware.gpu import memory_bandwidth, peak_flops
from moesim.hardware.layer_kernels import LayerKernels
from moesim.hardware.prefill import prefill_seconds
from moesim.hardware.sizes import cache_bytes
from moesim.scenario import Scenario
from moesim.types import AttentionWork, LayerChange, LayerShape, ModelShape, Sequences, equal_decodes
from tests.builders import model
from tests.hardware.shapes import BF16, DEEPSEEK_V3, H100, MIXTRAL, cluster, work

KERNELS = LayerKernels()
DATA = os.environ.get("MOESIM_DATA")


def preset(name: str) -> ModelShape:
    """A shipped model."""
    return Scenario.from_dict({"model": name, "cluster": {"gpu": "h100-sxm", "nodes": 1, "gpus_per_node": 8}}).model


def shapes(name: str) -> list[tuple[int, LayerShape]]:
    """How many layers of each class the model has, and their shape."""
    return [(len(each.indices), each.shape) for each in preset(name).layers]


def around(layer: LayerShape, own: AttentionWork, outputs: int, inner: int) -> float:
    """Two norms and the products before and after the kernels of heads, seconds."""
    dtypes = {"weights": "bf16", "activations": "bf16"}
    products = (
        gemm_seconds(H100, own.group_tokens, n, k, kernels=KERNELS, **dtypes)  # type: ignore[arg-type]
        for n, k in ((outputs, layer.hidden_size), (layer.hidden_size, inner))
    )
    norms = 2 * elementwise_seconds(H100, own.group_tokens, 8.0 * layer.hidden_size, KERNELS)
    return float(norms[0] + sum(each[0] for each in products))


# -- classes


def test_a_plain_model_has_one_class_or_two() -> None:
    """Mixtral's layers are alike; the first of DeepSeek-V3 are dense."""
    (only,) = MIXTRAL.layers
    assert only.indices == tuple(range(32))
    assert (only.shape.n_experts, only.shape.intermediate_size) == (8, 0)
    dense, moe = DEEPSEEK_V3.layers
    assert (dense.indices, moe.indices) == ((0, 1, 2), tuple(range(3, 61)))
    assert (dense.shape.n_experts, dense.shape.top_k, dense.shape.intermediate_size) == (0, 0, 18432)
    assert DEEPSEEK_V3.class_of_layer.tolist() == [0] * 3 + [1] * 58
    assert DEEPSEEK_V3.shared_layers == DEEPSEEK_V3.moe_layers == tuple(range(3, 61))


def test_the_last_change_of_a_layer_counts_and_equal_layers_are_one_class() -> None:
    """Whatever the order in which changes name them."""
    changes = (
        LayerChange(every=2, fields={"window": 64}),
        LayerChange(first=2, every=4, fields={"window": 0}),
        LayerChange(first=1, fields={"head_dim": 64}),  # what they have already
    )
    windowed, full = model(n_layers=6, changes=changes).layers
    assert (windowed.indices, windowed.shape.window) == ((0, 4), 64)
    assert (full.indices, full.shape.window) == ((1, 2, 3, 5), 0)


@pytest.mark.parametrize(
    "name, classes",
    [
        ("gpt-oss-120b", [(18, "gqa", 128, 0, 128), (18, "gqa", 0, 0, 128)]),
        ("llama-4-scout", [(36, "gqa", 0, 8192, 16), (12, "gqa", 0, 0, 16)]),
        # every second layer has experts, every fourth attends to all: each fourth has both
        ("llama-4-maverick", [(24, "gqa", 0, 8192, 0), (12, "gqa", 0, 8192, 128), (12, "gqa", 0, 0, 128)]),
        ("qwen3-next-80b-a3b", [(36, "linear", 0, 0, 512), (12, "gqa", 0, 0, 512)]),
    ],
)
def test_classes_of_published_models(name: str, classes: list[tuple[int, str, int, int, int]]) -> None:
    """Number of layers, attention, window, chunk and experts of each class."""
    assert [(n, each.attention, each.window, each.chunk, each.n_experts) for n, each in shapes(name)] == classes


# -- weights


def test_weights_of_maverick_by_hand() -> None:
    """24 layers of 128 experts and a shared one of 8,192, 24 of a network of 16,384, attention of 40 and 8 heads."""
    count = parameter_count(preset("llama-4-maverick"))
    assert count["attention"] == 48 * 5120 * (40 + 2 * 8 + 40) * 128
    assert count["experts"] == 24 * 128 * 3 * 5120 * 8192
    assert count["shared"] == 24 * 3 * 5120 * 8192
    assert count["dense"] == 24 * 3 * 5120 * 16384


def test_weights_of_qwen3_next_by_hand() -> None:
    """A layer of the delta rule: queries and keys of 16 heads, values and gates of 32, each 128 wide, and a output."""
    keys, values = 16 * 128, 32 * 128
    linear = 2048 * (2 * keys + 2 * values + 2 * 32) + 4 * (2 * keys + values) + values * 2048
    full = 2048 * 256 * (2 * 16 + 2 * 2) + 16 * 256 * 2048
    assert parameter_count(preset("qwen3-next-80b-a3b"))["attention"] == 36 * linear + 12 * full


@pytest.mark.parametrize(
    "name, total, routed",
    [
        ("gpt-oss-120b", 116829156672, 36 * 128 * 3 * 2880 * 2880),
        ("llama-4-maverick", 400711848960, 386547056640),
        ("qwen3-next-80b-a3b", 79674391296, 77309411328),
    ],
)
def test_weights_are_those_of_the_checkpoints(name: str, total: int, routed: int) -> None:
    """Sums over all tensors of the checkpoints; what is missing are norms, and biases of gpt-oss."""
    count = parameter_count(preset(name))
    assert count["experts"] == routed
    assert 0 <= 1 - count["total"] / total < 4e-4


@pytest.mark.skipif(DATA is None, reason="needs MOESIM_DATA")
def test_an_indexer_has_the_weights_that_v3_2_has_more_than_v3() -> None:
    """By the parameters of both published configurations."""
    folder = Path(DATA or "") / "configs"
    counts = json.loads((folder / "parameters.json").read_text())
    more = counts["infersim__deepseek_v3.2"]["total"] - counts["aic__deepseek-ai--DeepSeek-R1"]["total"]
    sparse = replace(DEEPSEEK_V3, index_heads=64, index_head_dim=128, index_top_k=2048)
    found = parameter_count(sparse)["attention"] - parameter_count(DEEPSEEK_V3)["attention"]
    assert found == 61 * (64 * 128 * 1536 + 128 * 7168 + 64 * 7168)
    assert found == pytest.approx(more, rel=1e-4)


# -- caches


@pytest.mark.parametrize("context, windowed", [(100, 100), (5000, 128)])
def test_a_window_keeps_no_more_tokens(context: int, windowed: int) -> None:
    """gpt-oss: 8 heads of 64, keys and values in bf16, 2 KiB a token and layer; 18 layers of each kind."""
    need = memory_bytes(preset("gpt-oss-120b"), cluster(), BF16, work([3], context=context), slots_per_gpu=16)
    assert need["kv_cache"] == 3 * 18 * (context + windowed) * 2048


@pytest.mark.parametrize("context, kept", [(8000, 8000), (20000, 8192)])
def test_a_chunk_keeps_no_more_tokens(context: int, kept: int) -> None:
    """Scout: 8 heads of 128, 4 KiB a token and layer; 36 layers attend within chunks."""
    need = memory_bytes(preset("llama-4-scout"), cluster(), BF16, work([2], context=context), slots_per_gpu=2)
    assert need["kv_cache"] == 2 * (36 * kept + 12 * context) * 4096


def test_a_state_has_one_size() -> None:
    """Qwen3-Next: 32 states of 128 x 128 in float32 and 3 tokens of 8,192 channels; 2 KiB a token of full attention."""
    state = 4 * 32 * 128 * 128 + 2 * 3 * (2 * 16 + 32) * 128
    for context in (10, 10_000):
        own = work([5], context=context)
        need = memory_bytes(preset("qwen3-next-80b-a3b"), cluster(), BF16, own, slots_per_gpu=64)
        assert need["kv_cache"] == 5 * (36 * state + 12 * context * 2 * 2 * 256 * 2)


def test_an_indexer_keeps_a_key_of_every_token() -> None:
    """The cache grows by the width of one key."""
    sparse = replace(DEEPSEEK_V3, index_heads=64, index_head_dim=128, index_top_k=2048)
    (plain,), (more,) = (
        cache_bytes(each.layers[0].shape, BF16, work([1], context=5000)) for each in (DEEPSEEK_V3, sparse)
    )
    assert plain == 5000 * 576 * 2
    assert more - plain == 5000 * (128 + 4)


# -- what attention takes


@pytest.mark.parametrize("context", [100, 5000])
def test_a_windowed_decode_reads_the_window(context: int) -> None:
    """gpt-oss: as if 128 tokens, and those of a block that the window cuts, were all; below 128 nothing is cut."""
    (_, windowed), (_, full) = shapes("gpt-oss-120b")
    constants = KERNELS.decode(windowed, BF16)
    own = work([64], context=context)
    sizes: dict[str, Any] = {"requests": 64.0, "heads": 64.0, "kv_heads": 8.0, "head_width": 64.0, "cache_bytes": 2.0}
    read = min(float(context), 128 + constants.window_tokens)
    kernel = float(decode_seconds(constants, H100, context_tokens=read, **sizes))
    found = [float(attention_seconds(each, H100, BF16, own, kernels=KERNELS)[0]) for each in (windowed, full)]
    assert found[0] == pytest.approx(kernel + around(windowed, own, (64 + 16) * 64, 64 * 64), rel=1e-12)
    assert (found[0] == found[1]) == (context < 128)


@pytest.mark.parametrize("length", [100, 5000])
def test_a_windowed_prompt_attends_within_the_window(length: int) -> None:
    """Prompts that are shorter than it, and longer ones."""
    (_, windowed), (_, full) = shapes("gpt-oss-120b")
    own = work([4 * length], "prefill", sequence=length)
    window = 128.0 if length > 128 else 0.0
    kernel = prefill_seconds(
        KERNELS.prefill(windowed, BF16),
        H100,
        prompts=4,
        prompt_tokens=length,
        heads=64,
        kv_heads=8,
        key_width=64,
        value_width=64,
        compute="bf16",
        window=window,
    )
    found = [float(attention_seconds(each, H100, BF16, own, kernels=KERNELS)[0]) for each in (windowed, full)]
    assert found[0] == pytest.approx(float(kernel) + around(windowed, own, (64 + 16) * 64, 64 * 64), rel=1e-12)
    assert (found[0] < found[1]) == (length > 128)


@pytest.mark.parametrize("context, seen", [(8000, 8000), (8192, 1), (20000, 20000 - 2 * 8192)])
def test_a_chunked_decode_reads_its_own_chunk(context: int, seen: int) -> None:
    """Scout's token after 20,000 is the 3,617th of the third chunk; the first of a chunk reads itself alone."""
    (_, chunked), (_, full) = shapes("llama-4-scout")
    found = attention_seconds(chunked, H100, BF16, work([16], context=context), kernels=KERNELS)
    assert found == attention_seconds(full, H100, BF16, work([16], context=seen), kernels=KERNELS)


def test_a_chunked_prompt_is_prompts_of_its_chunks() -> None:
    """20,000 tokens after 10,000: 6,384 of a chunk of which 1,808 are cached, one whole chunk, 5,424 more."""
    (_, chunked), (_, full) = shapes("llama-4-scout")
    one = sequences([(1, 20_000, 10_000)])
    cut = sequences([(1, 6384, 1808), (1, 8192, 0), (1, 5424, 0)])
    found = attention_seconds(chunked, H100, BF16, one, kernels=KERNELS)
    assert found == pytest.approx(attention_seconds(full, H100, BF16, cut, kernels=KERNELS), rel=1e-12)
    assert found < attention_seconds(full, H100, BF16, one, kernels=KERNELS)


def sequences(prompts: list[tuple[int, int, int]]) -> AttentionWork:
    """A step of one GPU with prompts of (count, new tokens, cached tokens)."""
    count, new, cached = (np.array(row, dtype=np.int64)[:, None] for row in zip(*prompts, strict=True))
    tokens = np.array([int((count * new).sum())])
    own = Sequences(count=count, new_tokens=new, cached_tokens=cached)
    return replace(equal_decodes(np.zeros(1, dtype=np.int64), 0), prompts=own, tokens=tokens, logit_rows=tokens)


@pytest.mark.parametrize("context", [10, 100_000])
def test_linear_attention_by_hand(context: int) -> None:
    """Qwen3-Next: 64 sequences read and write 2.1 MB of states each, whatever their context."""
    (_, linear), _ = shapes("qwen3-next-80b-a3b")
    own = work([64], context=context)
    keys, values = 16 * 128, 32 * 128
    state = 4 * 32 * 128 * 128 + 2 * 3 * (2 * keys + values)
    moved = 2 * 64 * state / memory_bandwidth(H100)
    assert moved > 6 * 64 * 32 * 128 * 128 / peak_flops(H100, "bf16")
    convolved = elementwise_seconds(H100, np.array([64]), 4.0 * (2 * keys + values), KERNELS)[0]
    launch = KERNELS.elementwise().launch_s
    found = float(attention_seconds(linear, H100, BF16, own, kernels=KERNELS)[0])
    expected = moved + launch + convolved + around(linear, own, 2 * keys + 2 * values + 64, values)
    assert found == pytest.approx(expected, rel=1e-12)
    assert attention_in_seconds(linear, H100, BF16, own, kernels=KERNELS)[0] < found


def test_linear_attention_of_prompts_grows_with_their_tokens_alone() -> None:
    """One long prompt takes what eight short ones take."""
    (_, linear), (_, full) = shapes("qwen3-next-80b-a3b")
    one, many = (work([65536], "prefill", sequence=n) for n in (65536, 8192))
    took = {id(own): float(attention_seconds(linear, H100, BF16, own, kernels=KERNELS)[0]) for own in (one, many)}
    assert took[id(one)] == pytest.approx(took[id(many)], rel=0.01)
    assert attention_seconds(full, H100, BF16, one) > 2 * took[id(one)]


@pytest.mark.parametrize("context", [1000, 50_000])
def test_sparse_attention_reads_what_its_indexer_selects(context: int) -> None:
    """DeepSeek-V3.2: all keys of the indexer, 132 bytes each, and 2,048 latents of as many as there are."""
    sparse = replace(DEEPSEEK_V3, index_heads=64, index_head_dim=128, index_top_k=2048)
    own, selected = work([128], context=context), work([128], context=min(context, 2048))
    plain = float(attention_seconds(DEEPSEEK_V3, H100, BF16, selected, kernels=KERNELS)[0])
    found = float(attention_seconds(sparse, H100, BF16, own, kernels=KERNELS)[0])
    scores = 128 * (context + 1) * max(132 / memory_bandwidth(H100), 2 * 64 * 128 / peak_flops(H100, "fp8"))
    products = sum(
        float(gemm_seconds(H100, np.array([128]), n, k, weights="bf16", activations="bf16", kernels=KERNELS)[0])
        for n, k in ((64 * 128, 1536), (128, 7168), (64, 7168))
    )
    assert found == pytest.approx(plain + scores + products, rel=1e-9)


# -- a whole step


def test_a_step_takes_what_each_class_takes() -> None:
    """Maverick: a dense layer has no router and no shared expert, an MoE layer no network; attention goes by chunk."""
    shape = replace(preset("llama-4-maverick"), n_experts=8)
    made = step_durations(
        shape,
        cluster(1, 8),
        BF16,
        work([64] * 8, context=20_000),
        slot_tokens=np.full((24, 8), 64),
        slot_rank=np.arange(8, dtype=np.int32),
    )
    assert made.attention.shape == (3, 8)
    assert made.experts.shape == (24, 8)
    dense, chunked, full = range(3)
    assert (made.attention[dense] == made.attention[chunked]).all()
    assert (made.attention[chunked] < made.attention[full]).all()
    assert made.dense[dense].all()
    assert not made.dense[[chunked, full]].any()
    assert not made.router[dense].any()
    assert not made.shared_experts[dense].any()
    assert (made.router[chunked] == made.router[full]).all()
    assert (made.experts == made.experts[0]).all()


def test_experts_of_other_widths_take_other_times() -> None:
    """Each second MoE layer has experts twice as wide."""
    wide = LayerChange(first=1, every=2, fields={"moe_intermediate_size": 1024})
    shape = model(n_layers=4, changes=(wide,))
    arguments = {"slot_tokens": np.full((4, 4), 50), "slot_rank": np.repeat(np.arange(2, dtype=np.int32), 2)}
    plain, made = (
        step_durations(each, cluster(1, 2), BF16, work([25, 25]), **arguments)  # type: ignore[arg-type]
        for each in (model(n_layers=4), shape)
    )
    assert (made.experts[[0, 2]] == plain.experts[[0, 2]]).all()
    assert (made.experts[[1, 3]] > plain.experts[[1, 3]]).all()
    need = memory_bytes(shape, cluster(1, 2), BF16, work([25]), slots_per_gpu=2)
    assert need["experts"] == 2 * 2 * 3 * 256 * (512 + 1024) * 2
