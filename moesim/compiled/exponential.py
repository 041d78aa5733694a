"""Exponentials of a whole row, in arithmetic that compilers turn into vector instructions.

Cephes' expf (S. Moshier): x = n ln 2 + r, a polynomial of degree 6 in r, times
2**n; within 2 units in the last place. Arguments below -87, where a float32
loses its precision, give 0.

Functions take a matrix and the number of a row: a view of the row would have
its references counted for every token, which costs a fifth of a gate's time.
Scratch is `power` int32 [N] and `scale`, the same memory as float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.compiled.jit import njit

_FLOOR = np.float32(-87.0)
_LOG2_E = np.float32(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_C0, _C1, _C2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_C3, _C4, _C5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
OUT_OF_REACH = np.float32(-np.inf)
"""Logit of an expert that may not be chosen, and what is compared of it, whatever is added to its score."""
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)


@njit
def softmax(
    x: NDArray[np.float32],
    t: int,
    peak: np.float32,
    out: NDArray[np.float32],
    power: NDArray[np.int32],
    scale: NDArray[np.float32],
) -> np.float32:
    """Fill out [N] with exp(x - peak) of row t of x [T, N], peak its largest, and return their sum."""
    for e in range(x.shape[1]):
        out[e], power[e] = _mantissa_and_power(x[t, e] - peak)
    for e in range(x.shape[1]):
        out[e] *= scale[e]
    return total(out)


@njit
def total(x: NDArray[np.float32]) -> np.float32:
    """Sum of x [N] in four partial sums, as one addition waits for the one before it; it also rounds less."""
    a, b, c, d = _ZERO, _ZERO, _ZERO, _ZERO
    quarter = np.uint64(x.shape[0] // 4)
    for i in range(quarter):
        a += x[i]
        b += x[quarter + i]
        c += x[quarter + quarter + i]
        d += x[quarter + quarter + quarter + i]
    for e in range(4 * (x.shape[0] // 4), x.shape[0]):
        a += x[e]
    return np.float32((a + b) + (c + d))


@njit
def largest(x: NDArray[np.float32], t: int) -> np.float32:
    """The largest of row t of x [T, N], without NaN, by four maxima side by side."""
    a, b, c, d = x[t, 0], x[t, 0], x[t, 0], x[t, 0]
    quarter = np.uint64(x.shape[1] // 4)
    for i in range(quarter):
        a = max(a, x[t, i])
        b = max(b, x[t, quarter + i])
        c = max(c, x[t, quarter + quarter + i])
        d = max(d, x[t, quarter + quarter + quarter + i])
    for e in range(4 * (x.shape[1] // 4), x.shape[1]):
        a = max(a, x[t, e])
    return np.float32(max(a, b, c, d))


@njit
def sigmoid(
    x: NDArray[np.float32],
    t: int,
    bias: NDArray[np.float32],
    out: NDArray[np.float32],
    biased: NDArray[np.float32],
    power: NDArray[np.int32],
    scale: NDArray[np.float32],
) -> None:
    """Fill out [N] with 1 / (1 + exp(-x)) of row t of x [T, N], and biased with out + bias [N], -inf where x is.

    Without overflow on either side; one pass less than adding the bias later.
    """
    for e in range(x.shape[1]):
        out[e], power[e] = _mantissa_and_power(-abs(x[t, e]))
    for e in range(x.shape[1]):
        z = out[e] * scale[e]
        value = (_ONE if x[t, e] >= _ZERO else z) / (_ONE + z)
        out[e] = value
        biased[e] = value + bias[e] if x[t, e] > OUT_OF_REACH else OUT_OF_REACH


@njit
def _mantissa_and_power(x: np.float32) -> tuple[np.float32, np.int32]:
    """Of exp(x), x <= 0, the power as the bits of a float32: those of 2**n, or of 0."""
    held = max(_FLOOR, x)
    n = np.rint(held * _LOG2_E)
    r = held - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_C0 * r + _C1) * r + _C2) * r + _C3) * r + _C4) * r + _C5
    power = (np.int32(n) + _BIAS) << _MANTISSA_BITS
    return p * r * r + r + _ONE, power if x > _FLOOR else np.int32(0)
