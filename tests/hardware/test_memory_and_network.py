"""Parameters, memory sums and port rates, worked by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from moesim.errors import TooLargeError
from moesim.hardware import ExchangeLoad, check_memory, exchange_rates, memory_bytes, parameter_count, payload_bytes
from moesim.types import Parallelism
from tests.hardware.shapes import BF16, DEEPSEEK_V3, FP8, MIXTRAL, cluster, work

WORKLOAD: dict[str, Any] = {"work": work([64])}


def test_parameters_of_mixtral_by_hand() -> None:
    """From its widths and numbers of layers, heads and experts."""
    count = parameter_count(MIXTRAL)
    assert count["attention"] == 32 * (4096 * 4096 * 2 + 2 * 4096 * 1024)
    assert count["experts"] == 32 * 8 * 3 * 4096 * 14336
    assert count["router"] == 32 * 4096 * 8
    assert count["embeddings"] == 2 * 32000 * 4096
    assert count["dense"] == count["shared"] == 0
    assert count["total"] == pytest.approx(46.7e9, rel=0.002)


def test_parameters_of_deepseek_v3() -> None:
    """671 billion, as published."""
    assert parameter_count(DEEPSEEK_V3)["total"] == pytest.approx(671e9, rel=0.002)


def test_memory_of_mixtral_by_hand() -> None:
    """Weights, experts and cache in bytes."""
    need = memory_bytes(MIXTRAL, cluster(), BF16, slots_per_gpu=2, **WORKLOAD)
    assert need["weights"] == 2 * (32 * (4096 * 4096 * 2 + 2 * 4096 * 1024) + 32 * 4096 * 8 + 2 * 32000 * 4096)
    assert need["experts"] == 32 * 2 * 3 * 4096 * 14336 * 2
    assert need["kv_cache"] == 32 * 64 * 4096 * 2 * 8 * 128 * 2
    assert need["available"] == 72e9
    assert need["total"] == sum(need[part] for part in ("weights", "experts", "kv_cache", "activations"))


def test_cache_of_prefill_holds_the_tokens_of_the_step() -> None:
    """8,192 of them in 32 layers."""
    workload: dict[str, Any] = {"work": work([8192], "prefill")}
    need = memory_bytes(MIXTRAL, cluster(), BF16, slots_per_gpu=1, **workload)
    assert need["kv_cache"] == 32 * 8192 * 2 * 8 * 128 * 2


def test_mla_caches_one_latent() -> None:
    """576 numbers a token and layer, whatever the number of heads."""
    need = memory_bytes(DEEPSEEK_V3, cluster(8), FP8, slots_per_gpu=4, **WORKLOAD)
    assert need["kv_cache"] == 61 * 64 * 4096 * 576 * 2


def test_mixtral_fits_eight_gpus_and_not_one() -> None:
    """The error has what is needed and what there is."""
    check_memory(MIXTRAL, cluster(), BF16, slots_per_gpu=1, **WORKLOAD)
    with pytest.raises(TooLargeError) as error:
        check_memory(MIXTRAL, cluster(1, 1), BF16, slots_per_gpu=8, **WORKLOAD)
    assert str(error.value) == (
        "mixtral-8x7b does not fit in memory on 1 GPU: needs 127.8 GB (weights 93.4 GB in bf16 with 8 experts of each "
        "layer, KV cache 34.4 GB in bf16, activations 0.0 GB, exchange buffers 0.0 GB), 72.0 GB are available "
        "(90 % of the 80.0 GB of h100-sxm); take more GPUs, fewer tokens, a shorter context, fewer redundant experts "
        "or narrower weights"
    )


def test_gpus_of_experts_alone_hold_these_and_the_rows_that_they_are_sent() -> None:
    """6 GPUs with 64 tokens each; 10 have 26 experts, so that 64 x 6 x 8 choices are 307.2 rows on each."""
    need = memory_bytes(
        DEEPSEEK_V3, cluster(2), FP8, slots_per_gpu=26, n_slots=260, n_sources=6, source=False, **WORKLOAD
    )
    assert need["experts"] == 58 * 26 * 3 * 7168 * 2048
    assert need["activations"] == round(307.2 * 2 * (2 * 7168 + 3 * 2048))
    assert need["weights"] == need["kv_cache"] == 0
    assert need["total"] == need["experts"] + need["activations"]


def test_gpus_without_experts_have_no_rows_of_them() -> None:
    """What is left is the residual stream, the widest layer, which are the projections of attention, and the logits."""
    need = memory_bytes(DEEPSEEK_V3, cluster(2), FP8, slots_per_gpu=0, n_slots=260, n_sources=6, **WORKLOAD)
    assert need["experts"] == 0
    widest = 1536 + 128 * 192 + 512 + 64 + 128 * 256 + 7168
    assert need["activations"] == 64 * 2 * (2 * 7168 + widest) + 64 * 4 * 129280


def test_gpus_that_share_an_expert_all_have_its_rows() -> None:
    """Two GPUs of a rank: the tokens of both, with half the width."""
    need = memory_bytes(
        MIXTRAL, cluster(), BF16, slots_per_gpu=2, parallelism=Parallelism(expert=4, expert_tp=2), **WORKLOAD
    )
    assert need["activations"] == 64 * 2 * 2 * 4096 + 64 * 2 * 2 * 2 * (2 * 4096 + 3 * 7168) + 64 * 4 * 32000


@pytest.mark.parametrize("weights, each", [("bf16", 2.0), ("fp8", 1.0), ("fp4", 0.53125), ("int4", 0.53125)])
def test_narrow_weights_take_their_own_bytes(weights: str, each: float) -> None:
    """Embedding, head and router stay in bf16."""
    precision = dataclasses.replace(BF16, weights=weights)
    need = memory_bytes(MIXTRAL, cluster(), precision, slots_per_gpu=1, **WORKLOAD)
    assert need["experts"] == 32 * 3 * 4096 * 14336 * each
    assert need["weights"] == 32 * (4096 * 4096 * 2 + 2 * 4096 * 1024) * each + 2 * (32 * 4096 * 8 + 2 * 32000 * 4096)


def test_gpus_that_share_heads_each_have_the_products_into_the_latents() -> None:
    """Only what belongs to heads is divided."""
    alone, shared = (
        memory_bytes(
            DEEPSEEK_V3,
            cluster(),
            FP8,
            slots_per_gpu=32,
            parallelism=Parallelism(expert=8, attention_tp=n),
            **WORKLOAD,
        )["weights"]
        for n in (1, 8)
    )
    heads = 61 * (128 * 192 * 1536 + 128 * 256 * 512 + 7168 * 128 * 128)
    assert alone - shared == pytest.approx(heads * 7 / 8, rel=1e-6)


def test_replicas_count() -> None:
    """Three slots need three times the memory of one."""
    few, many = (memory_bytes(MIXTRAL, cluster(), BF16, slots_per_gpu=n, **WORKLOAD)["experts"] for n in (1, 3))
    assert many == 3 * few


@pytest.mark.parametrize("dtype, size", [("fp8", 7168 + 4 * 56 + 16), ("bf16", 14336), ("fp32", 28672)])
def test_payloads(dtype: str, size: int) -> None:
    """A token of 7,168 numbers with its scales."""
    assert payload_bytes(7168, dtype) == size


def test_port_rates_by_hand() -> None:
    """Bytes of a token over the bandwidth of each level."""
    dispatch, combine = exchange_rates(cluster(2, 4), FP8, 7168)
    assert dispatch.out_ps.shape == dispatch.in_ps.shape == (2, 8)
    # 7,408 bytes at 200 and 50 GB/s; 14,336 at 100 and 25
    assert np.unique(dispatch.out_ps[0]) == 37040
    assert np.unique(dispatch.in_ps[1]) == 148160
    assert np.unique(combine.out_ps[0]) == 143360
    assert np.unique(combine.in_ps[1]) == 573440
    assert dispatch.latency_ps.tolist() == [10_000_000, 20_000_000]
    assert combine.latency_ps.tolist() == [12_000_000, 24_000_000]
    assert dispatch.out_ps.dtype == dispatch.latency_ps.dtype == np.int64


def test_rates_are_at_least_a_picosecond() -> None:
    """However fast a link is."""
    network = dataclasses.replace(
        cluster().network, dispatch_latency_us=(0.0, 0.0), dispatch_bandwidth_gb_per_s=(1e9, 1e9)
    )
    dispatch, _ = exchange_rates(dataclasses.replace(cluster(), network=network), FP8, 16)
    assert dispatch.out_ps.min() == 1
    assert dispatch.latency_ps.min() == 1


def test_fitted_rates_follow_the_links_of_the_gpu() -> None:
    """Rates are kept by load; another GPU with the same name has its own."""
    fitted = "sglang/deepep-normal/0.5.12/{}"
    network = dataclasses.replace(
        cluster().network,
        copies="per-node",
        fitted=(fitted.format("dispatch"), fitted.format("combine")),
        dispatch_latency_us=None,
        combine_latency_us=None,
        dispatch_bandwidth_gb_per_s=None,
        combine_bandwidth_gb_per_s=None,
    )
    slow = dataclasses.replace(cluster(2), network=network)
    fast = dataclasses.replace(slow, gpu=dataclasses.replace(slow.gpu, link_gb_per_s=(900, 100)))
    load = ExchangeLoad(tokens=4096.0, top_k=8, experts=256, gpus=16)
    first, other, again = (exchange_rates(each, FP8, 7168, load)[0].out_ps for each in (slow, fast, slow))
    assert (other < first).all()
    assert (again == first).all()
