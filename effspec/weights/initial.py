"""Seeded initial values: one portable stream of random numbers a parameter path, the same bits on every machine.

A value depends on the seed, the parameter's path and its place in the tensor, on nothing else: not on other parameters,
their order, the version of NumPy, the processor or the target.  Two things make that so.

- The words come from SplitMix64 (Steele, Lea, Flood 2014) run as a counter-based generator: word i is a mix of
  `key + (i + 1) * golden`, in 64-bit integers that wrap.  The key, and a second one that is added within the mix, are
  the first 16 bytes of SHA-256 of the seed and the path.  Value 2i takes the low half of word i, value 2i + 1 the high.
- The transforms use only +, -, *, / and the square root, which IEEE 754 rounds in one way, and `frexp`, which is exact.
  `numpy.log` and `numpy.exp` are not used: their last bit depends on the processor's instructions.  Normal numbers are
  computed in float32, as they are stored, all others in float64.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from effspec.ir.graph import Parameter
from effspec.params import Normal, Uniform, distribution

Real: TypeAlias = NDArray[np.floating[Any]]
Words: TypeAlias = NDArray[np.uint64]
Halves: TypeAlias = NDArray[np.int32]
Transform: TypeAlias = Callable[[Halves], Real]

# 2^14 values at a time keep the work in the cache of the processor: 66 million normal numbers take half a second.
_CHUNK = 1 << 14
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEPS: Words = np.arange(1, _CHUNK // 2 + 1, dtype=np.uint64) * _GOLDEN


class Seeded:
    """A weight source: every parameter as its spec's `init` says.  `seed` is any integer."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def tensor(self, parameter: Parameter) -> NDArray[np.float32]:
        """The initial value of a parameter, float32, in its shape."""
        return draw(parameter, self.seed)


def draw(parameter: Parameter, seed: int) -> NDArray[np.float32]:
    """See `Seeded.tensor`."""
    law = distribution(parameter.init, parameter.shape)
    out = np.empty(parameter.shape, np.float32)
    if law.kind == "constant":
        out.fill(law.value)
        return out
    transform = _uniform(law) if law.kind == "uniform" else _normal(law)
    flat, stream = out.reshape(-1), keys(seed, parameter.path)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        part[...] = transform(_halves(*stream, start, part.size))
    return out


def _words(first: int, second: int, start: int, count: int) -> Words:
    """Words `start` to `start + count` of the stream of two keys; `count` is at most half a chunk."""
    z = _STEPS[:count] + np.uint64((first + start * int(_GOLDEN)) & 0xFFFFFFFFFFFFFFFF)
    z ^= z >> np.uint64(30)
    z *= _MIX[0]
    z += np.uint64(second)
    z ^= z >> np.uint64(27)
    z *= _MIX[1]
    z ^= z >> np.uint64(31)
    return z


def keys(seed: int, path: str) -> tuple[int, int]:
    """The two keys of a parameter's stream."""
    digest = hashlib.sha256(f"effspec 1\n{seed}\n{path}".encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")


def _halves(first: int, second: int, start: int, count: int) -> Halves:
    """`count` halves of words, as integers from -2^31."""
    words = _words(first, second, start // 2, (count + 1) // 2)
    return words.astype("<u8", copy=False).view("<i4")[:count]


def _centred(halves: Halves) -> Real:
    """Spread evenly over (-1/2, 1/2), never 0 or an end: (n + 1/2) / 2^32."""
    out = halves.astype(np.float64)
    out += 0.5
    out *= 2.0**-32
    return out


def _polynomial(x: Real, coefficients: tuple[float, ...]) -> Real:
    """The highest power first (Horner), in the precision of x."""
    out = x * coefficients[0]
    for coefficient in coefficients[1:-1]:
        out += coefficient
        out *= x
    out += coefficients[-1]
    return out


# The inverse of the normal distribution, to 1.2e-7: Wichura, "Algorithm AS 241", Applied Statistics 37 (1988), PPND7.
_CENTRE = (
    (59.109374720, 159.29113202, 50.434271938, 3.3871327179),
    (67.187563600, 78.757757664, 17.895169469, 1.0),
)
_TAIL = (
    (0.17023821103, 1.3067284816, 2.7568153900, 1.4234372777),
    (0.12021132975, 0.73700164250, 1.0),
)
_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_ATANH = tuple(2.0 / k for k in (9, 7, 5, 3, 1))


def _log(p: Real) -> Real:
    """Natural logarithm of positive numbers, to about 1e-9: exact scaling to m in [1/2, 1), then 2 artanh(s)."""
    m, exponent = np.frexp(p)
    s = (m - _SQRT_HALF) / (m + _SQRT_HALF)
    return _polynomial(s * s, _ATANH) * s + (exponent.astype(p.dtype) - 0.5) * _LN2


def _quantile(q: Real, p: Real) -> Real:
    """The standard normal number at which the distribution function is q + 1/2, which is p away from its nearer end.

    p is at least 2^-33, so that AS 241's third range (p < 1.4e-11) is never entered.
    """
    r = q * q
    np.subtract(0.180625, r, out=r)
    out = _polynomial(r, _CENTRE[0])
    out /= _polynomial(r, _CENTRE[1])
    out *= q
    far = np.flatnonzero(r < 0)
    r = np.sqrt(-_log(p[far])) - 1.6
    out[far] = np.copysign(_polynomial(r, _TAIL[0]) / _polynomial(r, _TAIL[1]), q[far])
    return out


def _standard_normal(halves: Halves) -> Real:
    """In float32: how far a half is from its nearer end is counted in integers, since there float32 has no digits."""
    q, p = halves.astype(np.float32), ((halves >> 31) ^ halves ^ 0x7FFFFFFF).astype(np.float32)
    q *= 2.0**-32
    p += 0.5
    p *= 2.0**-32
    return _quantile(q, p)


@lru_cache(maxsize=64)
def _below(x: Fraction) -> float:
    """The standard normal distribution function minus 1/2, rounded once: its power series in exact arithmetic."""
    if abs(x) >= 8:
        return 0.5 if x > 0 else -0.5
    total, term, n = Fraction(0), x, 0
    while abs(term) > Fraction(1, 10**20):
        total += term / (2 * n + 1)
        n += 1
        term *= -x * x / (2 * n)
        term = term.limit_denominator(10**40)
    return float(total * Fraction(3989422804014326779399460599343818685, 10**37))


def _uniform(law: Uniform) -> Transform:
    middle, width = (law.low + law.high) / 2, law.high - law.low

    def transform(halves: Halves) -> Real:
        q = _centred(halves)
        q *= width
        q += middle
        return q

    return transform


def _normal(law: Normal) -> Transform:
    """By inversion, so that a cut law needs one number a value and no second draw."""
    if math.isinf(law.low) and math.isinf(law.high):

        def transform(halves: Halves) -> Real:
            out = _standard_normal(halves)
            out *= law.std
            out += law.mean
            return out

        return transform
    low, high = (_below(Fraction(end - law.mean) / Fraction(law.std)) for end in (law.low, law.high))
    middle, width = (low + high) / 2, high - low

    def cut(halves: Halves) -> Real:
        q = _centred(halves)
        q *= width
        q += middle
        out = _quantile(q, np.maximum(0.5 - np.abs(q), 2.0**-33))
        out *= law.std
        out += law.mean
        return np.clip(out, law.low, law.high, out=out)

    return cut
