"""A model of an emitted file with weights that matter, and how its outputs and gradients are judged."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

EXACT = 1e-9  # float64: the largest difference, relative to the largest value
SINGLE = 1e-3  # float32: likewise, where sums are taken in another order


@dataclass
class Subject:
    """A model in evaluation mode with weights that matter, pictures, and what it makes of them; in float32."""

    cls: Callable[..., nn.Module]
    model: nn.Module
    pictures: torch.Tensor
    outputs: list[torch.Tensor]

    def copied(self) -> nn.Module:
        return copy.deepcopy(self.model)

    def double(self) -> Subject:
        model, x = self.copied().double(), self.pictures.double()
        with torch.no_grad():
            return Subject(self.cls, model, x, tensors(model(x)))


def subject(cls: Callable[..., nn.Module], shape: tuple[int, ...]) -> Subject:
    model = awaken(cls(), shape)
    x = pictures(shape)
    with torch.no_grad():
        y = tensors(model(x))
    for output in y:
        apart = (output[0] - output[1]).abs().max() / output.abs().max()
        assert apart > 1e-3, f"two pictures give the same output ({apart:.0e})"
    return Subject(cls, model, x, y)


def pictures(shape: tuple[int, ...], batch: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def awaken(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Weights of a signal's size, scales around 1, statistics of batch norm from a forward pass; in evaluation mode."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
            if parameter.ndim > 1:
                drawn /= parameter[0].numel() ** 0.5
            else:
                drawn = drawn / 4 + name.endswith(("weight", "scale"))
            parameter.copy_(drawn)
        norms = [module for module in model.eval().modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train().momentum = 1.0
        model(pictures(shape, batch=8, seed=2))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def tensors(result: Any) -> list[torch.Tensor]:
    """What a model returns, in order, without its lists."""
    return [result] if isinstance(result, torch.Tensor) else [tensor for part in result for tensor in tensors(part)]


def gradients(model: nn.Module, run: Callable[..., Any], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a loss in training mode, dropping included: what is dropped is the same every time."""
    torch.manual_seed(0)
    loss = torch.stack([y.square().mean() for y in tensors(run(x))]).sum()
    model.zero_grad()
    loss.backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None]
    assert lacking == [], f"without a gradient: {lacking}"
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def equal(found: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float = EXACT) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype, f"{one.shape} {one.dtype}, not {other.shape}"
        apart = (one - other).abs().max() / other.abs().max().clamp_min(1e-30)
        assert apart <= tolerance, f"{apart:.1e} apart"


def same(model: nn.Module, subject: Subject) -> None:
    """All of it, bit for bit."""
    with torch.no_grad():
        found = tensors(model(subject.pictures))
    assert all(torch.equal(one, other) for one, other in zip(found, subject.outputs, strict=True)), "other outputs"
    mine, other = model.state_dict(), subject.model.state_dict()
    assert list(mine) == list(other) and all(torch.equal(mine[name], other[name]) for name in mine), "another state"
