"""The effective constants of the kernels, by data type, and where they come from.

Shares are of the published dense peak of the GPU (its compute rate or its
memory bandwidth), so that a GPU with other published peaks needs no constants
of its own. All of them are fitted on H100 SXM and are `estimated` everywhere
else. They are effective, not physical: a share may absorb what a formula leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PROVENANCE = "estimated: formulas with constants fitted on H100 SXM kernels, other GPUs by their published peaks"


@cache
def load(noun: str) -> dict[str, dict[str, float]]:
    """The constants of every group of a noun, from <noun>.yaml beside this file: {group: {constant: value}}."""
    import yaml

    document: dict[str, Any] = yaml.safe_load(Path(__file__).with_name(f"{noun}.yaml").read_text(encoding="utf-8"))
    groups: dict[str, dict[str, float]] = document["groups"]
    return groups


@dataclass(frozen=True, kw_only=True)
class ExpertConstants:
    """Grouped GEMMs of the experts of one rank and layer.

    `launch_s`: time of the kernels themselves; `per_expert_s`: time of each
    active expert; `compute_share`, `bandwidth_share`: shares of the peaks that
    tiles and weights reach; `traffic_share`: share of the memory bandwidth
    that activations reach; `tile_tokens`: rows of a tile; `norm`: exponent
    that joins computing and streaming.
    """

    launch_s: float
    per_expert_s: float
    compute_share: float
    bandwidth_share: float
    traffic_share: float
    tile_tokens: int
    norm: float


# Source: tests/validation/fit_constants.py on rows with evenly spread tokens of the measured
# tables of NVIDIA aiconfigurator, H100 SXM. fp8: DeepSeek-V3 wide expert parallelism (DeepGEMM).
# bf16: fused layers of TensorRT-LLM and vLLM, with the launch of fp8, as theirs includes the router.
_EXPERT_FP8 = ExpertConstants(
    launch_s=23.05e-6,
    per_expert_s=0.1746e-6,
    compute_share=0.9293,
    bandwidth_share=0.882,
    traffic_share=0.6161,
    tile_tokens=128,
    norm=4.424,
)
_EXPERT_BF16 = ExpertConstants(
    launch_s=23.05e-6,
    per_expert_s=1e-9,
    compute_share=1.0,
    bandwidth_share=0.9094,
    traffic_share=0.3686,
    tile_tokens=16,
    norm=1.954,
)
EXPERT: Mapping[str, ExpertConstants] = {
    "fp8": _EXPERT_FP8,
    "int8": _EXPERT_FP8,
    "fp4": _EXPERT_FP8,
}
EXPERT_OTHERWISE = _EXPERT_BF16

MEMORY_SHARE = 0.9
"""Share of a GPU's memory that a serving framework may fill (vLLM's gpu_memory_utilization default)."""
