"""What the levels of a network must agree on, with one another and with the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moesim.scenario.schema import ScenarioSpec
from moesim.scenario.source import FieldPath
from moesim.types import LEVELS

Rule = tuple[bool, FieldPath, Any, str]
"""Whether it holds, else the field, what was found and what would be right."""
_PATH = ("cluster", "network", "levels")


def level_rules(spec: ScenarioSpec) -> Iterator[Rule]:
    """The rules of the levels, and of the faults that name one; a later one may rest on earlier ones."""
    stated = spec.cluster.network.levels
    names = [level.name for level in stated]
    if stated:
        few = "two levels or more, from the node up, the last of which holds all GPUs; or no levels"
        yield len(stated) >= 2, _PATH, f"{len(stated)} level", few
        yield len(set(names)) == len(names), _PATH, ", ".join(names), "levels with names that differ"
        yield from _size_rules(spec)
        for i, level in enumerate(stated):
            port = "no bandwidth_gb_per_s, as the level shares the port of the level below; or shares_port: false"
            yield not (level.shares_port and level.bandwidth_gb_per_s), _at(i), level.bandwidth_gb_per_s, port
            own = f"a bandwidth, as {level.name} neither shares a port nor is one of the first two levels"
            needs_none = i < len(LEVELS) or level.shares_port is not False
            yield needs_none or level.bandwidth_gb_per_s is not None, _at(i), "none", own
        lowest = "false: below the first level there is no port to share"
        yield not stated[0].shares_port, _at(0, "shares_port"), True, lowest
        top = "1, as nothing leaves the last level, which holds all GPUs"
        last = len(stated) - 1
        yield stated[-1].oversubscription == 1, _at(last, "oversubscription"), stated[-1].oversubscription, top
    known = tuple(dict.fromkeys((*LEVELS, *names)))
    for i, fault in enumerate(spec.faults):
        yield fault.level in (None, *known), ("faults", str(i), "level"), fault.level, f"one of {', '.join(known)}"


def _at(i: int, field: str = "bandwidth_gb_per_s") -> FieldPath:
    return (*_PATH, i, field)


def _size_rules(spec: ScenarioSpec) -> Iterator[Rule]:
    """Units must be made of whole units of the level below, the cluster and its groups of whole units."""
    cluster, stated = spec.cluster, spec.cluster.network.levels
    a_node, n_gpus = cluster.gpus_per_node, cluster.nodes * cluster.gpus_per_node
    group = (spec.parallelism.expert or 1) * spec.parallelism.expert_tp
    first, last = stated[0], stated[-1]
    node = f"{a_node}, which is cluster.gpus_per_node, or no size"
    yield first.size in (None, a_node), _at(0, "size"), first.size, node
    below = a_node
    for i, level in enumerate(stated[1:-1], start=1):
        size, where = level.size, _at(i, "size")
        yield size is not None, where, "nothing", f"the number of GPUs of a {level.name}"
        size = size or below
        whole = f"a multiple of the {below} GPUs of a {stated[i - 1].name}, and more than one of them"
        yield size % below == 0 and size > below, where, size, whole
        units = f"a number that divides the {n_gpus} GPUs of the cluster, or at least as many"
        yield size >= n_gpus or n_gpus % size == 0, where, size, units
        groups = f"a size of which the {group} GPUs of an expert-parallel group are a multiple, or a multiple of them"
        yield size >= n_gpus or group % size == 0 or size % group == 0, where, size, groups
        below = size
    all_gpus = f"at least the {n_gpus} GPUs of the cluster, or no size, as the last level holds all"
    yield last.size is None or last.size >= n_gpus, _at(len(stated) - 1, "size"), last.size, all_gpus
