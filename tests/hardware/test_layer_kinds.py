"""Kinds of layers of recent models, by hand: weights, caches, states and what a step charges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim.errors import TooLargeError
from moesim.hardware import check_memory, memory_bytes, parameter_count, part_bytes, step_durations
from moesim.hardware.attention import attention_in_seconds, attention_seconds
from moesim.hardware.dense import elementwise_seconds, gemm_seconds
from moesim.hardware.gpu import memory_bandwidth
from moesim.hardware.layer_kernels import LayerKernels
from moesim.hardware.sizes import cache_bytes, projections
from moesim.types import LayerChange, LayerShape, ModelShape
from tests.builders import model
from tests.hardware.shapes import BF16, FP8, H100, cluster, work

KERNELS = LayerKernels()
MAMBA_2: dict[str, Any] = {
    "attention": "mamba2",
    "linear_key_heads": 2,
    "linear_value_heads": 8,
    "linear_key_dim": 32,
    "linear_value_dim": 64,
    "conv_kernel": 4,
}
MAMBA_1: dict[str, Any] = {
    "attention": "mamba",
    "linear_key_heads": 1,
    "linear_value_heads": 512,
    "linear_key_dim": 16,
    "linear_value_dim": 1,
    "conv_kernel": 4,
    "dt_rank": 24,
}
LIGHTNING: dict[str, Any] = {
    "attention": "lightning",
    "linear_key_heads": 4,
    "linear_value_heads": 4,
    "linear_key_dim": 64,
    "linear_value_dim": 64,
}
COMPRESSED: dict[str, Any] = {
    "attention": "compressed",
    "n_kv_heads": 1,
    "head_dim": 128,
    "q_lora_rank": 96,
    "o_groups": 2,
    "o_lora_rank": 80,
    "window": 128,
    "compress_ratio": 4,
    "index_heads": 8,
    "index_head_dim": 32,
    "index_top_k": 64,
}
KINDS: dict[str, dict[str, Any]] = {
    "mamba2": MAMBA_2,
    "mamba": MAMBA_1,
    "lightning": LIGHTNING,
    "conv": {"attention": "conv", "conv_kernel": 3},
    "compressed": COMPRESSED,
    "cross": {"cross_attention": True},
    "k_eq_v": {"k_eq_v": True},
    "values": {"v_head_dim": 32},
    "latent queries": {"q_lora_rank": 48},
}


def layer(**changes: Any) -> LayerShape:
    """A layer of the small model: hidden 256, 4 heads and 2 of keys and values, 64 wide."""
    return model(n_layers=1, **changes).layers[0].shape


def attention_weights(**changes: Any) -> int:
    """Parameters of attention of a layer."""
    return sum(n * k for n, k in projections(layer(**changes)))


def kept(context: int, **changes: Any) -> float:
    """Bytes that one decoding sequence keeps in a layer, in bf16."""
    return float(cache_bytes(layer(**changes), BF16, work([1], context=context))[0])


# -- weights


@pytest.mark.parametrize(
    "kind, weights",
    [
        # in: values and gates of 512, keys and queries of two groups of 32, a gate a head; convolved: all but the gates
        ("mamba2", 256 * (2 * 512 + 2 * 64 + 8) + 4 * (512 + 2 * 64) + 512 * 256),
        # in: values and gates of 512; of the values: 24 for the time step, 16 for key and query each
        ("mamba", 256 * 2 * 512 + 512 * (24 + 2 * 16) + 24 * 512 + 4 * 512 + 512 * 256),
        ("lightning", 4 * 256 * 256 + 256 * 256),
        ("conv", 3 * 256 * 256 + 3 * 256 + 256 * 256),
        (
            "compressed",
            256 * (96 + 128 + 4 * 128)  # the queries' latent, the vector of a token, parts of the compressed ones
            + 96 * 4 * 128
            + 80 * 4 * 128  # each of two groups: 80 outputs of two heads
            + 256 * 2 * 80
            + (8 * 32 * 96 + 4 * 32 * 256 + 8 * 256),  # the indexer
        ),
        ("cross", 2 * 256 * 64 * (4 + 2 + 2 + 4)),
        ("k_eq_v", 256 * 64 * (4 + 2 + 4)),
        ("values", 256 * (64 * (4 + 2) + 32 * (2 + 4))),
        ("latent queries", 256 * (48 + 64 * 4) + 48 * 256 + 256 * 256),
    ],
)
def test_weights_of_attention_by_hand(kind: str, weights: int) -> None:
    """Hidden 256; 4 heads, 2 of keys and values, 64 wide unless a kind says otherwise."""
    assert attention_weights(**KINDS[kind]) == weights


def test_a_layer_may_have_attention_alone_or_a_network_alone() -> None:
    """As the blocks of Nemotron-H: neither has weights of the other."""
    found = model(
        n_layers=3,
        dense_layers=(0, 2),
        attention="absent",
        changes=(LayerChange(indices=(0, 2), fields={**MAMBA_2, "feed_forward": False}),),
    )
    mixer, network = found.layers
    assert (mixer.indices, mixer.shape.n_experts, mixer.shape.intermediate_size) == ((0, 2), 0, 0)
    assert (network.indices, projections(network.shape)) == ((1,), ())
    count = parameter_count(found)
    assert count["attention"] == 2 * attention_weights(**MAMBA_2)
    assert (count["dense"], count["experts"]) == (0, 4 * 3 * 256 * 512)


def test_tied_embeddings_and_encoders_of_images_are_counted_once() -> None:
    """Both are active in every count of publishers."""
    count = parameter_count(model(tied_embeddings=True, vision_parameters=5000))
    assert (count["embeddings"], count["vision"]) == (1000 * 256, 5000)
    assert count["total"] - count["active"] == 2 * 2 * 3 * 256 * 512  # two idle experts of four in two layers


def test_experts_of_a_latent_width_have_products_into_it_and_out() -> None:
    """Experts read and write 64 elements, and so many are sent."""
    narrow = model(moe_latent_size=64)
    count = parameter_count(narrow)
    assert count["experts"] == 2 * 4 * 3 * 64 * 512
    assert count["shared"] == 2 * 2 * 256 * 64
    assert count["router"] == 2 * 256 * 4
    assert narrow.expert_hidden_size == 64


def test_experts_that_compute_nothing_have_no_weights_and_leave_others_idle() -> None:
    """Of two choices among 4 + 4 experts one computes in the mean."""
    count = parameter_count(model(router="longcat", router_parameters={"n_zero_experts": 4}))
    assert count["experts"] == 2 * 4 * 3 * 256 * 512
    assert count["router"] == 2 * 256 * 8
    assert count["total"] - count["active"] == 0.75 * count["experts"]


# -- memory


@pytest.mark.parametrize(
    "kind, elements",
    [
        ("mamba2", 2 * (8 * 32 * 64) + 3 * (512 + 128)),  # float32 is twice bf16
        ("mamba", 2 * (512 * 16) + 3 * 512),
        ("lightning", 2 * (4 * 64 * 64)),
        ("conv", 2 * 256),
        ("cross", 2 * 1000 * 2 * 2 * 64),
        ("k_eq_v", 1000 * 2 * 2 * 64),
        ("values", 1000 * 2 * (64 + 32)),
    ],
)
def test_what_a_sequence_of_a_thousand_tokens_keeps(kind: str, elements: int) -> None:
    """In elements of two bytes."""
    assert kept(1000, **KINDS[kind]) == 2 * elements


def test_compressed_attention_keeps_a_window_and_a_vector_for_four_tokens() -> None:
    """And for each of these the indexer's key in fp8 with its scale."""
    assert kept(1000, **COMPRESSED) == 2 * 128 * (128 + 250) + 250 * (32 + 4)
    assert kept(100, **{**COMPRESSED, "compress_ratio": 0, "index_top_k": 0}) == 2 * 128 * 100


def test_parts_are_stored_in_their_own_data_types() -> None:
    """Attention in bf16 beside experts in fp8 takes a byte a weight more; the router stays as it was."""
    plain, mixed = model(), model(part_dtypes={"attention": "bf16", "embeddings": "fp8"})
    each = part_bytes(mixed, FP8)
    assert (each["attention"], each["experts"], each["router"], each["embeddings"]) == (2.0, 1.0, 2.0, 1.0)

    def weights(shape: ModelShape) -> int:
        return memory_bytes(shape, cluster(1, 1), FP8, work([1]), slots_per_gpu=4)["weights"]

    count = parameter_count(plain)
    assert weights(mixed) - weights(plain) == count["attention"] - count["embeddings"]


def test_a_model_that_does_not_fit_says_all_data_types_of_its_weights() -> None:
    """Those of the experts first."""
    large = model(n_layers=2000, part_dtypes={"attention": "bf16", "shared": "bf16"})
    with pytest.raises(TooLargeError, match=r"weights [\d.,]+ GB in fp8 and bf16 with"):
        check_memory(large, cluster(1, 1), FP8, work([1]), slots_per_gpu=400)


def test_an_encoder_of_images_takes_memory_but_no_time() -> None:
    """Two bytes each parameter, in whatever type the experts are."""
    with_images = model(vision_parameters=10**9)
    needs = [
        memory_bytes(shape, cluster(1, 1), FP8, work([1]), slots_per_gpu=4)["weights"]
        for shape in (with_images, model())
    ]
    assert needs[0] - needs[1] == 2 * 10**9


# -- time


@pytest.mark.parametrize("kind", KINDS)
def test_time_grows_with_tokens_and_has_a_part_before_the_kernels(kind: str) -> None:
    """In decode and in prefill; nothing to do takes no time."""
    shape = layer(**KINDS[kind])
    for phase in ("decode", "prefill"):
        own = work([0, 8, 64, 512], phase)
        seconds = attention_seconds(shape, H100, BF16, own, kernels=KERNELS)
        before = attention_in_seconds(shape, H100, BF16, own, kernels=KERNELS)
        assert seconds[0] == before[0] == 0
        assert (np.diff(seconds) > 0).all()
        assert (before <= seconds).all()


@pytest.mark.parametrize("kind", ["mamba2", "mamba", "lightning", "conv"])
def test_a_state_costs_the_same_after_any_context(kind: str) -> None:
    """A cache does not."""
    short, long = (
        attention_seconds(layer(**KINDS[kind]), H100, BF16, work([64], context=n), kernels=KERNELS)[0]
        for n in (1000, 100_000)
    )
    assert short == long


def test_a_decode_of_compressed_attention_reads_the_window_and_the_selected_vectors() -> None:
    """128 tokens and 64 of the 25,000 compressed ones, whose keys the indexer reads."""

    def seconds(context: int) -> float:
        return float(
            attention_seconds(layer(**COMPRESSED), H100, BF16, work([512], context=context), kernels=KERNELS)[0]
        )

    more = 512 * (100_000 - 50_000) / 4 * 36 / memory_bandwidth(H100)
    assert seconds(100_000) - seconds(50_000) == pytest.approx(more, rel=0.01)


def test_a_layer_without_attention_has_the_norm_of_its_network() -> None:
    """One of attention alone has the other."""
    own = work([64])
    norm = elementwise_seconds(H100, own.group_tokens, 8.0 * 256, KERNELS)
    nothing = layer(attention="absent")
    assert attention_seconds(nothing, H100, BF16, own, kernels=KERNELS).tolist() == norm.tolist()
    assert attention_in_seconds(nothing, H100, BF16, own, kernels=KERNELS).tolist() == [0]
    alone = attention_seconds(replace(layer(), feed_forward=False), H100, BF16, own, kernels=KERNELS)
    assert alone + norm == pytest.approx(attention_seconds(layer(), H100, BF16, own, kernels=KERNELS))


def test_streams_of_the_residual_make_norms_longer() -> None:
    """Four streams are read and written instead of one."""
    own = work([4096], "prefill")
    one, four = (
        attention_seconds(replace(layer(), residual_streams=n), H100, BF16, own, kernels=KERNELS)[0] for n in (1, 4)
    )
    norms = [elementwise_seconds(H100, own.group_tokens, 8.0 * 256 * n, KERNELS)[0] for n in (1, 4)]
    assert four - one == pytest.approx(2 * (norms[1] - norms[0]))


def test_products_into_the_width_of_the_experts_come_with_the_router() -> None:
    """And the experts' own time is that of narrower ones."""
    own = work([64])

    def found(**changes: Any) -> Any:
        slots = np.full((2, 4), 32, dtype=np.int64)
        shape = model(**changes)
        return step_durations(shape, cluster(1, 1), BF16, own, slot_tokens=slots, slot_rank=np.zeros(4, np.int32))

    wide, narrow = found(), found(moe_latent_size=64)
    around = sum(
        gemm_seconds(H100, own.group_tokens, n, k, weights="bf16", activations="bf16")[0]
        for n, k in ((64, 256), (256, 64))
    )
    assert narrow.router[0, 0] - wide.router[0, 0] == pytest.approx(around, rel=0.05)
    assert narrow.experts[0, 0] < wide.experts[0, 0]
