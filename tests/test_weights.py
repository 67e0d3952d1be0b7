"""Weight sources: seeded values, safetensors files, PyTorch checkpoints; judged by NumPy, safetensors and torch."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest

from effspec.ir.graph import Parameter
from effspec.params import initializer
from effspec.weights import initial
from effspec.weights.initial import Seeded


def parameter(path: str, shape: tuple[int, ...], kind: str = "normal", **given: object) -> Parameter:
    return Parameter(path, shape, initializer(kind, given or ({"std": 1} if kind == "normal" else {})))


def kolmogorov(values: np.ndarray, cdf: object) -> float:
    """The Kolmogorov-Smirnov statistic times the square root of the count; above 2 once in 1500 draws of the law."""
    x = np.sort(values.astype(np.float64).ravel())
    exact = np.array([cdf(v) for v in x])  # type: ignore[operator]
    steps = np.arange(x.size + 1) / x.size
    return float(sqrt(x.size) * max(np.max(steps[1:] - exact), np.max(exact - steps[:-1])))


# --- seeded values -------------------------------------------------------------------------------------------------


def splitmix(first: int, second: int, index: int) -> int:
    """The generator of the module's docstring in Python integers."""
    mask = (1 << 64) - 1
    z = (first + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9 + second) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    return z ^ z >> 31


def test_splitmix_is_the_published_one() -> None:
    # First outputs of the reference implementation (Vigna, splitmix64.c) from the state 1234567.
    assert [splitmix(1234567, 0, i) for i in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_words_are_those_of_plain_integers() -> None:
    first, second = initial.keys(7, "stem.conv.weight")
    count = initial._CHUNK + 3
    found = Seeded(7).tensor(parameter("stem.conv.weight", (count,), "uniform", low=0, high=1))
    for i in (0, 1, 2, 3, initial._CHUNK - 1, initial._CHUNK, count - 1):
        half = splitmix(first, second, i // 2) >> (32 * (i % 2)) & 0xFFFFFFFF
        half -= (half >> 31) << 32
        assert found[i] == np.float32((half + 0.5) / 2**32 + 0.5)


def test_normal_quantile() -> None:
    q = np.concatenate([np.linspace(-0.4999, 0.4999, 5001), np.array([2.0**-33 - 0.5, 0.5 - 2.0**-33, 0.425, -0.425])])
    exact = np.array([NormalDist().inv_cdf(float(x) + 0.5) for x in q])
    assert np.max(np.abs(initial._quantile(q.copy()) - exact)) < 6e-7
    assert np.max(np.abs(initial._log(np.linspace(1e-9, 0.08, 9999)) - np.log(np.linspace(1e-9, 0.08, 9999)))) < 1e-11


@pytest.mark.parametrize("x", ["1/2", "2", "33/10", "-79/10", "9"])
def test_normal_cdf(x: str) -> None:
    assert initial._below(Fraction(x)) == pytest.approx(NormalDist().cdf(float(Fraction(x))) - 0.5, abs=1e-16)


def test_laws() -> None:
    shape = (40, 10, 5, 5)
    fan_in, fan_out = 250, 1000
    laws = {
        "normal": ({"std": Fraction(1, 50), "mean": 1}, 1.0, 0.02),
        "kaiming_normal": ({"mode": "fan_out"}, 0.0, sqrt(2 / fan_out)),
        "xavier_normal": ({}, 0.0, sqrt(2 / (fan_in + fan_out))),
    }
    for kind, (given, mean, std) in laws.items():
        values = Seeded(3).tensor(parameter("p", shape, kind, **given))
        assert values.shape == shape and values.dtype == np.float32
        assert kolmogorov(values, NormalDist(mean, std).cdf) < 2
    for kind, given, end in (
        ("uniform", {"low": -2, "high": 2}, 2.0),
        ("kaiming_uniform", {"mode": "fan_in"}, sqrt(6 / fan_in)),
        ("xavier_uniform", {}, sqrt(6 / (fan_in + fan_out))),
    ):
        values = Seeded(4).tensor(parameter("p", shape, kind, **given))
        assert kolmogorov(values, lambda x, end=end: (x + end) / (2 * end)) < 2
    values = Seeded(5).tensor(parameter("p", shape, "truncated_normal", std=Fraction(1, 2), mean=3, cut=1))
    law = NormalDist(3, 0.5)
    low, high = law.cdf(2.5), law.cdf(3.5)
    assert kolmogorov(values, lambda x: (law.cdf(x) - low) / (high - low)) < 2
    assert values.min() >= 2.5 and values.max() <= 3.5
    assert np.array_equal(
        Seeded().tensor(parameter("p", (2, 3), "constant", value=Fraction(1, 3))), np.full((2, 3), 1 / 3, "f")
    )
    assert Seeded().tensor(parameter("p", ())).shape == ()


def test_streams_depend_on_seed_and_path_alone() -> None:
    a, b = parameter("a", (30001,)), parameter("b", (30001,))
    one, other = Seeded(0), Seeded(0)
    first = one.tensor(a)
    other.tensor(b)
    assert np.array_equal(first, other.tensor(a))
    # A longer tensor of the same path begins with the same values, whatever the chunks are.
    assert np.array_equal(first[:777], one.tensor(parameter("a", (777,))))
    for x, y in ((first, one.tensor(b)), (first, Seeded(1).tensor(a)), (first[1:], first[:-1])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 4 / sqrt(x.size)
    assert abs(np.corrcoef(first[::2][:15000], first[1::2][:15000])[0, 1]) < 4 / sqrt(15000)


def test_values_never_change() -> None:
    """Published values: a change here gives every user other initial weights, so it is never made silently."""
    digest = hashlib.sha256()
    for kind, given in (
        ("normal", {"std": 1}),
        ("truncated_normal", {"std": Fraction(1, 50)}),
        ("kaiming_normal", {"mode": "fan_out"}),
        ("kaiming_uniform", {}),
        ("xavier_normal", {}),
        ("xavier_uniform", {}),
    ):
        digest.update(Seeded(42).tensor(parameter("x.weight", (64, 32, 3, 3), kind, **given)).astype("<f4").tobytes())
    assert digest.hexdigest() == "dbf9c8eebda36f9cd48ee34ad3ed571a3aaf04e88a39481a0e6f5a5d5e76a503"
