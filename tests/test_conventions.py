"""What other tools count: fvcore beside us, and what pycls and torchvision publish, to the last operation."""

from __future__ import annotations

import json
import logging
import warnings

import pytest
import torch

import effspec
from effspec import library
from effspec.cli import main
from effspec.conventions import counted, receptive_fields, written
from effspec.expectations import claims
from effspec.resolve import load


def by_fvcore(model: torch.nn.Module, shape: tuple[int, ...]) -> int:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(model.eval(), torch.zeros(1, *shape))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        return int(analysis.total())


@pytest.mark.parametrize(
    ("spec", "variant", "settings"),
    [
        ("b0", "b0", {}),
        ("resnet", "resnet50", {"size": 97}),
        ("convnext", "tiny", {"size": 128}),
        ("regnet", "y_400mf", {}),
        ("nfnet", "f0", {"size": 96}),
        ("densenet", "d121", {"size": 64}),
        ("mobilenet_v4", "hybrid_medium", {"size": 128}),
        ("efficientnet_group", "b0_gn", {}),
        ("inception_v3", "v3", {}),
        ("hrnet", "w18_small", {"size": 64}),
        ("unet", "bilinear", {"size": 64}),
        ("deeplab", "fcn_resnet50", {"size": 64}),
        ("efficientdet", "d0", {"size": 128}),
    ],
)
def test_fvcore_counts_the_emitted_model_so(spec: str, variant: str, settings: dict[str, int]) -> None:
    net = effspec.compile(spec, variant=variant, set=settings)
    assert counted(net.cost, "fvcore") == by_fvcore(net.to_torch(), net.input_shape)


def test_fvcore_counts_pools_that_are_modules() -> None:
    """torchvision's own ResNet costs the elements that its pool reads besides: 2,048 x 7 x 7."""
    from torchvision.models import resnet50

    net = effspec.compile("resnet", variant="tv_resnet50")
    assert by_fvcore(resnet50(), net.input_shape) == counted(net.cost, "fvcore") + 2048 * 7 * 7


# dev/model_complexity.json of pycls 5719de6: params, flops, acts.
PYCLS = [
    ("b0", "b0", 224, (5288548, 385825092, 6748036)),
    ("b0", "b3", 300, (12233232, 1827162472, 23831296)),
    ("b0", "b5", 456, (30389784, 10266426072, 98857400)),
    ("regnet", "x_1_6gf", 224, (9190136, 1602850792, 7933512)),
    ("regnet", "x_32gf", 224, (107811560, 31735930792, 36302160)),
    ("regnet", "y_400mf", 224, (4344144, 401849056, 3892496)),
    ("regnet", "y_4gf", 224, (20646656, 3973301344, 12287200)),
    ("resnet", "resnet50", 224, (25557032, 4089185256, 11315688)),
    ("resnet", "resnet101", 224, (44549160, 7801406440, 16433640)),
]


@pytest.mark.parametrize(("spec", "variant", "size", "expected"), PYCLS)
def test_pycls_publishes(spec: str, variant: str, size: int, expected: tuple[int, int, int]) -> None:
    cost = effspec.compile(spec, variant=variant, set={"size": size}).cost
    assert (cost.params, counted(cost, "pycls"), cost.acts) == expected


def published() -> list[tuple[str, str, str]]:
    """Every variant that is a model of torchvision."""
    found = ((spec, claims(load(spec).expects)) for spec in library.shipped())
    return [
        (spec, variant, peer.removeprefix("torchvision/"))
        for spec, variants in found
        for variant, peers in variants.items()
        for peer in peers
        if peer.startswith("torchvision/")
    ]


def test_torchvision_publishes() -> None:
    """Parameters and operations, in the metadata of its weights, at their size."""
    from torchvision.models import get_model_weights

    compared, wrong = 0, []
    for spec, variant, name in published():
        for weights in get_model_weights(name):
            crop = weights.transforms.keywords.get("crop_size") if hasattr(weights.transforms, "keywords") else None
            if "_ops" not in weights.meta or crop is None or "seg" in str(type(weights)).lower():
                continue
            net = effspec.compile(spec, variant=variant, set={"size": crop})
            found = written(counted(net.cost, "torchvision"), "torchvision")
            # Those of heads in training count for Inception v3 there, and not for GoogLeNet.
            params = (net.params, net.cost.training_params)
            if weights.meta["num_params"] not in params or found != f"{weights.meta['_ops']:.3f}":
                wrong.append((variant, str(weights), crop, params, found, weights.meta["_ops"]))
            compared += 1
            break
    assert wrong == []
    assert compared > 40


# Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks", table 1: before the last pool.
@pytest.mark.parametrize(
    ("spec", "variant", "expected"),
    [
        ("alexnet", "alexnet", 195),
        ("vgg", "tv_vgg16", 212),
        ("mobilenet_v1", "w100", 315),
        ("mobilenet_v1", "w075", 315),
        ("inception_v3", "v3", 1311),
        ("inception_v4", "v4", 2071),
        ("inception_resnet_v2", "v2", 3039),
    ],
)
def test_receptive_fields_as_published(spec: str, variant: str, expected: int) -> None:
    cost = effspec.compile(spec, variant=variant).cost
    fields = receptive_fields([row.node for row in cost.nodes])
    assert max(field for field in fields.values() if field is not None) == (expected, expected)


def test_receptive_fields_are_where_gradients_are() -> None:
    """Dilation, rectangles of kernels and strides: the pixels that one element of the output has a gradient for."""
    net = effspec.compile("mobilenet_v3", variant="tv_large", set={"size": 224, "classes": 3})
    model = net.to_torch().eval().double()
    rows = [row.node for row in net.cost.nodes]
    fields = receptive_fields(rows)
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64, requires_grad=True)
    y = model.forward_features(x)["stage1"]
    y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum((0, 1)) > 0
    last = [node for node in rows if node.path.startswith("stage1")][-1]
    assert (int(seen.any(1).sum()), int(seen.any(0).sum())) == fields[last.id]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "b0", "--variant", "b0", "--by", "stage", "--convention", "pycls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["operations"] == {
        "paper": 385814752, "pycls": 385825092, "fvcore": 399290144, "torchvision": 385814752,
    }  # fmt: skip
    for total, name in ((found["point"]["params"], "params"), (385825092, "operations"), (found["buffers"], "buffers")):
        assert sum(part[name] for part in found["parts"]) == total
    assert [part["name"] for part in found["parts"]][:3] == ["stem", "stage1", "stage2"]
    assert main(["cost", "b0", "--convention", "pycls"]) == 2
    assert "--convention has no effect without --by: the totals are in all of them" in capsys.readouterr().err
