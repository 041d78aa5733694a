"""Shapes that the hardware tests share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.types import (
    AttentionWork,
    ClusterShape,
    GpuSpec,
    ModelShape,
    NetworkSpec,
    Precision,
    equal_decodes,
    equal_prompts,
)

BF16 = Precision(weights="bf16", activations="bf16", dispatch="bf16", combine="bf16", kv_cache="bf16")
FP8 = Precision(weights="fp8", activations="fp8", dispatch="fp8", combine="bf16", kv_cache="bf16")

H100 = GpuSpec(
    name="h100-sxm",
    peak_tflops={"bf16": 989.4, "fp8": 1978.9},
    memory_gb=80,
    memory_bandwidth_gb_per_s=3352,
    n_sms=132,
    network="test",
    link_gb_per_s=(450, 50),
)
NETWORK = NetworkSpec(
    name="test",
    copies="per-selection",
    dispatch_latency_us=(10.0, 20.0),
    combine_latency_us=(12.0, 24.0),
    dispatch_bandwidth_gb_per_s=(200.0, 50.0),
    combine_bandwidth_gb_per_s=(100.0, 25.0),
)


def work(
    tokens: Sequence[int] | NDArray[np.int64],
    phase: str = "decode",
    *,
    context: int = 4096,
    sequence: int = 4096,
    heads_shared: int = 1,
) -> AttentionWork:
    """A step whose sequences are alike: so many tokens on each GPU."""
    counts = np.array(tokens, dtype=np.int64)
    if phase == "decode":
        return equal_decodes(counts, context, heads_shared=heads_shared)
    return equal_prompts(counts, sequence, heads_shared=heads_shared, every_logit=phase == "train")


MIXTRAL = ModelShape(
    name="mixtral-8x7b",
    hidden_size=4096,
    n_layers=32,
    n_experts=8,
    top_k=2,
    moe_intermediate_size=14336,
    vocab_size=32000,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
)
DEEPSEEK_V3 = ModelShape(
    name="deepseek-v3",
    hidden_size=7168,
    n_layers=61,
    dense_layers=(0, 1, 2),
    n_experts=256,
    top_k=8,
    moe_intermediate_size=2048,
    n_shared_experts=1,
    shared_intermediate_size=2048,
    intermediate_size=18432,
    vocab_size=129280,
    attention="mla",
    n_heads=128,
    n_kv_heads=128,
    head_dim=128,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
)


def cluster(n_nodes: int = 1, gpus_per_node: int = 8) -> ClusterShape:
    """Nodes of H100s with the network of the tests."""
    return ClusterShape(gpu=H100, network=NETWORK, n_nodes=n_nodes, gpus_per_node=gpus_per_node)
