"""What group-limited routers ask of their groups."""

from __future__ import annotations

from typing import Any

from moesim.errors import InputError


def check_groups(n_experts: int, top_k: int, parameters: Any) -> None:
    """Groups must be equal, and the kept ones must hold top_k experts.

    Raises:
        InputError: what would be right.
    """
    n_group, topk_group = parameters.n_group, parameters.topk_group
    if n_group < 1 or n_experts % n_group:
        raise InputError(f"n_group that divides the {n_experts} experts, not {n_group}")
    if not 1 <= topk_group <= n_group:
        raise InputError(f"topk_group from 1 to n_group ({n_group}), not {topk_group}")
    if top_k > topk_group * (n_experts // n_group):
        raise InputError(f"top_k of at most the {topk_group * (n_experts // n_group)} experts of {topk_group} groups")
