"""What a router carries from step to step where it evolves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class RouterState:
    """Of one MoE layer: `bias` float32 [E], for the selection only, and `shift` float32 [E], added to the logits."""

    bias: NDArray[np.float32]
    shift: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RouterStep:
    """The routers of L layers after a step: their `states`, and figures [L] of each; losses are of the step's tokens.

    `aux_loss` is 1 at balance (Switch and GShard form over the top k);
    `z_loss` is the mean squared logsumexp of the logits.
    """

    states: tuple[RouterState, ...]
    aux_loss: NDArray[np.float64]
    z_loss: NDArray[np.float64]
    bias_min: NDArray[np.float64]
    bias_max: NDArray[np.float64]
    shift_std: NDArray[np.float64]
