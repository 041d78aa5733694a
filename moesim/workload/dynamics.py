"""What changes over the steps of a run: which experts are popular, bursts on a few of them, and which topics there are.

Each step can be computed alone: a change is a function of the seed and the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import BURST_EXPERTS, BURST_START, BURST_TOKEN, DRIFT, key, permutation, uniform

KEYFRAME_HALF_LIVES = 1.5
"""Half-lives between two keyframes: the arc whose cosine is 0.5 is two thirds of a right angle."""
TURNED_DOWN = np.float32(-20.0)
"""Added to a logit of an expert that a token of a burst does not turn to; above e^-20 no noise makes up for it."""


@dataclass(frozen=True, kw_only=True)
class Bursts:
    """In one run of `duration_steps` of every `every_steps` steps a share of the tokens turn to a few experts.

    When it begins within the `every_steps` is random, and so are the tokens and
    the experts of each layer. A token that turns takes its choices among them as
    far as `top_k` goes.
    """

    share: float
    experts: int
    every_steps: int
    duration_steps: int


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Weights of the topics [entries, topics] at `steps` [entries], ascending; linear between, constant beyond."""

    steps: NDArray[np.int64]
    weights: NDArray[np.float64]

    def at(self, step: int) -> NDArray[np.float64]:
        """Upper bounds [topics] of the topics' parts of (0, 1) for sequences that begin at a step."""
        share = self.weights / self.weights.sum(axis=1, keepdims=True)
        here = np.array([np.interp(step, self.steps, column) for column in share.T])
        return np.asarray(np.cumsum(here) / here.sum())


@njit
def drift(
    seed: int,
    layer: int,
    frames: float,
    loaded: NDArray[np.int64],
    popularity: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Fill out [E] with the popularity of a layer `frames` keyframes after the start.

    A keyframe is the popularity in another order of the `loaded` experts [N]; the
    first is the popularity itself. Between two keyframes it goes along an arc,
    cos x one + sin x next of what differs from the mean, scaled so that its standard
    deviation stays. Orders are independent, so its correlation with the start is
    the cosine, up to chance of 1 / sqrt(N).
    """
    n = loaded.shape[0]
    whole = math.floor(frames)
    angle = (frames - whole) * math.pi / 2
    one, other = np.arange(n), np.arange(n)
    if whole > 0:
        permutation(key(seed, DRIFT, whole, layer, 0), one)
    permutation(key(seed, DRIFT, whole + 1, layer, 0), other)
    mean, spread, blended = 0.0, 0.0, 0.0
    for i in range(n):
        mean += popularity[loaded[i]] / n
    moved = np.empty(n)
    for i in range(n):
        moved[i] = math.cos(angle) * (popularity[loaded[one[i]]] - mean)
        moved[i] += math.sin(angle) * (popularity[loaded[other[i]]] - mean)
        blended += moved[i] ** 2
        spread += (popularity[loaded[i]] - mean) ** 2
    scale = math.sqrt(spread / blended) if blended > 0.0 else 1.0
    out[:] = popularity
    if angle > 0.0 or whole > 0:
        for i in range(n):
            out[loaded[i]] = mean + scale * moved[i]


def burst_at(seed: int, bursts: Bursts, step: int) -> int:
    """The number of the burst that a step is in, -1 in none."""
    number, within = divmod(step, bursts.every_steps)
    latest = bursts.every_steps - bursts.duration_steps
    first = int(_burst_number(seed, number) * (latest + 1))
    return number if first <= within < first + bursts.duration_steps else -1


def burst_experts(seed: int, bursts: Bursts, number: int, layer: int, n_experts: int) -> NDArray[np.int64]:
    """The experts of a layer to which the tokens of a burst turn."""
    order = np.empty(n_experts, dtype=np.int64)
    _burst_order(seed, number, layer, order)
    return order[: bursts.experts]


@njit
def _burst_number(seed: int, number: int) -> float:
    return uniform(key(seed, BURST_START, number, 0, 0), 0)


@njit
def _burst_order(seed: int, number: int, layer: int, out: NDArray[np.int64]) -> None:
    permutation(key(seed, BURST_EXPERTS, number, layer, 0), out)


@njit
def burst_tokens(seed: int, step: int, first: int, share: float, out: NDArray[np.bool_]) -> None:
    """Fill out [T] with which of the tokens first, first + 1, ... of a step turn."""
    for t in range(out.shape[0]):
        out[t] = uniform(key(seed, BURST_TOKEN, step, 0, first + t), 0) < share
