"""Emitted PyTorch files for tests: a small model of every spec, as a module, with weights that let all of it matter."""

from __future__ import annotations

import math
import types
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

import effspec
from effspec.ir.graph import Parameter
from effspec.pipeline import Compiled
from tests.graphs import images

ROOT = Path(__file__).parent.parent
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Case:
    """A variant, and the settings that make a small model of it with every part still there."""

    spec: str
    variant: str | None
    small: Mapping[str, Any] = field(hash=False, compare=False, default_factory=dict)

    def __str__(self) -> str:
        return "-".join([*Path(self.spec).parts[-2:], self.variant or "default"])

    def compiled(self, **settings: Any) -> Compiled:
        return effspec.compile(f"{ROOT / self.spec}.eff", variant=self.variant, set=settings)


def _case(spec: str, variant: str | None, **small: Any) -> Case:
    folder = "specs" if (ROOT / "specs" / f"{spec}.eff").exists() else "tests/examples"
    return Case(f"{folder}/{spec}", variant, {"size": 64, **small})


CASES = [
    _case("b0", "b0", depth=0.5),
    _case("b0", "tf_b0", size=65, depth=0.5),
    _case("b0", "tv_b3", size=75, classes=10, depth=1),
    _case("b0", "b7", depth=1),
    _case("efficientnet_lite", "lite0"),
    _case("efficientnet_lite", "tf_lite3", size=75),
    _case("efficientnet_v2", "s", widths=[8, 16, 24, 40, 48, 64], depths=[1, 2, 2, 2, 3, 2]),
    _case("efficientnet_v2", "tf_v2_b1", size=75),
    _case("efficientnet_v2", "m", widths=[8, 16, 24, 40, 48, 64, 72], depths=[2, 1, 2, 2, 3, 2, 1]),
    _case("resnet", "seresnext26d_32x4d", widths=[16, 16, 32, 48], classes=10),
    _case("regnet", "y_400mf", size=75),
    _case("convnext", "tiny", depths=[1, 2, 3, 1], widths=[16, 24, 32, 40]),
    _case("densenet", "d121", growth=8, layers=[2, 3, 1, 2]),
    _case("resnet_rs", "rs50", widths=[8, 16, 16, 32], depths=[1, 2, 1, 2]),
    _case("resnet_pruned", "ecaresnet50d_pruned"),
    _case("resnet_v2", "resnetv2_50x1_bit", widths=[128, 128, 256, 256], depths=[1, 2, 1, 2]),
    _case("nfnet", "test_nfnet", size=75),
    _case("01_lite", "lite3"),
    _case("02_effnetv2", "s", classes=10),
    _case("03_mobilenet", "v3_large"),
    _case("03_mobilenet", "v3_large_075", size=75),
    _case("03_mobilenet", "v4_small"),
    _case("04_mixnet", "s"),
    _case("05_resnet", "r50", depths=[1, 2, 1, 2], base=16, classes=10),
    _case("05_resnet", "se50d", depths=[1, 2, 1, 2], base=16, size=75, classes=10),
    _case("05_resnet", "x50_32x4d", depths=[2, 1, 2, 1], classes=10),
    _case("06_regnet", "y_400mf"),
    _case("07_densenet", "d121", growth=8, layers=[2, 3, 1, 2], width=16),
    _case("07_densenet", "d161", growth=8, layers=[1, 2, 3, 2], width=24),
    _case("08_convnext", "tiny", depths=[1, 2, 3, 1], widths=[16, 24, 32, 40]),
    _case("08_convnext", "v2_tiny", depths=[2, 1, 3, 1], widths=[16, 24, 32, 40]),
    _case("09_nfnet", "f0", widths=[256, 256, 256, 256]),
    # The head that exists in training needs a map of 17 x 17.
    _case("10_inception", "v3", size=299),
    _case("11_shufflenet", "x1_0"),
    _case("12_repvgg", "a0", depths=[2, 3, 4, 1], widths=[16, 24, 32, 40], stem=16),
    _case("13_hrnet", "w18", width=4),
    _case("14_efficientdet", "d0", size=128),
    _case("15_unet", "base", widths=[8, 16, 24], size=32),
    _case("16_classic", "vgg16", size=32, depths=[1, 2, 1, 1, 1], classes=10),
    _case("16_classic", "googlenet"),
    _case("mobilenet_v1", "w125"),
    _case("mobilenet_v2", "w110_d120", size=75),
    _case("mobilenet_v3", "large"),
    _case("mobilenet_v3", "tf_small_minimal", size=75),
    _case("mobilenet_v3", "large_rw"),
    _case("mnasnet", "a1_w100"),
    _case("mnasnet", "small", size=75),
    _case("mixnet", "s"),
    _case("mixnet", "m", size=75),
    _case("tinynet", "c", size=75),
    _case("table3", "v2_compound", size=75, width=0.5),
    _case("small", "s28", size=27),
    _case("efficientnet_edge", "es"),
    _case("efficientnet_edge", "tf_em", size=65),
    _case("lcnet", "w050"),
    _case("spnasnet", "w100"),
    _case("hardcorenas", "a"),
    _case("vgg", "vgg16_bn", depths=[1, 2, 1, 1, 1], widths=[8, 16, 16, 24, 24], hidden=32),
    _case("vgg", "tv_vgg11", size=75, hidden=32),
    _case("alexnet", "alexnet", hidden=64),
    _case("squeezenet", "v1_0", squeeze=[8, 8, 16], pooled=[2, 3]),
    _case("googlenet", "googlenet"),
    _case("inception_v3", "v3", size=299),
    _case("inception_v4", "v4", size=96, depths=[1, 2, 1]),
    _case("inception_resnet_v2", "v2", size=96, depths=[2, 1, 1]),
    _case("xception", "xception", size=75, middle=2),
    _case("vovnet", "v39a", layers=2, mids=[8, 16, 16, 24], widths=[16, 24, 32, 40]),
    _case("vovnet", "v19b_dw", size=75, mids=[16, 16, 24, 32], widths=[32, 48, 48, 64]),
    _case("ghostnet", "v2_w100", size=75, width=0.5),
    _case("rexnet", "w100", width=0.5),
    _case("gernet", "small", widths=[16, 16, 48, 32, 24], depths=[1, 2, 2, 1, 1]),
    _case("dpn", "dpn68", size=75, depths=[1, 2, 1, 2]),
    _case("dpn", "dpn48b", depths=[1, 1, 2, 1]),
    _case("hgnet", "tiny", widths=[32, 48, 48, 64], mids=[16, 16, 24, 24], layers=2),
    _case("hgnet", "v2_b0", size=75, widths=[32, 48, 48, 64], hidden=64),
    _case("shufflenet_v2", "x0_5", size=75),
    _case("repvgg", "b1g4", depths=[2, 3, 4, 1], widths=[16, 24, 32, 40], stem=16),
    _case("repvgg", "d2se", depths=[1, 2, 1, 1], widths=[16, 32, 32, 48], stem=16, size=75),
    _case("mobileone", "s0", depths=[2, 3, 2, 1]),
    _case("mobileone", "s4", depths=[1, 2, 6, 1], widths=[32, 48, 64, 80]),
    _case("fbnet", "c"),
    _case("fbnet", "v3_b", size=75),
    _case("mobilenet_v4", "conv_small"),
    _case("mobilenet_v4", "hybrid_medium"),
    _case("mobilenet_v4", "conv_aa_large", size=75),
    _case("mobilenet_v5", "base", width=0.25, size=128),
    _case("efficientnet_test", "gn"),
    _case("efficientnet_test", "ln", size=75),
    _case("mobilenet_edgetpu", "v2_xs"),
    _case("efficientnet_cc", "b0_4e", depth=0.5),
    _case("efficientnet_cc", "tf_b1_8e", size=65, depth=0.5),
    _case("efficientnet_pruned", "b1", size=75),
    _case("efficientnet_x", "x_b3", depth=1, size=75),
    _case("efficientnet_v2", "gc_rw_t", depth=0.2, size=75),
    _case("efficientnet_group", "b0_g8_gn"),
    _case("efficientnet_group", "b0_blur", size=75),
    _case("hrnet", "w18_small_v2", base=4),
    _case("efficientdet", "d0", size=128),
    _case("efficientdet", "lite0", size=128, deeper=-2, head_depth=2),
    _case("deeplab", "fcn_resnet50_aux", widths=[8, 16, 24, 32]),
    _case("unet", "base", base=8, levels=3, size=[32, 48]),
    _case("unet", "bilinear", base=8, levels=3, size=32),
    Case("tests/examples/b0", None, {"size": 64}),
]
EVERY = pytest.mark.parametrize("case", CASES, ids=str)


@cache
def published(case: Case) -> Compiled:
    """The variant as it is."""
    return case.compiled()


@cache
def small(case: Case) -> Compiled:
    return case.compiled(**case.small)


@cache
def text_of(compiled: Compiled) -> str:
    text = compiled.emit("torch")
    assert isinstance(text, str)
    return text


def module_of(text: str) -> types.ModuleType:
    """The text, executed as a module of its own."""
    module = types.ModuleType("emitted")
    exec(compile(text, "emitted.py", "exec"), module.__dict__)
    return module


def built(compiled: Compiled, **arguments: Any) -> nn.Module:
    model: nn.Module = getattr(module_of(text_of(compiled)), compiled.name)(**arguments)
    return model


class Drawn:
    """Weights of a signal's size, one stream a path; scales around 1, variances positive."""

    def tensor(self, parameter: Parameter) -> numpy.ndarray:
        source = numpy.random.Generator(numpy.random.SFC64(zlib.crc32(parameter.path.encode())))
        values = source.standard_normal(parameter.shape, dtype=numpy.float32)
        name = parameter.path.rsplit(".", 1)[-1]
        if name == "running_var":
            values = 0.5 + numpy.abs(values)
        elif len(parameter.shape) >= 2:
            values *= math.prod(parameter.shape[1:]) ** -0.5
        elif name in ("weight", "scale"):
            values = 1 + values / 4
        else:
            values /= 4
        return values


class Held:
    """The tensors of a module."""

    def __init__(self, model: nn.Module) -> None:
        self.state = model.state_dict()

    def tensor(self, parameter: Parameter) -> numpy.ndarray:
        values: numpy.ndarray = self.state[parameter.path].numpy()
        return values


def awake(compiled: Compiled) -> nn.Module:
    """The model in float32 and evaluation mode, with weights with which two images give different outputs.

    The statistics of batch norm are those of a forward pass: without them, what a deep network makes of its input
    drowns in what it makes of its biases.
    """
    model: nn.Module = compiled.to_torch(weights=Drawn())
    norms = [module for module in frozen(model).modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(*inputs(compiled, batch=8, seed=2))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


@cache
def lively(case: Case) -> nn.Module:
    """The small model awake.  Copy it before you change it."""
    return awake(small(case))


def tensors(result: Any) -> list[torch.Tensor]:
    """What a model returns, in order, without its lists."""
    return [result] if isinstance(result, torch.Tensor) else [tensor for part in result for tensor in tensors(part)]


def inputs(compiled: Compiled, batch: int = 2, seed: int = 1) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in images(compiled.graph, batch, seed).values()]


def arrays(result: Any) -> list[numpy.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors(result)]


def frozen(model: nn.Module) -> nn.Module:
    """In training mode but for what is random or depends on the batch."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout) or type(module).__name__ == "DropPath":
            module.eval()
    return model


def drop_rates(model: nn.Module) -> list[float]:
    rates: list[float] = [m.rate for m in model.modules() if type(m).__name__ == "DropPath"]  # type: ignore[misc]
    return rates
