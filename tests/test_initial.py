"""How weights start: the laws that the specs state, against what timm's and torchvision's own models draw."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch

import effspec
from effspec.ir.graph import Parameter
from effspec.params import Constant, Normal, distribution
from tests import parity
from tests.test_zoo import SPECS, claimed

pytest.importorskip("timm")
pytest.importorskip("torchvision")


def distance(values: np.ndarray, parameter: Parameter) -> float:
    """Kolmogorov's distance of a sample from a parameter's law, in units of its standard size for a true sample."""
    law = distribution(parameter.init, parameter.shape)
    if isinstance(law, Constant):
        return 0.0 if (values == law.value).all() else math.inf
    drawn = np.sort(values.reshape(-1)[:20_000].astype(float))
    if isinstance(law, Normal):
        assert math.isinf(law.low) and math.isinf(law.high)
        cdf = np.vectorize(NormalDist(law.mean, law.std).cdf)(drawn)
    else:
        cdf = (drawn - law.low) / (law.high - law.low)
    ranks = np.arange(len(drawn) + 1) / len(drawn)
    return float(max(np.abs(cdf - ranks[:-1]).max(), np.abs(cdf - ranks[1:]).max()) * len(drawn) ** 0.5)


CASES = [
    ("b0", "b0", "timm/efficientnet_b0"),
    ("b0", "tv_b0", "torchvision/efficientnet_b0"),
    ("efficientnet_lite", "lite0", "timm/efficientnet_lite0"),
    ("efficientnet_v2", "s", "timm/efficientnetv2_s"),
    ("efficientnet_cc", "b0_4e", "timm/efficientnet_cc_b0_4e"),
    ("mobilenet_v4", "hybrid_medium", "timm/mobilenetv4_hybrid_medium"),
    ("efficientnet_v2", "tv_s", "torchvision/efficientnet_v2_s"),
    ("squeezenet", "v1_1", "torchvision/squeezenet1_1"),
    ("mobileone", "s1", "timm/mobileone_s1"),
    ("convnext", "atto", "timm/convnext_atto"),
    ("mnasnet", "tv_b1_w050", "torchvision/mnasnet0_5"),
    ("mobilenet_v2", "tv_w100", "torchvision/mobilenet_v2"),
    ("mobilenet_v3", "tv_small", "torchvision/mobilenet_v3_small"),
    ("nfnet", "test_nfnet", "timm/test_nfnet"),
    ("regnet", "x_200mf", "timm/regnetx_002"),
    ("resnet", "resnet18", "timm/resnet18"),
]
# Biases start at zero here (specs/README.md); these families' peers leave some to PyTorch, within 1 / sqrt(fan in).
DRAWN_BIASES = {
    *("alexnet", "deeplab", "dpn", "ghostnet", "googlenet", "hrnet", "inception_resnet_v2", "inception_v3"),
    *("inception_v4", "repvgg", "resnet", "resnet_rs", "shufflenet_v2", "vovnet", "xception"),
}
# Cut out of trained networks: timm's hold PyTorch's values until they are given theirs.
PRUNED = {"efficientnet_pruned", "resnet_pruned"}


@cache
def smallest(spec: str, library: str) -> tuple[str, str] | None:
    """The variant of the fewest parameters that is a model of this library, and the model."""
    found = {variant: peer for variant, peer in claimed(spec).items() if peer.startswith(library)}
    variant = min(found, key=lambda name: int(effspec.compile(spec, variant=name).params), default=None)
    return (variant, found[variant]) if variant else None


@pytest.mark.parametrize(("spec", "variant", "peer"), CASES, ids=[case[1] for case in CASES])
def test_peers_draw_from_our_laws(spec: str, variant: str, peer: str) -> None:
    torch.manual_seed(0)
    compiled = effspec.compile(spec, variant=variant)
    moved = parity.move(parity.peer(peer), compiled)
    off = {}
    for parameter in compiled.graph.parameters(buffers=True):
        if spec in DRAWN_BIASES and parameter.path.endswith(".bias"):
            continue
        found = distance(moved[parameter.path], parameter)
        # By chance one sample of 3 * 10^7 is farther than this.
        if found > 3:
            off[parameter.path] = found
    assert off == {}


@pytest.mark.campaign
@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize("spec", sorted({*SPECS} - PRUNED))
def test_every_family_draws_from_its_peers_laws(spec: str, library: str) -> None:
    found = smallest(spec, library)
    if found is None:
        pytest.skip(f"{library} has none of these")
    test_peers_draw_from_our_laws(spec, *found)


@pytest.mark.parametrize("variant", ["b0", "tv_b0"])
def test_emitted_files_draw_from_our_laws(variant: str) -> None:
    """torch's own initialisers in the emitted file, with either count of a depthwise fan out."""
    compiled = effspec.compile("b0", variant=variant)
    names: dict[str, Any] = {"__name__": "emitted"}
    exec(compiled.emit("torch"), names)
    torch.manual_seed(1)
    state = names["EfficientNet"]().state_dict()
    off = {p.path: distance(state[p.path].numpy(), p) for p in compiled.graph.parameters(buffers=True)}
    assert {path: found for path, found in off.items() if found > 3} == {}


def test_the_distance_sees() -> None:
    """A deviation that is off by a tenth, and a bound that is, are told from the true law."""
    compiled = effspec.compile("b0")
    for parameter in compiled.graph.parameters():
        if parameter.path in ("head.conv.weight", "classifier.weight"):
            values = compiled.weights(seed=1).tensor(parameter)
            assert distance(values, parameter) < 3 < distance(values * 1.1, parameter)
