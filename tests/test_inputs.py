"""Grey and multispectral inputs, rectangles and odd sizes: every target computes what timm's model does with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import effspec
from effspec.diagnostics import EffspecError
from effspec.library import shipped
from effspec.resolve import load
from effspec.runtime import verify
from effspec.runtime.reference import Awake, random_inputs
from effspec.runtime.runners import runners
from tests import parity

pytest.importorskip("timm")
pytest.importorskip("onnxruntime")
torch.set_num_threads(1)

# Spec, variant, timm's model, height and width, channels.
CASES = [
    ("b0", "b0", "efficientnet_b0", (64, 95), 1),
    ("efficientnet_v2", "tf_v2_b0", "tf_efficientnetv2_b0", (65, 98), 2),
    ("mobilenet_v3", "tf_small", "tf_mobilenetv3_small_100", (67, 96), 1),
    ("resnet", "resnet18d", "resnet18d", (63, 97), 1),
    ("regnet", "y_400mf", "regnety_004", (70, 101), 5),
    ("convnext", "atto", "convnext_atto", (67, 99), 1),
    ("nfnet", "nf_regnet_b0", "nf_regnet_b0", (64, 85), 1),
]


@pytest.mark.parametrize(("spec", "variant", "peer", "size", "channels"), CASES, ids=lambda value: str(value))
def test_every_target_and_the_peer(spec: str, variant: str, peer: str, size: Any, channels: int) -> None:
    net = effspec.compile(spec, variant=variant, set={"size": size, "in_channels": channels})
    assert net.input_shape == (channels, *size)
    prepared = net.prepared("image")
    assert len(prepared.mean) == channels and prepared.shape[1:] == size
    weights, inputs = Awake(net.graph), random_inputs(net.graph, 1, 0)
    judged = verify.Reference(net, weights, inputs)
    module = parity.peer(f"timm/{peer}", in_chans=channels)
    state = module.state_dict()
    arrays = {parameter.path: weights.tensor(parameter) for parameter in net.graph.parameters(buffers=True)}
    for path, name in parity.match(state, net).items():
        state[name] = torch.from_numpy(arrays[path]).reshape(state[name].shape)
    module.load_state_dict(state)
    expected = parity.forward(module.double(), torch.from_numpy(inputs["image"]).double())
    assert verify.distance(judged.expected[0], expected) <= parity.TOLERANCE
    for verdict in verify.verify(net, list(runners()), inputs, weights):
        assert verdict.agrees, (verdict.runner.title, verdict.difference, verdict.layer)


@pytest.mark.parametrize("spec", [name for name in shipped() if load(name).variants])
def test_every_spec_takes_a_grey_rectangle(spec: str) -> None:
    variant = next(iter(load(spec).variants))
    net = effspec.compile(spec, variant=variant, set={"size": (320, 384), "in_channels": 1})
    assert net.input_shape == (1, 320, 384)
    assert len(net.prepared("image").mean) == 1


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((1, 2, 3), "sides needs a number or [height, width], found a list of 3"),
        ("large", 'sides needs a number or [height, width], found the text "large"'),
    ],
)
def test_sizes_that_are_none(size: Any, message: str) -> None:
    with pytest.raises(EffspecError) as caught:
        effspec.compile("resnet", variant="resnet18", set={"size": size})
    assert caught.value.diagnostics[0].message == message
