"""Every claim `equals(...)` of the shipped specs is a peer's model: one variant a file, and ten by chance in every run.

Weights are moved by structure and shape.  Emitted PyTorch is judged in float64, ONNX Runtime against that float64
result.  What chance chose stands in the failure; `pytest tests/test_zoo.py --zoo regnet:y_400mf` judges it again, and
`effspec check SPEC --peers` judges all variants of a spec.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import chain
from math import sqrt
from typing import Any

import pytest

import effspec
from effspec import library
from effspec.expectations import claims
from effspec.resolve import load
from tests import parity
from tests.parity import TOLERANCE, Judged, distance, forward

pytest.importorskip("timm")
pytest.importorskip("torchvision")

# What fits into a test beside others: larger variants are judged by `effspec check --peers`, those of more
# multiply-adds at a smaller size.
MOST_PARAMETERS, MOST_MACS = 90_000_000, 500_000_000
# Where 128 pixels are too few: the auxiliary head of Inception v3 ends in a window of 5.
SMALLEST = {"inception_v3": 299}
CHANCES = 10


@cache
def claimed(spec: str) -> dict[str, str]:
    """The variants of a spec that are timm's or torchvision's, with the peer's name."""
    found = claims(load(spec).expects)
    own = {
        name: [peer for peer in peers if peer.startswith(("timm/", "torchvision/"))] for name, peers in found.items()
    }
    return {name: peers[0] for name, peers in own.items() if peers}


SPECS = [spec for spec in library.shipped() if claimed(spec)]


def point(spec: str, variant: str) -> Any:
    """A variant at its own size, or at a smaller one if that would take too long."""
    compiled = effspec.compile(spec, variant=variant)
    size = compiled.input_shape[-1]
    if compiled.macs > MOST_MACS and "size" in compiled.parameters:
        smaller = max(SMALLEST.get(spec, 128), round(size * sqrt(MOST_MACS / compiled.macs) / 32) * 32)
        return effspec.compile(spec, variant=variant, set={"size": min(size, smaller)})
    return compiled


def judge(spec: str, variant: str) -> None:
    compiled = point(spec, variant)
    size, name = compiled.input_shape[-1], f"{spec}:{variant} at {compiled.input_shape[-1]} pixels"
    peer = parity.awaken(parity.peer(claimed(spec)[variant]), size)
    weights = parity.move(peer, compiled)
    x = parity.picture(size)
    judged = Judged(peer, x)
    module = parity.emitted(compiled, weights).double()
    assert distance(forward(module, x.double()), judged.expected) <= TOLERANCE, name
    data = parity.onnx_file(compiled, weights)
    assert distance(parity.runtime(data, x), judged.expected) <= judged.allowed, name


@pytest.mark.parametrize("spec", SPECS)
def test_a_variant_of_every_spec(spec: str) -> None:
    """The first one that is a peer's."""
    judge(spec, next(iter(claimed(spec))))


@pytest.mark.parametrize("number", range(CHANCES))
def test_a_variant_by_chance(number: int, request: pytest.FixtureRequest) -> None:
    chosen = request.config.getoption("--zoo")
    if chosen:
        judge(*chosen.split(":"))
        return
    chance = random.SystemRandom()
    while True:
        spec, variant = chance.choice(list(chain(*([(s, v) for v in claimed(s)] for s in SPECS))))
        if effspec.compile(spec, variant=variant).params <= MOST_PARAMETERS:
            break
    judge(spec, variant)
