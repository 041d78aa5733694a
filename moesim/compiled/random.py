"""Counter-based random numbers: a draw is a pure function of what it is for.

key(seed, stream, step, layer, token) is a 64-bit word; draw number i of a key
mixes it with i. So a result does not depend on the order or the number of
threads, and any token can be recomputed alone. The mixers are splitmix64
(Steele, Lea and Flood, OOPSLA 2014) and the 32-bit lowbias32 of C. Wellons'
hash prospector, in two keyed rounds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit

# streams: what a draw is for; numbers are part of the results' identity
LOGIT_NOISE, POPULARITY, TOPIC_OF_SEQUENCE, TOPIC_AFFINITY, ROUTER, CAPACITY = 1, 2, 3, 4, 5, 6
TOKEN_ID, HASH_TABLE, DIRECT, JITTER, NOISE, SECOND_EXPERT = 7, 8, 9, 10, 11, 12
FAULT, TIME_JITTER, SEGMENT_NOISE, SEGMENT_START = 13, 14, 15, 16
DRIFT, BURST_START, BURST_EXPERTS, BURST_TOKEN, LIFE_START, PATTERN = 17, 18, 19, 20, 21, 22
RECORDED_COUNTS = 32  # numbers below are for what synthetic tokens need

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@njit
def mix64(x: np.uint64) -> np.uint64:
    """The finaliser of splitmix64."""
    x = np.uint64(x)
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return np.uint64(x ^ (x >> _S31))


@njit
def key(seed: int, stream: int, step: int, layer: int, token: int) -> np.uint64:
    """The word from which all draws of a token (of a layer, of a step) follow."""
    word = mix64(np.uint64(seed) + _GOLDEN)
    word = mix64(word ^ (np.uint64(stream) * _GOLDEN + _MIX_1))
    word = mix64(word ^ (np.uint64(step) * _GOLDEN + _MIX_2))
    word = mix64(word ^ (np.uint64(layer) * _GOLDEN + _MIX_1))
    return np.uint64(mix64(word ^ (np.uint64(token) * _GOLDEN + _MIX_2)))


@njit
def word64(word: np.uint64, draw: int) -> np.uint64:
    """64 random bits: draw number `draw` of a key, as splitmix64 with the key for its seed would give it."""
    return np.uint64(mix64(np.uint64(word) + (np.uint64(draw) + np.uint64(1)) * _GOLDEN))


@njit
def word32(word: np.uint64, draw: int) -> np.uint32:
    """32 random bits: draw number `draw` of a key."""
    x = np.uint32(np.uint32(word & _LOW) + np.uint32(draw) * np.uint32(0x9E3779B9))
    x = np.uint32(x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = np.uint32(x)
    x = np.uint32(x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    x = np.uint32(x)
    x = np.uint32(x ^ (x >> np.uint32(16))) ^ np.uint32(word >> _S32)
    x = np.uint32(x)
    x = np.uint32(x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = np.uint32(x)
    x = np.uint32(x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    x = np.uint32(x)
    return np.uint32(x ^ (x >> np.uint32(16)))


@njit
def uniform(word: np.uint64, draw: int) -> float:
    """A uniform number of (0, 1), an odd multiple of 2**-24: neither 0 nor 1, and exact in float32."""
    return (2.0 * float(word32(word, draw) >> np.uint32(9)) + 1.0) * 2.0**-24


@njit
def normals(word: np.uint64, out: NDArray[np.float64]) -> None:
    """Fill out [N] with standard normal numbers (Box and Muller), draws 0 to 2N-1 of a key."""
    for i in range(out.shape[0]):
        radius = math.sqrt(-2.0 * math.log(uniform(word, 2 * i)))
        out[i] = radius * math.cos(2.0 * math.pi * uniform(word, 2 * i + 1))


@njit
def permutation(word: np.uint64, out: NDArray[np.int64]) -> None:
    """Fill out [N] with a random order of 0..N-1 (Fisher and Yates)."""
    for i in range(out.shape[0]):
        out[i] = i
    for i in range(out.shape[0] - 1, 0, -1):
        j = int(uniform(word, i) * (i + 1))
        out[i], out[j] = out[j], out[i]
