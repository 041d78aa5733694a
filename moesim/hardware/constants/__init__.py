"""The effective constants of the kernels, by data type, and where they come from.

Shares are of the published dense peak of the GPU (its compute rate or its
memory bandwidth), so that a GPU with other published peaks needs no constants
of its own. All of them are fitted on H100 SXM and are `estimated` everywhere
else. They are effective, not physical: a share may absorb what a formula leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

Constants = Mapping[str, Mapping[str, float]]
"""Constants of each group of rows, {"trtllm/cutlass/fp8_block": {"launch_s": ...}}: plain data, as in YAML."""


@cache
def document(part: str) -> dict[str, Any]:
    """<part>.yaml in this folder: `groups`, and a header that says where they come from."""
    content: dict[str, Any] = shipped_yaml(Path(__file__).with_name(f"{part}.yaml"))
    return content


def shipped_yaml(path: Path) -> Any:
    """The content of a YAML file of the package, by the loader in C where PyYAML has it: ten times as fast."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506


def load(part: str) -> dict[str, dict[str, float]]:
    """The constants of every group of a part: {group: {constant: value}}."""
    groups: dict[str, dict[str, float]] = document(part)["groups"]
    return groups


MEMORY_SHARE = 0.9
"""Share of a GPU's memory that a serving framework may fill (vLLM's gpu_memory_utilization default)."""
