"""What a scenario needs of a GPU's memory: the sums of the refusal, by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest

from moesim import Scenario
from moesim.errors import ScenarioError
from moesim.simulation import check


def refusal(**overrides: Any) -> str:
    """Why OLMoE's prompts do not fit 8 H100; dots of a field are written as __."""
    data = {
        "model": "olmoe-1b-7b",
        "cluster": {"gpu": "h100-sxm", "gpus_per_node": 8},
        "workload": {"phase": "prefill", "steps": 1, "sampling": "direct"},
    }
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    with pytest.raises(ScenarioError) as error:
        check(Scenario.from_dict(data, overrides=named))
    return str(error.value)


def gigabytes(text: str, part: str) -> float:
    """The number of a part in the sentence."""
    (found,) = re.findall(rf"{part} ([\d,.]+) GB", text)
    return float(found.replace(",", ""))


def test_gathered_tokens_count_for_the_group_of_gpus_that_gathers_them() -> None:
    """2^20 tokens of each of 8, or of 4, GPUs with 2,048 elements of bf16, and as many outputs."""
    for ranks in (8, 4):
        said = refusal(cluster__network="nccl-all-gather", parallelism__expert=ranks, workload__tokens_per_gpu=2**20)
        assert "cluster: olmoe-1b-7b does not fit in memory on 8 GPUs: needs " in said
        assert gigabytes(said, "exchange buffers") == pytest.approx(ranks * 2**20 * 2 * 4096 / 1e9, abs=0.05)


def test_the_gpu_that_has_all_experts_is_sent_the_rows_of_all_others() -> None:
    """Seven GPUs with 2^17 tokens make 8 choices each; a row has 2 x 2,048 and 3 x 1,024 elements of bf16."""
    said = refusal(placement__expert_gpus=1, workload__tokens_per_gpu=2**17)
    assert gigabytes(said, "activations") == pytest.approx(7 * 2**17 * 8 * 2 * (4096 + 3072) / 1e9, abs=0.05)
    assert gigabytes(said, "weights") == pytest.approx(16 * 64 * 3 * 2048 * 1024 * 2 / 1e9, abs=0.05)
    assert "weights 12.9 GB in bf16 with 64 experts of each layer, KV cache 0.0 GB" in said


def test_low_latency_buffers_have_room_for_every_slot_and_token() -> None:
    """64 experts and 16 copies: 80 x 2^17 messages of 4,160 bytes in four buffers, and as many rows of 4,096."""
    said = refusal(
        cluster__network="deepep-low-latency", placement__redundant_experts=16, workload__tokens_per_gpu=2**17
    )
    assert gigabytes(said, "exchange buffers") == pytest.approx(80 * 2**17 * (4 * 4160 + 4096) / 1e9, abs=0.05)
    assert said.count("\n") == 0
    assert "77.0 GB are available (90 % of the 85.5 GB of h100-sxm)" in said
