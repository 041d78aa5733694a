"""The law of synthetic logits: popularity + topic affinity + standard Gumbel noise, which near tokens may share.

With Gumbel noise the argmax of a token is a draw in proportion to
exp(popularity + affinity), and its top k are a Plackett-Luce draw without
replacement (Yellott 1977; Kool et al., ICML 2019).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit
from moesim.compiled.random import (
    LIFE_START,
    LOGIT_NOISE,
    POPULARITY,
    SEGMENT_NOISE,
    SEGMENT_START,
    TOKEN_ID,
    TOPIC_AFFINITY,
    TOPIC_OF_SEQUENCE,
    key,
    normals,
    permutation,
    uniform,
)

SEGMENT_TOKENS = 8
"""Tokens of a sequence whose noise locality makes alike."""
_LEAST, _MOST = np.float32(2.0**-24), np.float32(1.0 - 2.0**-24)
_SQRT_HALF_BITS = np.int32(0x3F3504F3)
_EXPONENT_ONE = np.int32(0x3F800000)
_MANTISSA = np.int32(0x007FFFFF)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)


@njit
def fill_logits(
    seed: int,
    step: int,
    layer: int,
    first: int,
    popularity: NDArray[np.float32],
    affinity: NDArray[np.float32],
    topic: NDArray[np.int32],
    out: NDArray[np.float32],
) -> None:
    """Fill out [T, E] with the logits of tokens first, first + 1, ... of a step and layer.

    `popularity` [E]; `affinity` [topics, E]; `topic` [T] is each token's row of it.
    """
    bits = out.view(np.int32)
    exponent = np.empty(out.shape[1], dtype=np.float32)
    for t in range(out.shape[0]):
        word = key(seed, LOGIT_NOISE, step, layer, first + t)
        row, row_bits, wanted = out[t], bits[t], affinity[topic[t]]
        for e in range(out.shape[1]):
            row[e] = np.float32(uniform(word, e))
        negative_log(row, row_bits, exponent)
        negative_log(row, row_bits, exponent)  # -ln(-ln u): standard Gumbel
        for e in range(out.shape[1]):
            row[e] += popularity[e] + wanted[e]


@njit
def fill_local_logits(
    seed: int,
    step: int,
    layer: int,
    first: int,
    popularity: NDArray[np.float32],
    affinity: NDArray[np.float32],
    topic: NDArray[np.int32],
    locality: float,
    sequence: NDArray[np.int32],
    position: NDArray[np.int32],
    out: NDArray[np.float32],
) -> None:
    """Fill out [T, E] as `fill_logits` does, with noise that tokens of a segment share.

    With probability `locality`, each on its own, a (token, expert) takes the noise
    of its segment instead of its own: the law of a token's logits stays, and tokens
    of a segment choose alike. A segment is a run of SEGMENT_TOKENS tokens of a
    sequence; `sequence` and `position` [T] say which token of which sequence each is.

    One number decides and is the noise: below `locality` the segment's is taken,
    else what is above, stretched to (0, 1), is as uniform as a number of its own.
    """
    bits = out.view(np.int32)
    n_experts = out.shape[1]
    exponent, shared = np.empty(n_experts, dtype=np.float32), np.empty(n_experts, dtype=np.float32)
    limit, stretch = np.float32(locality), np.float32(1.0 / (1.0 - locality) if locality < 1.0 else 0.0)
    here = np.uint64(0)
    for t in range(out.shape[0]):
        segment = key(seed, SEGMENT_NOISE, position[t] // SEGMENT_TOKENS, layer, sequence[t])
        if t == 0 or segment != here:
            here = segment
            for e in range(n_experts):
                shared[e] = np.float32(uniform(segment, e))
        word = key(seed, LOGIT_NOISE, step, layer, first + t)
        row, row_bits, wanted = out[t], bits[t], affinity[topic[t]]
        for e in range(n_experts):
            own = np.float32(uniform(word, e))
            row[e] = shared[e] if own < limit else min(max((own - limit) * stretch, _LEAST), _MOST)
        negative_log(row, row_bits, exponent)
        negative_log(row, row_bits, exponent)
        for e in range(n_experts):
            row[e] += popularity[e] + wanted[e]


@njit
def life_starts(seed: int, life: int, out: NDArray[np.int32]) -> None:
    """Fill out [T] with how many of its `life` tokens the first sequence of each place has behind it at step 0."""
    for t in range(out.shape[0]):
        out[t] = int(uniform(key(seed, LIFE_START, 0, 0, t), 0) * life)


@njit
def segment_starts(seed: int, sequence: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    """Fill out [T] with how many tokens of its first segment each sequence has behind it: 0 to SEGMENT_TOKENS - 1."""
    for t in range(sequence.shape[0]):
        out[t] = int(uniform(key(seed, SEGMENT_START, 0, 0, sequence[t]), 0) * SEGMENT_TOKENS)


@njit
def negative_log(x: NDArray[np.float32], bits: NDArray[np.int32], exponent: NDArray[np.float32]) -> None:
    """Replace x [N] by -ln x, to 2 units in the last place.

    `bits` is x seen as integers, `exponent` scratch of the same length. Two
    loops, as one that reads x and writes its bits would not vectorise (5 times
    slower). Reduction and polynomial are those of logf in Cephes (Moshier
    1989), for positive normal numbers.
    """
    for i in range(bits.shape[0]):
        raw = np.int32(bits[i] + (_EXPONENT_ONE - _SQRT_HALF_BITS))
        exponent[i] = np.float32(np.int32(raw >> np.int32(23)) - np.int32(127))
        bits[i] = np.int32(np.int32(raw & _MANTISSA) + _SQRT_HALF_BITS)
    for i in range(x.shape[0]):
        m = x[i] - np.float32(1.0)
        z = m * m
        y = np.float32(7.0376836292e-2) * m + np.float32(-1.1514610310e-1)
        y = y * m + np.float32(1.1676998740e-1)
        y = y * m + np.float32(-1.2420140846e-1)
        y = y * m + np.float32(1.4249322787e-1)
        y = y * m + np.float32(-1.6668057665e-1)
        y = y * m + np.float32(2.0000714765e-1)
        y = y * m + np.float32(-2.4999993993e-1)
        y = y * m + np.float32(3.3333331174e-1)
        y = y * m * z
        y = y + exponent[i] * _LN2_LOW - np.float32(0.5) * z
        x[i] = -(m + y + exponent[i] * _LN2_HIGH)


@njit
def popularity_of_layers(seed: int, exponent: float, out: NDArray[np.float32]) -> None:
    """Fill out [L, E] with Zipf popularities, -exponent * ln(order), in an own random order of experts per layer."""
    order = np.empty(out.shape[1], dtype=np.int64)
    for layer in range(out.shape[0]):
        permutation(key(seed, POPULARITY, 0, layer, 0), order)
        for e in range(out.shape[1]):
            out[layer, e] = -exponent * math.log(order[e] + 1.0)


@njit
def topic_affinities(seed: int, strength: float, out: NDArray[np.float32]) -> None:
    """Fill out [L, topics, E] with N(0, strength^2) affinities."""
    draws = np.empty(out.shape[2], dtype=np.float64)
    for layer in range(out.shape[0]):
        for topic in range(out.shape[1]):
            normals(key(seed, TOPIC_AFFINITY, 0, layer, topic), draws)
            for e in range(out.shape[2]):
                out[layer, topic, e] = strength * draws[e]


@njit
def uniforms_of(seed: int, step: int, out: NDArray[np.float64]) -> None:
    """Fill out [T] with a uniform number for the id of each token of a step."""
    for t in range(out.shape[0]):
        out[t] = uniform(key(seed, TOKEN_ID, step, 0, t), 0)


@njit
def topics_of(seed: int, n_topics: int, sequence: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    """Fill out [T] with the topic of each token's sequence [T]: a hash, uniform over the topics."""
    for t in range(sequence.shape[0]):
        out[t] = int(topic_number(seed, sequence[t]) * n_topics)


@njit
def topic_numbers(seed: int, sequence: NDArray[np.int32], out: NDArray[np.float64]) -> None:
    """Fill out [T] with the number of (0, 1) that decides the topic of each token's sequence [T]."""
    for t in range(sequence.shape[0]):
        out[t] = topic_number(seed, sequence[t])


@njit
def topic_number(seed: int, sequence: int) -> float:
    """The number of (0, 1) that decides the topic of a sequence, whatever phase it is in."""
    return uniform(key(seed, TOPIC_OF_SEQUENCE, 0, 0, sequence), 0)
