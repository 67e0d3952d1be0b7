"""Emitted models on a GPU, beside the same weights on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.emitted import EVERY, Case, arrays, awake, frozen, inputs, lively, published, small, tensors
from tests.test_onnx import distance

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = "cuda"
SINGLE = 1e-4  # float32: other algorithms sum in another order
HALF = 0.1  # bfloat16 has 8 bits of mantissa: 0.004 an operation, over B0's 16 blocks


@pytest.fixture(autouse=True)
def whole_float32() -> Iterator[None]:
    """Multiply float32 as float32, not in 19 bits (TF32)."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.fixture(scope="module")
def b0() -> nn.Module:
    """The published EfficientNet-B0 on the CPU in float32."""
    return awake(published(Case("specs/b0", "b0")))


def moved(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def pictures(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_b0_in_bfloat16(b0: nn.Module, compiled: bool) -> None:
    torch.compiler.reset()
    x = pictures()
    model = torch.compile(moved(b0), fullgraph=True) if compiled else moved(b0)
    with torch.no_grad():
        expected = b0(x)
        with torch.autocast(DEVICE, torch.bfloat16):
            found = model(x.to(DEVICE, memory_format=torch.channels_last))
    assert found.dtype == torch.bfloat16
    assert distance(arrays(found.float().cpu()), arrays(expected)) <= HALF


def test_b0_trains_compiled_in_bfloat16(b0: nn.Module) -> None:
    """One step: the loss of the CPU, and gradients in the direction of its gradients."""
    torch.compiler.reset()
    x, labels = pictures(), torch.arange(4)

    def gradients(model: nn.Module, device: str) -> tuple[float, torch.Tensor]:
        for module in frozen(model).modules():
            if hasattr(module, "rate"):
                module.rate = 0.0
        run = torch.compile(model, fullgraph=True) if device == DEVICE else model
        with torch.autocast(device, torch.bfloat16, enabled=device == DEVICE):
            loss = F.cross_entropy(run(x.to(device)), labels.to(device))
        loss.backward()
        parts = [p.grad.float().cpu().flatten() for p in model.parameters() if p.grad is not None]
        assert len(parts) == len(list(model.parameters()))
        return loss.item(), torch.cat(parts)

    loss, expected = gradients(copy.deepcopy(b0), "cpu")
    half_loss, found = gradients(moved(b0), DEVICE)
    assert half_loss == pytest.approx(loss, rel=HALF)
    assert F.cosine_similarity(found, expected, dim=0) > 0.9


@EVERY
def test_float32(case: Case) -> None:
    x = inputs(small(case))
    model = copy.deepcopy(lively(case)).to(DEVICE)
    with torch.no_grad():
        found = [y.cpu() for y in tensors(model(*[image.to(DEVICE) for image in x]))]
        assert distance(arrays(found), arrays(lively(case)(*x))) <= SINGLE
