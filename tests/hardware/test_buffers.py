"""The memory of exchanges, worked by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from moesim.hardware import memory_bytes
from moesim.hardware.buffers import low_latency_bytes, normal_bytes
from moesim.types import ClusterShape, Parallelism
from tests.hardware.shapes import BF16, DEEPSEEK_V3, FP8, MIXTRAL, cluster, work

WORKLOAD: dict[str, Any] = {"work": work([128])}


def over(preset: str, n_nodes: int = 1, gpus_per_node: int = 8, **changes: Any) -> ClusterShape:
    """GPUs whose exchange is that of a preset."""
    shape = cluster(n_nodes, gpus_per_node)
    return dataclasses.replace(shape, network=dataclasses.replace(shape.network, name=preset, **changes))


def test_low_latency_buffers_of_deepseek_v3_by_hand() -> None:
    """A message back has 14,336 bytes and 56 ranges of 4, which is longer than one there; four buffers of 256 x 128."""
    message = 14336 + 4 * 56
    assert low_latency_bytes(128, 7168, 256) == 4 * 256 * 128 * message + 2 * 1024 + 128
    assert low_latency_bytes(128, 7168, 256) == pytest.approx(1.91e9, rel=1e-3)


def test_normal_buffers_by_hand() -> None:
    """12 channels; a token has 14,336 bytes, 8 of its source, 128 choices of 12 and 128 scales of 4."""
    token = 14336 + 8 + 128 * 12 + 128 * 4
    inside = 12 * 8 * (256 * token + 4 * 5)
    assert normal_bytes(7168, 8, 24, 8) == -(-inside // 128) * 128
    near = 12 * 8 * (288 * token + 4 * 19)
    far = 12 * 8 * 2 * (128 * (token + 16) + 4 * 18)
    assert normal_bytes(7168, 64, 24, 8) == -(-near // 128) * 128 + -(-far // 128) * 128


def test_low_latency_exchange_of_a_step() -> None:
    """Buffers for the tokens of a GPU, and a row in fp8 with its scales for each that could come."""
    need = memory_bytes(DEEPSEEK_V3, over("deepep-low-latency", 8), FP8, slots_per_gpu=4, **WORKLOAD)
    assert need["exchange"] == low_latency_bytes(128, 7168, 256) + 256 * 128 * (7168 + 4 * 56 + 16)
    assert need["total"] == sum(need[part] for part in ("weights", "experts", "kv_cache", "activations", "exchange"))


def test_normal_exchange_of_a_step() -> None:
    """A GPU of 8 is sent each of the 1,024 tokens unless all 8 choices go elsewhere."""
    need = memory_bytes(DEEPSEEK_V3, over("deepep-normal", comm_sms=24), FP8, slots_per_gpu=32, **WORKLOAD)
    arriving = 1024 * (1 - (7 / 8) ** 8)
    assert need["exchange"] == round(normal_bytes(7168, 8, 24, 8) + arriving * (7168 + 4 * 56 + 16))


def test_an_all_gather_leaves_the_tokens_of_the_group_on_every_gpu() -> None:
    """4,096 tokens of each of 8 GPUs in bf16, and as many outputs; twice as many in two groups change nothing."""
    workload: dict[str, Any] = {"work": work([4096], "prefill")}
    one = memory_bytes(MIXTRAL, over("nccl-all-gather", copies="all"), BF16, slots_per_gpu=1, **workload)
    assert one["exchange"] == 8 * 4096 * 2 * 4096 * 2
    two = memory_bytes(
        MIXTRAL,
        over("nccl-all-gather", 2, copies="all"),
        BF16,
        slots_per_gpu=1,
        parallelism=Parallelism(expert=8),
        **workload,
    )
    assert two == one


@pytest.mark.parametrize("preset", ["deepep-low-latency", "deepep-normal", "nccl-all-gather"])
def test_one_gpu_exchanges_nothing(preset: str) -> None:
    """No buffer is kept by any of the networks."""
    shape = over(preset, 1, 1, copies="all" if preset == "nccl-all-gather" else "per-rank")
    assert memory_bytes(MIXTRAL, shape, BF16, slots_per_gpu=8, **WORKLOAD)["exchange"] == 0


def test_other_networks_keep_no_buffers() -> None:
    """A closed form without a library needs none."""
    assert memory_bytes(MIXTRAL, cluster(), BF16, slots_per_gpu=1, **WORKLOAD)["exchange"] == 0
