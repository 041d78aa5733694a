"""Hash routing: a token's experts follow from its vocabulary id alone.

Roller et al. 2021, Hash Layers; ParlAI draws a fixed random table from ids to
experts. Here the table is a hash: id i takes the first top_k places of a random order
of the experts that is a function of `table_seed` and i. There is no gate, so
every choice weighs 1 / top_k. A frequent word makes a hot expert.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import HASH_TABLE, key, uniform
from moesim.errors import ParameterError
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw


@dataclass(frozen=True, kw_only=True)
class HashParameters:
    """`table_seed`: another seed, another table."""

    table_seed: int = 0


def route(
    logits: NDArray[np.float32], top_k: int, parameters: HashParameters, state: NDArray[np.float32] | None, draw: Draw
) -> Assignment:
    """Look up the experts of `draw.token_ids` [T]; the logits only say how many experts there are.

    Raises:
        ParameterError: no token ids.
    """
    if draw.token_ids is None or len(draw.token_ids) != len(logits):
        found = None if draw.token_ids is None else f"{len(draw.token_ids)} ids"
        raise ParameterError("token_ids", found, f"a vocabulary id for each of {len(logits)} tokens, as hash needs")
    expert = np.empty((len(logits), top_k), dtype=np.int32)
    _look_up(parameters.table_seed, draw.token_ids, logits.shape[1], expert)
    return Assignment.of(expert, np.full(expert.shape, 1.0 / top_k, dtype=np.float32))


@njit
def _look_up(seed: int, token_ids: NDArray[np.int64], n_experts: int, expert: NDArray[np.int32]) -> None:
    """Fill expert [T, K] with the first K places of the order of each id, without repeats."""
    for t in range(expert.shape[0]):
        word = key(seed, HASH_TABLE, 0, 0, token_ids[t])
        draw = 0
        for j in range(expert.shape[1]):
            new = False
            while not new:
                candidate = int(uniform(word, draw) * n_experts)
                draw += 1
                new = True
                for i in range(j):
                    if expert[t, i] == candidate:
                        new = False
            expert[t, j] = candidate


STRATEGY = Strategy(name="hash", route=route, parameters=HashParameters, obeys_mask=False)
