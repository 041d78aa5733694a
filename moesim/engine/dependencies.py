"""What an operation of a program waits for, the same for every interpreter."""

from __future__ import annotations

from moesim.types import PARTS, Program

_EXPERTS = PARTS.index("experts")


def dependencies(program: Program) -> list[tuple[int, ...]]:
    """What each operation waits for on its GPU: its predecessors and the one before it on its stream."""
    last_of_stream: dict[int, int] = {}
    result = []
    for o, stream in enumerate(program.stream.tolist()):
        before = set(program.predecessors[o])
        if stream in last_of_stream:
            before.add(last_of_stream[stream])
        last_of_stream[stream] = o
        result.append(tuple(sorted(before)))
    return result


def moe_layers(program: Program) -> list[int]:
    """Index l of the MoE layer of each experts operation, -1 for all others."""
    result, index = [], 0
    for kind in program.kind.tolist():
        result.append(index if kind == _EXPERTS else -1)
        index += kind == _EXPERTS
    return result
