"""Emitted B0 goes through `torch.export` to ExecuTorch, which runs it on phones; skipped where `executorch` is not."""

from __future__ import annotations

import pytest
import torch

from tests import parity
from tests.emitted import Case, awake, published

exir = pytest.importorskip("executorch.exir")
runtime = pytest.importorskip("executorch.runtime")
xnnpack = pytest.importorskip("executorch.backends.xnnpack.partition.xnnpack_partitioner")

pytestmark = pytest.mark.campaign


@pytest.mark.parametrize("operators", ["portable", "xnnpack"])
def test_b0(operators: str) -> None:
    """Its outputs, in float32, are those of PyTorch."""
    model, x = awake(published(Case("specs/b0", "b0"))), parity.picture(224)
    partitioner = [xnnpack.XnnpackPartitioner()] if operators == "xnnpack" else []
    exported = torch.export.export(model, (x,))
    file = exir.to_edge_transform_and_lower(exported, partitioner=partitioner).to_executorch().buffer
    program = runtime.Runtime.get().load_program(file)  # keeps no reference to the file
    method = program.load_method("forward")
    other = parity.picture(224, seed=3)
    for image in (x, other):
        (found,) = method.execute([image])
        assert parity.distance(found, parity.forward(model, image)) <= 1e-4
    assert parity.distance(parity.forward(model, x), parity.forward(model, other)) > 0.01
