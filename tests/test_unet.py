"""U-Net equals a reference that is written here from the paper's Figure 1 and from what public code changed in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import effspec
from tests import parity


class Reference(nn.Module):
    """Four levels down and up; `bilinear` as in github.com/milesial/Pytorch-UNet, with fewer channels on the way up."""

    def __init__(self, channels: int, classes: int, base: int = 64, norm: bool = True, bilinear: bool = False) -> None:
        super().__init__()

        def double(inputs: int, middle: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for before, after in ((inputs, middle), (middle, outputs)):
                layers.append(nn.Conv2d(before, after, 3, padding=1, bias=not norm))
                layers += [nn.BatchNorm2d(after)] if norm else []
                layers.append(nn.ReLU())
            return nn.Sequential(*layers)

        less = 2 if bilinear else 1
        wide = [base, 2 * base, 4 * base, 8 * base, 16 * base]
        self.into = nn.ModuleList([double(channels, base, base)])
        for level in (1, 2, 3):
            self.into.append(double(wide[level - 1], wide[level], wide[level]))
        self.bottom = double(wide[3], wide[4] // less, wide[4] // less)
        self.grow = nn.ModuleList()
        self.out = nn.ModuleList()
        for level in (3, 2, 1, 0):
            if not bilinear:
                self.grow.append(nn.ConvTranspose2d(wide[level + 1], wide[level], 2, 2))
            self.out.append(double(2 * wide[level], wide[level], wide[level] // (less if level else 1)))
        self.classify = nn.Conv2d(base, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for block in self.into:
            kept.append(block(x))
            x = F.max_pool2d(kept[-1], 2, 2)
        x = self.bottom(x)
        for step, block in enumerate(self.out):
            if len(self.grow):
                x = self.grow[step](x)
            else:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(torch.cat((kept.pop(), x), 1))
        return self.classify(x)


VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"channels": 1, "classes": 2, "norm": False},
    "base": {"channels": 3, "classes": 2},
    "bilinear": {"channels": 3, "classes": 2, "bilinear": True},
    "brain": {"channels": 3, "classes": 1, "base": 32},
}


def multiply_adds(module: nn.Module, channels: int, size: int) -> int:
    """Of convolutions, transposed ones by what comes in."""
    total = 0

    def hook(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        place = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += layer.weight.numel() * place.shape[2] * place.shape[3]

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(hook)
    with torch.no_grad():
        module(torch.empty(1, channels, size, size, device="meta"))
    return total


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_equal_the_reference(variant: str) -> None:
    with torch.device("meta"):
        reference = Reference(**VARIANTS[variant])
    compiled = effspec.compile("unet", variant=variant)
    channels, size, _ = compiled.input_shape
    expected = (sum(p.numel() for p in reference.parameters()), multiply_adds(reference, channels, size))
    assert (compiled.params, compiled.macs) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_equal_the_reference(variant: str) -> None:
    """On rectangles, with a few widths less, in the emitted PyTorch file and in ONNX Runtime."""
    given = VARIANTS[variant] | {"base": 6, "channels": 4, "classes": 3}
    settings = {"base": 6, "in_channels": 4, "classes": 3, "size": [32, 48]}
    compiled = effspec.compile("unet", variant=variant, set=settings)
    reference = parity.awaken(Reference(**given), channels=4)
    weights = parity.move(reference, compiled)
    x = torch.randn(1, 4, 32, 48, generator=torch.Generator().manual_seed(3))
    judged = parity.Judged(reference, x)
    found = parity.forward(parity.emitted(compiled, weights).double(), x.double())
    assert found.shape == (1, 3, 32, 48)
    assert parity.distance(found, judged.expected) < parity.TOLERANCE
    assert parity.distance(parity.runtime(parity.onnx_file(compiled, weights), x), judged.expected) <= judged.allowed


def test_pictures_have_to_be_halved() -> None:
    with pytest.raises(effspec.EffspecError) as error:
        effspec.compile("unet", variant="base", set={"size": [64, 40]})
    assert "every level halves the picture" in str(error.value)
