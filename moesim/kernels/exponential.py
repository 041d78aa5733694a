"""Exponentials of a whole row, in arithmetic that compilers turn into vector instructions.

Cephes' expf (S. Moshier): x = n ln 2 + r, a polynomial of degree 6 in r, times
2**n; within 2 units in the last place. Arguments below -87, where a float32
loses its precision, give 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.kernels.jit import njit

LANES = 16
"""Partial results of a reduction: a compiler may not reorder a sum of floats, so it is written in that order."""
_FLOOR = np.float32(-87.0)
_LOG2_E = np.float32(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_C0, _C1, _C2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_C3, _C4, _C5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)


@njit
def softmax(x: NDArray[np.float32], peak: np.float32, out: NDArray[np.float32], power: NDArray[np.int32]) -> np.float32:
    """Fill out [N] with exp(x - peak), peak the largest of x, and return their sum; `power` int32 [N] is scratch."""
    for e in range(x.shape[0]):
        out[e], power[e] = _mantissa_and_power(x[e] - peak)
    _scale(out, power)
    return total(out)


@njit
def largest(x: NDArray[np.float32]) -> np.float32:
    """The largest of x [N], without NaN, by LANES maxima side by side."""
    lanes = np.full(LANES, -np.inf, dtype=np.float32)
    whole = x.shape[0] // LANES
    rows = x[: whole * LANES].reshape(whole, LANES)
    for i in range(whole):
        row = rows[i]
        for j in range(LANES):
            lanes[j] = max(lanes[j], row[j])
    for e in range(whole * LANES, x.shape[0]):
        lanes[0] = max(lanes[0], x[e])
    result = lanes[0]
    for j in range(1, LANES):
        result = max(result, lanes[j])
    return np.float32(result)


@njit
def sigmoid(
    x: NDArray[np.float32],
    bias: NDArray[np.float32],
    out: NDArray[np.float32],
    biased: NDArray[np.float32],
    power: NDArray[np.int32],
) -> None:
    """Fill out [N] with 1 / (1 + exp(-x)), without overflow on either side, and biased with out + bias [N].

    `power` int32 [N] is scratch. One pass less than adding the bias later.
    """
    for e in range(x.shape[0]):
        out[e], power[e] = _mantissa_and_power(-abs(x[e]))
    scale = power.view(np.float32)
    for e in range(x.shape[0]):
        z = out[e] * scale[e]
        value = (_ONE if x[e] >= _ZERO else z) / (_ONE + z)
        out[e] = value
        biased[e] = value + bias[e]


@njit
def _mantissa_and_power(x: np.float32) -> tuple[np.float32, np.int32]:
    """Of exp(x), x <= 0, the power as the bits of a float32: those of 2**n, or of 0."""
    held = max(_FLOOR, x)
    n = np.rint(held * _LOG2_E)
    r = held - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_C0 * r + _C1) * r + _C2) * r + _C3) * r + _C4) * r + _C5
    power = (np.int32(n) + _BIAS) << _MANTISSA_BITS
    return p * r * r + r + _ONE, power if x > _FLOOR else np.int32(0)


@njit
def _scale(out: NDArray[np.float32], power: NDArray[np.int32]) -> None:
    scale = power.view(np.float32)
    for e in range(out.shape[0]):
        out[e] *= scale[e]


@njit
def total(x: NDArray[np.float32]) -> np.float32:
    """Sum of x [N] in LANES partial sums, which vectorises and rounds less than one after another."""
    lanes = np.zeros(LANES, dtype=np.float32)
    whole = x.shape[0] // LANES
    rows = x[: whole * LANES].reshape(whole, LANES)
    for i in range(whole):
        row = rows[i]
        for j in range(LANES):
            lanes[j] += row[j]
    for e in range(whole * LANES, x.shape[0]):
        lanes[e % LANES] += x[e]
    result = _ZERO
    for j in range(LANES):
        result += lanes[j]
    return result
