"""Emitted models in use: stochastic depth, other sizes, outputs of training, features.  What else: `test_alone.py`."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from tests import parity
from tests.emitted import (
    CASES,
    TOLERANCE,
    Case,
    arrays,
    built,
    drop_rates,
    frozen,
    inputs,
    lively,
    module_of,
    published,
    small,
    tensors,
    text_of,
)
from tests.test_onnx import distance

# Stochastic depth ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "variant", "rate", "blocks", "last"),
    [
        ("specs/b0", "b0", 0.2, 16, 16),
        ("specs/b0", "tf_b7", 0.2, 55, 55),
        ("specs/efficientnet_lite", "lite4", 0.2, 30, 30),
        ("specs/efficientnet_v2", "s", 0.2, 40, 40),
        ("tests/examples/08_convnext", "tiny", 0.1, 18, 17),
        ("tests/examples/09_nfnet", "f0", 0.2, 12, 12),
    ],
)
def test_drop_rates_grow_linearly(spec: str, variant: str, rate: float, blocks: int, last: int) -> None:
    """Block i drops with rate * i / last, counted over the whole network."""
    case = Case(spec, variant)
    cls = getattr(module_of(text_of(published(case))), published(case).name)
    with torch.device("meta"):
        assert drop_rates(cls()) == pytest.approx([rate * i / last for i in range(blocks)])
        assert drop_rates(cls(drop_path_rate=0.7)) == pytest.approx([0.7 * i / last for i in range(blocks)])


def test_drop_path_drops_whole_samples() -> None:
    drop = module_of(text_of(small(CASES[0]))).DropPath(0.25)
    torch.manual_seed(0)
    x = torch.ones(4000, 3, 2, 2)
    y = drop.train()(x)
    kept = y[:, 0, 0, 0]
    assert torch.equal(y, kept.reshape(-1, 1, 1, 1).expand_as(y))
    assert set(kept.tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert float((kept == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert drop.eval()(x) is x


def test_dropping_is_off_in_evaluation() -> None:
    model = built(small(CASES[0]), drop_rate=0.9, drop_path_rate=0.9)
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), model(x))
        assert not torch.equal(frozen(model).dropout.train()(torch.ones(4, 8)), torch.ones(4, 8))


# SAME padding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "variant", "peer", "size"),
    [
        ("specs/b0", "tf_b0", "timm/tf_efficientnet_b0", (260, 260)),
        ("specs/b0", "tf_b0", "timm/tf_efficientnet_b0", (97, 130)),
        ("specs/efficientnet_lite", "tf_lite0", "timm/tf_efficientnet_lite0", (111, 64)),
        ("specs/efficientnet_v2", "tf_v2_b0", "timm/tf_efficientnetv2_b0", (75, 98)),
    ],
)
def test_same_padding_follows_the_input(spec: str, variant: str, peer: str, size: tuple[int, int]) -> None:
    """Compiled for its published size, run at another one, a module does what timm's does."""
    pytest.importorskip("timm")
    compiled = published(Case(spec, variant))
    assert compiled.input_shape[1:] == (224, 224)
    theirs = parity.awaken(parity.meta_peer(peer))
    ours = parity.emitted(compiled, parity.move(theirs, compiled)).double()
    x = torch.randn(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert parity.distance(parity.forward(ours, x), parity.forward(theirs.double(), x)) <= TOLERANCE


# What people do with a model -----------------------------------------------------------------------------------------


def close(found: Any, expected: Any, tolerance: float = 1e-3) -> bool:
    return distance(arrays(found), arrays(expected)) <= tolerance


def test_compile_with_free_sizes() -> None:
    """SAME padding depends on the size, and still makes one graph for all of them."""
    torch.compiler.reset()
    model = lively(CASES[1])
    # Two strides: with more of them the solver of sizes takes minutes, for timm's padding as for ours.
    part = nn.Sequential(model.get_submodule("stem"), model.get_submodule("stage1"), model.get_submodule("stage2.0"))
    counter = torch._dynamo.testing.CompileCounter()
    run = torch.compile(part, fullgraph=True, backend=counter, dynamic=True)
    with torch.no_grad():
        for size in (64, 75, 98):
            x = torch.randn(2, 3, size, size + 3)
            assert close(run(x), part(x))
    assert counter.frame_count == 1


@pytest.mark.campaign
def test_training_outputs_compile() -> None:
    torch.compiler.reset()
    case = next(case for case in CASES if case.variant == "googlenet")
    model = built(small(case))
    run = torch.compile(model, fullgraph=True, backend="eager")
    assert [tuple(y.shape) for y in tensors(run(*inputs(small(case))))] == [(2, 1000)] * 3
    model.eval()
    assert isinstance(run(*inputs(small(case))), torch.Tensor)


def test_features_and_another_head() -> None:
    model = copy.deepcopy(lively(CASES[0]))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = model.forward_features(x)
        assert list(features)[:2] == ["stem", "stage1"]
        assert {name: tuple(y.shape[1:]) for name, y in features.items() if name in ("stage5", "head")} == {
            "stage5": (112, 4, 4),
            "head": (1280, 2, 2),
        }
        expected = model.classifier(features["head"].mean((2, 3)))
        assert torch.equal(model(x), expected)
        model.classifier = nn.Identity()
        assert model(x).shape == (2, 1280)
