"""Exchanges of other makers' libraries: what their authors publish, and what presets made of it take."""

from __future__ import annotations

from typing import Any

import pytest

from moesim import Scenario, simulate

HIDDEN = 7168


def exchange_s(network: Any, gpu: str, nodes: int, a_node: int, tokens: int, dispatch: str) -> tuple[float, float]:
    """Seconds of dispatch and of combine, of random choices of 8 of DeepSeek-V3's 256 experts in one MoE layer."""
    document = {
        "model": {"preset": "deepseek-v3", "n_layers": 4},
        "precision": {"dispatch": dispatch, "combine": "bf16"},
        "routing": {"strategy": "softmax-top-k"},
        "cluster": {"gpu": gpu, "nodes": nodes, "gpus_per_node": a_node, "network": network},
        "workload": {"steps": 1, "tokens_per_gpu": tokens, "context_tokens": 1, "popularity": {"kind": "uniform"}},
    }
    spent = simulate(Scenario.from_dict(document)).summary["breakdown_s"]
    return spent["dispatch"], spent["combine"]


def published_s(distinct: float, tokens: int, element_bytes: int, gb_per_s: float) -> float:
    """Seconds of a published bandwidth, which counts a copy for each distinct place of a token, its own too."""
    return distinct * tokens * HIDDEN * element_bytes / (gb_per_s * 1e9)


def distinct(places: int) -> float:
    """Distinct places of 8 of 256 experts that are spread evenly over them."""
    none = 1.0
    for i in range(8):
        none *= 1 - (256 / places) / (256 - i)
    return places * (1 - none)


MORI = {
    (1, 128): (35e-6, 47e-6),
    (1, 4096): (published_s(distinct(8), 4096, 1, 307), published_s(distinct(8), 4096, 2, 330)),
    (2, 128): (115e-6, 141e-6),
    (2, 4096): (published_s(distinct(2), 4096, 1, 63), published_s(distinct(2), 4096, 2, 49)),
}
"""Seconds by nodes of 8 MI300X and tokens a GPU: the best kernels of each (EP8, EP16-V1), README of ROCm/mori."""


@pytest.mark.parametrize("nodes, tokens", MORI)
def test_mori_ep_takes_what_its_authors_publish(nodes: int, tokens: int) -> None:
    """Within 6 %, at both ends from which the preset's rates are."""
    found = exchange_s("mori-ep", "mi300x", nodes, 8, tokens, "fp8")
    assert found == pytest.approx(MORI[nodes, tokens], rel=0.06)


def test_mori_ep_holds_on_more_nodes_than_its_rates_are_from() -> None:
    """The latencies of EP32 at 128 tokens (EP32-V1-LL) are predicted."""
    assert exchange_s("mori-ep", "mi300x", 4, 8, 128, "fp8") == pytest.approx((157e-6, 280e-6), rel=0.06)


ASCEND = {(1, 8): (132e-6, 126e-6), (1, 16): (139e-6, 135e-6), (2, 16): (153e-6, 151e-6)}
"""Seconds by nodes and dies of a node, of 128 tokens a die with INT8 in dispatch: README of sgl-kernel-npu."""


@pytest.mark.parametrize("nodes, a_node", ASCEND)
def test_deepep_ascend_takes_what_its_authors_publish(nodes: int, a_node: int) -> None:
    """Within 6 %; a die has one port for all that it sends, within its node and beyond."""
    found = exchange_s("deepep-ascend-low-latency", "ascend-910c-die", nodes, a_node, 128, "int8")
    assert found == pytest.approx(ASCEND[nodes, a_node], rel=0.06)


def test_a_port_that_levels_share_sends_no_faster_across_nodes() -> None:
    """Two ports would send half of the copies each; one takes as long for 32 dies in two nodes as in one."""
    one, two = (
        exchange_s("ub-cloudmatrix-die", "ascend-910c-die", nodes, a_node, 2048, "int8")
        for nodes, a_node in ((1, 32), (2, 16))
    )
    assert two[1] == pytest.approx(one[1], rel=0.02)
    assert two[1] > one[1]
