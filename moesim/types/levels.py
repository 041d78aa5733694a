"""The levels of a network: which GPUs a copy passes between, and which ports it goes through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WITHIN_NODE, ACROSS_NODES = 0, 1
LEVELS = ("within_node", "across_nodes")
"""Names of the levels of a network of two; the second also names all levels above the node together."""


@dataclass(frozen=True, kw_only=True)
class NetworkLevels:
    """Units in which GPUs stand together, from the node up; a copy goes over the lowest level whose unit holds both.

    Attributes:
        units: GPUs of a unit of each level between the node and the whole, ascending, each a multiple of the one
            before it and of the node; () = two levels, within a node and across nodes.
        ports: the port of a GPU that the copies of each level go through, numbered from 0 without gaps;
            neighbouring levels may share one.
        names: of the levels.
    """

    units: tuple[int, ...] = ()
    ports: tuple[int, ...] = (0, 1)
    names: tuple[str, ...] = LEVELS

    def __post_init__(self) -> None:
        assert len(self.units) + 2 == len(self.ports) == len(self.names)

    @property
    def n_levels(self) -> int:
        """Levels, the node and the whole among them."""
        return len(self.ports)

    @property
    def n_ports(self) -> int:
        """Ports of a GPU in each direction."""
        return max(self.ports) + 1

    def ports_named(self, name: str) -> list[int]:
        """Ports of a GPU that the level of a name goes through; `LEVELS` name the node and all levels above it.

        Raises:
            KeyError: no level has the name.
        """
        if name in self.names:
            return [self.ports[self.names.index(name)]]
        own = {LEVELS[WITHIN_NODE]: self.ports[:1], LEVELS[ACROSS_NODES]: self.ports[1:]}
        return sorted(set(own[name]))

    def sizes(self, gpus_per_node: int) -> NDArray[np.int64]:
        """GPUs of a unit of each level but the last, which holds all, [levels - 1]."""
        return np.array([gpus_per_node, *self.units], dtype=np.int64)

    def between(self, n_gpus: int, gpus_per_node: int) -> NDArray[np.int64]:
        """The level of a copy between each two of so many GPUs, [G, G]; 0 on the diagonal."""
        gpu = np.arange(n_gpus)
        unit = gpu[:, None] // self.sizes(gpus_per_node)
        return np.asarray((unit[:, None] != unit[None]).sum(axis=2), dtype=np.int64)


TWO_LEVELS = NetworkLevels()
