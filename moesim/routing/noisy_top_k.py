"""Noisy top-k: the k largest of logits with normal noise, weighed by the softmax over them.

Shazeer et al. 2017, section 2.1; `noisy_top_k_gating` of tensor2tensor. There
the noise of a token has the standard deviation softplus(h W_noise) + 0.01;
inputs h are not simulated, so it is a constant, `noise_std`: about 1 early in
training, 0 at evaluation and by default in scenarios whose phase is not train.
The softmax is over the noisy logits of the chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import NOISE, key, normals
from moesim.errors import ParameterError
from moesim.routing.gate import GateParameters
from moesim.routing.gate import route as route_gate
from moesim.routing.strategy import Strategy
from moesim.types import Assignment, Draw

_OF_CHOSEN = GateParameters(score="softmax-of-chosen")


@dataclass(frozen=True, kw_only=True)
class NoisyTopKParameters:
    """`noise_std`: standard deviation of the noise, in logits."""

    noise_std: float = 1.0


def route(
    logits: NDArray[np.float32],
    top_k: int,
    parameters: NoisyTopKParameters,
    state: NDArray[np.float32] | None,
    draw: Draw,
) -> Assignment:
    """Top-k of logits [T, E] plus noise."""
    noisy = logits.copy()
    if parameters.noise_std > 0:
        _add_noise(draw.seed, draw.step, draw.layer, draw.first_token, parameters.noise_std, noisy)
    return route_gate(noisy, top_k, _OF_CHOSEN, None, draw)


@njit
def _add_noise(seed: int, step: int, layer: int, first: int, noise_std: float, logits: NDArray[np.float32]) -> None:
    noise = np.empty(logits.shape[1])
    for t in range(logits.shape[0]):
        normals(key(seed, NOISE, step, layer, first + t), noise)
        for e in range(logits.shape[1]):
            logits[t, e] += np.float32(noise_std * noise[e])


def check(n_experts: int, top_k: int, parameters: NoisyTopKParameters) -> None:
    """A standard deviation."""
    if parameters.noise_std < 0:
        raise ParameterError("noise_std", parameters.noise_std, "0 or more")


STRATEGY = Strategy(
    name="noisy-top-k",
    route=route,
    parameters=NoisyTopKParameters,
    at_inference={"noise_std": 0.0},
    check=check,
)
