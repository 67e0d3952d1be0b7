"""Seeded initial values: one portable stream of random numbers a parameter path, the same bits on every machine.

A value depends on the seed, the parameter's path and its place in the tensor, on nothing else: not on other parameters,
their order, the version of NumPy, the processor or the target.  Two things make that so.

- The words come from SplitMix64 (Steele, Lea, Flood 2014) run as a counter-based generator: word i is a mix of
  `key + (i + 1) * golden`, in 64-bit integers that wrap.  The key, and a second one that is added within the mix, are
  the first 16 bytes of SHA-256 of the seed and the path.  Word i gives values 4i to 4i + 3, its low quarter first.
- A law is a table of its 65,536 quantiles, one for each quarter: finer than the half precisions that networks are
  trained in, and several times as fast as computing each value.  A normal law ends at 4.3 standard deviations.  Tables
  are made with +, -, *, / and the square root, which IEEE 754 rounds in one way, and `frexp`, which is exact.
  `numpy.log` and `numpy.exp` are not used: their last bit depends on the processor's instructions.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from effspec.ir.graph import Parameter
from effspec.params import Normal, distribution

Real: TypeAlias = NDArray[np.float64]
Table: TypeAlias = NDArray[np.float32]
Words: TypeAlias = NDArray[np.uint64]
Quarters: TypeAlias = NDArray[np.uint16]

# So many values at a time keep the work in the cache of the processor.
_CHUNK = 1 << 16
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEPS: Words = np.arange(1, _CHUNK // 4 + 1, dtype=np.uint64) * _GOLDEN


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
    if law.kind == "uniform":
        table, scale, shift = _uniform(), law.high - law.low, (law.low + law.high) / 2
    else:
        table, scale, shift = _normal(*_cut(law)), law.std, law.mean
    flat, stream = out.reshape(-1), keys(seed, parameter.path)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        # No quarter is outside the table; `clip` lets NumPy write to `part` at once.
        np.take(table, _quarters(*stream, start, part.size), out=part, mode="clip")
        part *= scale
        if shift:
            part += shift
    return out


def keys(seed: int, path: str) -> tuple[int, int]:
    """The two keys of a parameter's stream."""
    digest = hashlib.sha256(f"effspec 1\n{seed}\n{path}".encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")


def _words(first: int, second: int, start: int, count: int) -> Words:
    """Words `start` to `start + count` of the stream of two keys; `count` is at most a quarter of a chunk."""
    z = _STEPS[:count] + np.uint64((first + start * int(_GOLDEN)) & 0xFFFFFFFFFFFFFFFF)
    z ^= z >> np.uint64(30)
    z *= _MIX[0]
    z += np.uint64(second)
    z ^= z >> np.uint64(27)
    z *= _MIX[1]
    z ^= z >> np.uint64(31)
    return z


def _quarters(first: int, second: int, start: int, count: int) -> Quarters:
    """`count` quarters of words, from quarter `start` on, which is the first of a word."""
    words = _words(first, second, start // 4, (count + 3) // 4)
    return words.astype("<u8", copy=False).view("<u2")[:count]


# The laws, each as the quantiles at (n + 1/2) / 65536 of its standard form.


def _centred() -> Real:
    """The probabilities of the quantiles, less 1/2."""
    return (np.arange(1 << 16, dtype=np.float64) + 0.5) * 2.0**-16 - 0.5


@lru_cache(maxsize=1)
def _uniform() -> Table:
    """Between -1/2 and 1/2."""
    return _centred().astype(np.float32)


@lru_cache(maxsize=16)
def _normal(low: Fraction | None, high: Fraction | None) -> Table:
    """Of standard deviation 1 before it is cut to `low` to `high` (None where it is not)."""
    below, above = (_below(low) if low is not None else -0.5), (_below(high) if high is not None else 0.5)
    return _quantile(_centred() * (above - below) + (below + above) / 2).astype(np.float32)


def _cut(law: Normal) -> tuple[Fraction | None, Fraction | None]:
    """The ends of a normal law, in standard deviations from its mean."""
    low, high = (
        None if math.isinf(end) else (Fraction(end) - Fraction(law.mean)) / Fraction(law.std)
        for end in (law.low, law.high)
    )
    return low, high


def _polynomial(x: Real, coefficients: tuple[float, ...]) -> Real:
    """The highest power first (Horner)."""
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
    return _polynomial(s * s, _ATANH) * s + (exponent - 0.5) * _LN2


def _quantile(q: Real) -> Real:
    """The standard normal number at which the distribution function is q + 1/2.

    q is at least 2^-17 from both ends, so that AS 241's third range (p < 1.4e-11) is never entered.
    """
    r = 0.180625 - q * q
    out = q * _polynomial(r, _CENTRE[0]) / _polynomial(r, _CENTRE[1])
    far = np.flatnonzero(r < 0)
    r = np.sqrt(-_log(0.5 - np.abs(q[far]))) - 1.6
    out[far] = np.copysign(_polynomial(r, _TAIL[0]) / _polynomial(r, _TAIL[1]), q[far])
    return out


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
