"""Emitted models equal the peers' own with the same weights: PyTorch and ONNX in float64, ONNX Runtime in float32.

`pytest -m campaign tests/test_parity.py` judges every variant, at the size it was published for where that is feasible.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import effspec
from tests import parity
from tests.parity import TOLERANCE, Judged, distance, forward

pytest.importorskip("timm")
pytest.importorskip("torchvision")

SPECS = Path(effspec.__file__).parent.parent / "specs"


@dataclass(frozen=True)
class Case:
    """A variant, its peer, and the sizes to compare at."""

    spec: str
    variant: str
    peer: str
    sizes: tuple[int, ...] = (64, 75)

    def __str__(self) -> str:
        return self.variant


V2_S = [
    Case("efficientnet_v2", "s", "timm/efficientnetv2_s"),
    Case("efficientnet_v2", "tf_s", "timm/tf_efficientnetv2_s"),
    Case("efficientnet_v2", "tv_s", "torchvision/efficientnet_v2_s"),
]
CASES = [
    Case("b0", "b0", "timm/efficientnet_b0"),
    Case("b0", "tf_b0", "timm/tf_efficientnet_b0"),
    Case("b0", "tv_b0", "torchvision/efficientnet_b0"),
    Case("b0", "tf_b1", "timm/tf_efficientnet_b1", (66, 81)),
    Case("b0", "b2", "timm/efficientnet_b2", (68, 65)),
    Case("b0", "tf_b3", "timm/tf_efficientnet_b3", (72, 75)),
    Case("b0", "b4", "timm/efficientnet_b4", (64, 95)),
    Case("b0", "tf_b7", "timm/tf_efficientnet_b7", (48, 49)),
    *V2_S,
    Case("efficientnet_lite", "lite0", "timm/efficientnet_lite0"),
    Case("efficientnet_lite", "tf_lite0", "timm/tf_efficientnet_lite0"),
]
TRAINED = [case for case in CASES if case.variant in ("b0", "tf_b0", "tv_b0", "tf_lite0", "s")]


class Subject:
    """A peer with weights that see, and the same weights under our paths."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.peer = parity.awaken(parity.meta_peer(case.peer))
        self.weights = parity.move(self.peer, self.compiled(case.sizes[0]))

    def compiled(self, size: int, **settings: Any) -> Any:
        return effspec.compile(self.case.spec, variant=self.case.variant, set={"size": size, **settings})

    @cached_property
    def module(self) -> nn.Module:
        return parity.emitted(self.compiled(self.case.sizes[0]), self.weights).double()


@pytest.fixture(scope="module", params=CASES, ids=str)
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param)


def test_the_weights_see(subject: Subject) -> None:
    """Two pictures give clearly different answers, which float32 noise does not."""
    for size in subject.case.sizes:
        judged = Judged(subject.peer, parity.picture(size, 2))
        assert distance(*judged.expected) > 0.01
        assert judged.own < 1e-4


def test_torch_in_float64(subject: Subject) -> None:
    """One emitted module, at the size it was compiled for and at the others."""
    for size in subject.case.sizes:
        x = parity.picture(size, 2)
        assert distance(forward(subject.module, x.double()), Judged(subject.peer, x).expected) <= TOLERANCE


def test_onnx_in_float64(subject: Subject) -> None:
    for size in subject.case.sizes:
        x = parity.picture(size)
        expected = Judged(subject.peer, x).expected
        compiled = subject.compiled(size)
        folded = parity.onnx_file(compiled, subject.weights, dtype="float64")
        assert distance(parity.reference(folded, x), expected) <= TOLERANCE
    # ONNX stores batch norm's epsilon as a float32 number, 5e-8 off: what it moves is no mistake of ours.
    kept = parity.onnx_file(compiled, subject.weights, dtype="float64", fold="none")
    assert distance(parity.reference(kept, x), expected) <= 1e-7


def test_onnx_runtime_in_float32(subject: Subject) -> None:
    for size in subject.case.sizes:
        x = parity.picture(size, 2)
        judged = Judged(subject.peer, x)
        compiled = subject.compiled(size)
        data = parity.onnx_file(compiled, subject.weights)
        for optimise in (True, False):
            assert distance(parity.runtime(data, x, optimise), judged.expected) <= judged.allowed
    kept = parity.onnx_file(compiled, subject.weights, fold="none")
    assert distance(parity.runtime(kept, x), judged.expected) <= judged.allowed


# What the comparison sees --------------------------------------------------------------------------------------------

TEXT_MUTATIONS = {
    "another activation": ("act = silu", "act = hard_swish"),
    "an activation that is nearly the same": ("act = silu", "act = gelu(approximate = true)"),
    "a pad shifted by one": ("ConvNormAct(k = 3, s = 2) ", "ConvNormAct(k = 3, s = 2, pad = [[0, 1], [0, 1]]) "),
    "a pad shifted in one deep stage": ("stage6: MBConv(k = 5, s = 2 then 1,", "stage6: Shifted(k = 5, s = 2 then 1,"),
    "another epsilon": ("eps = 1e-5", "eps = 1.1e-5"),
}
SHIFTED = """
block Shifted(out, k, s, expand, drop = default.drop) {
    mid = input.channels * expand
    pad = [[1, 2], [1, 2]] if s == 2 else [2, 2]
    expand:  ConvNormAct(mid)
    dw:      ConvNormAct(mid, k = k, s = s, groups = mid, pad = pad)
    se:      SqueezeExcite(round(input.channels * 0.25))
    project: ConvNorm(out)
    if s == 1 and input.channels == out {
        drop_path(drop)
        it + input
    }
}
"""


@pytest.fixture(scope="module")
def plain() -> Subject:
    return Subject(CASES[0])


def mutant(change: str, folder: Path) -> Any:
    """B0 at 64 pixels with one change of its text."""
    old, new = TEXT_MUTATIONS[change]
    text = (SPECS / "b0.eff").read_text()
    assert text.count(old) == 1
    text = text.replace(old, new)
    if "Shifted" in new:
        text = text.replace("import MBConv,", "import MBConv, ConvNorm, SqueezeExcite,") + SHIFTED
    (folder / "b0.eff").write_text(text)
    return effspec.compile(str(folder / "b0.eff"), variant="b0", set={"size": 64})


@pytest.mark.parametrize("target", ["torch", "onnx"])
@pytest.mark.parametrize("change", TEXT_MUTATIONS)
def test_a_change_of_the_spec_is_seen(plain: Subject, tmp_path: Path, change: str, target: str) -> None:
    assert answer(plain, mutant(change, tmp_path), plain.weights, target) > 100 * TOLERANCE


@pytest.mark.parametrize("target", ["torch", "onnx"])
@pytest.mark.parametrize("place", ["stage1.0.dw.conv.weight", "stage4.2.se.expand.weight", "stage7.0.dw.conv.weight"])
def test_a_zeroed_convolution_is_seen(plain: Subject, place: str, target: str) -> None:
    weights = plain.weights | {place: np.zeros_like(plain.weights[place])}
    assert answer(plain, plain.compiled(64), weights, target) > 100 * TOLERANCE


@pytest.mark.parametrize("change", ["another activation", "a pad shifted by one", "a pad shifted in one deep stage"])
def test_float32_sees_a_change_too(plain: Subject, tmp_path: Path, change: str) -> None:
    x = parity.picture(64)
    judged = Judged(plain.peer, x)
    data = parity.onnx_file(mutant(change, tmp_path), plain.weights)
    assert distance(parity.runtime(data, x), judged.expected) > 10 * judged.allowed


def answer(plain: Subject, compiled: Any, weights: parity.Arrays, target: str) -> float:
    """The float64 distance of a model from plain B0's peer."""
    x = parity.picture(64)
    expected = Judged(plain.peer, x).expected
    if target == "torch":
        return distance(forward(parity.emitted(compiled, weights).double(), x.double()), expected)
    return distance(parity.reference(parity.onnx_file(compiled, weights, dtype="float64"), x), expected)


# Training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_one_training_step(case: Case) -> None:
    """Gradients, batch-norm statistics and parameters after one step equal the peer's, in float64."""
    subject = Subject(case)
    compiled = subject.compiled(96, drop_rate=0, drop_path_rate=0)
    ours, theirs = parity.emitted(compiled, subject.weights).double(), subject.peer.double()
    for own, norm in zip(parity.batch_norms(ours), parity.batch_norms(theirs), strict=True):
        # timm's tf_ models keep PyTorch's momentum (TensorFlow's is for training there an argument).
        norm.momentum = own.momentum
    x, labels = parity.picture(96, 4).double(), torch.tensor([1, 2, 3, 4])
    for module in (ours, theirs):
        optimiser = torch.optim.SGD(module.parameters(), lr=0.05)
        nn.functional.cross_entropy(module.train()(x), labels).backward()
        optimiser.step()
    found, expected = ours.state_dict(), theirs.state_dict()
    gradients, wanted = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for path, key in parity.match(expected, compiled).items():
        assert distance(found[path], expected[key]) <= TOLERANCE, path
        if path in gradients:
            assert distance(gradients[path].grad, wanted[key].grad) <= TOLERANCE, path


AUXILIARY = [
    ("googlenet", "googlenet", {"dropout": 0.0, "dropout_aux": 0.0}, 64),
    # The second head needs a map of 17 x 17.
    ("inception_v3", "tv_v3", {"dropout": 0.0}, 299),
]


@pytest.mark.parametrize(("spec", "variant", "rates", "size"), AUXILIARY, ids=["googlenet", "inception_v3"])
def test_heads_that_exist_in_training_only(spec: str, variant: str, rates: dict[str, float], size: int) -> None:
    """In training all outputs equal torchvision's, in its order; in evaluation there is one."""
    import torchvision

    theirs = torchvision.models.get_model(spec, weights=None, init_weights=False, aux_logits=True, **rates)
    parity.awaken(theirs, size, batch=2)
    zero = {name: 0 for name in ("drop_rate", "aux_drop_rate") if name in effspec.compile(spec).parameters}
    compiled = effspec.compile(spec, variant=variant, set={"size": size, **zero})
    ours = parity.emitted(compiled, parity.move(theirs, compiled)).double()
    x = parity.picture(size, 2).double()
    with torch.no_grad():
        expected, found = theirs.double().train()(x), ours.train()(x)
        assert len(found) == len(expected) == 1 + sum(output.training for output in compiled.graph.outputs)
        for one, other in zip(found, expected, strict=True):
            assert distance(one, other) <= TOLERANCE
        assert distance(ours.eval()(x), theirs.eval()(x)) <= TOLERANCE


# Deployment ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "variant"), [("repvgg", "a0"), ("mobileone", "s0"), ("mobileone", "s4")])
def test_merged_branches_equal_timms(spec: str, variant: str) -> None:
    """What `fold = linear` writes has the parameters and outputs of timm's model after its own merging; in float64."""
    import onnx
    from timm.utils.model import reparameterize_model

    subject = Subject(Case(spec, variant, f"timm/{spec}_{variant}", (64,)))
    merged = reparameterize_model(subject.peer.double())
    data = parity.onnx_file(subject.compiled(64), subject.weights, fold="linear", dtype="float64")
    held = {t.name: np.prod(t.dims) for t in onnx.load_from_string(data).graph.initializer if t.data_type == 11}
    assert sum(held.values()) == sum(p.numel() for p in merged.parameters())
    x = parity.picture(64)
    assert distance(parity.reference(data, x), forward(merged, x.double())) <= TOLERANCE


# The long run --------------------------------------------------------------------------------------------------------

BS, LITES, SIZES, FLAVOURS = range(9), range(5), ("s", "m", "l", "xl"), ("", "tf_")
LONG = [
    *(Case("b0", f"{f}b{n}", f"timm/{f}efficientnet_b{n}", ()) for f in FLAVOURS for n in BS),
    *(Case("b0", f"tv_b{n}", f"torchvision/efficientnet_b{n}", ()) for n in BS[:8]),
    *(
        Case("efficientnet_lite", f"{f}lite{n}", f"timm/{f}efficientnet_lite{n}", ())
        for f in ("", "tf_")
        for n in LITES
    ),
    *(Case("efficientnet_v2", f"{f}{n}", f"timm/{f}efficientnetv2_{n}", ()) for f in FLAVOURS for n in SIZES),
    *(Case("efficientnet_v2", f"tf_v2_b{n}", f"timm/tf_efficientnetv2_b{n}", ()) for n in range(4)),
    *(Case("efficientnet_v2", f"tv_{n}", f"torchvision/efficientnet_v2_{n}", ()) for n in SIZES[:3]),
]


@pytest.mark.campaign
@pytest.mark.parametrize("case", LONG, ids=str)
def test_every_variant_at_its_own_size(case: Case) -> None:
    """PyTorch in float64 and ONNX Runtime in float32, at the published size, which is read from the compiled model."""
    compiled = effspec.compile(case.spec, variant=case.variant)
    size = compiled.input_shape[-1]
    peer = parity.awaken(parity.meta_peer(case.peer))
    weights = parity.move(peer, compiled)
    x = parity.picture(size)
    judged = Judged(peer, x)
    data = parity.onnx_file(compiled, weights)
    assert distance(parity.runtime(data, x), judged.expected) <= judged.allowed
    module = parity.emitted(compiled, weights).double()
    assert distance(forward(module, x.double()), judged.expected) <= TOLERANCE
