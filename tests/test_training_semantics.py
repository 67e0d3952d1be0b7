"""What training does to a model is what it does to the peer's: twenty steps, dropping included, of the same weights.

`pytest -m campaign tests/test_training_semantics.py` adds the networks that people train, and every variant.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import effspec
from tests import parity
from tests.emitted import module_of
from tests.parity import TOLERANCE, distance
from tests.test_zoo import SPECS, claimed

timm = pytest.importorskip("timm")
pytest.importorskip("torchvision")

LONG = pytest.mark.campaign

# timm calls them as we do.
RATES = ("drop_rate", "drop_path_rate")


def trainer(name: str, compiled: Any, **arguments: Any) -> nn.Module:
    """The peer `timm/...` or `torchvision/...` with the variant's rates and momentum, in training mode.

    timm's models keep PyTorch's momentum and rates of zero; a recipe gives those of the paper as arguments.
    """
    library, model = name.split("/")
    if library == "timm":
        own = {name: float(compiled.parameters[name]) for name in RATES if compiled.parameters.get(name)}
        return timm.create_model(model, **{**own, **arguments}).train()
    models = importlib.import_module("torchvision").models
    taken = inspect.signature(models.get_model_builder(model)).parameters
    if "weights_backbone" in taken:
        arguments["weights_backbone"] = None  # else they are fetched
    # What torchvision's builders state themselves is compared below, not given.
    return models.get_model(model, weights=None, **arguments).train()


# Twenty steps --------------------------------------------------------------------------------------------------------

STEPS, BATCH = 20, 4


@dataclass(frozen=True)
class Case:
    spec: str
    variant: str
    peer: str
    size: int = 64
    # Nothing keeps the signals of networks without norms small: at the others' rate their losses run away.
    rate: float = 0.01

    def __str__(self) -> str:
        return self.variant


SMALL = [
    Case("efficientnet_test", "bn", "timm/test_efficientnet"),
    Case("resnet", "test_resnet", "timm/test_resnet"),
    Case("nfnet", "test_nfnet", "timm/test_nfnet", rate=1e-5),
    Case("convnext", "test1", "timm/test_convnext"),
    Case("mobilenet_v3", "tf_small_075", "timm/tf_mobilenetv3_small_075"),
]
TRAINED = [
    Case("b0", "b0", "timm/efficientnet_b0", 96),
    Case("b0", "tf_b0", "timm/tf_efficientnet_b0", 96),
    Case("b0", "tv_b0", "torchvision/efficientnet_b0", 96),
    Case("efficientnet_lite", "tf_lite0", "timm/tf_efficientnet_lite0", 96),
    Case("efficientnet_v2", "tf_v2_b0", "timm/tf_efficientnetv2_b0", 96),
    Case("resnet", "resnet50", "timm/resnet50", 96),
    Case("resnet", "tv_resnet50", "torchvision/resnet50", 96),
    Case("convnext", "tiny", "timm/convnext_tiny"),
    Case("convnext", "tv_tiny", "torchvision/convnext_tiny"),
    Case("regnet", "y_400mf", "timm/regnety_004", 96),
    Case("regnet", "tv_y_400mf", "torchvision/regnet_y_400mf", 96),
    Case("mobilenet_v3", "large", "timm/mobilenetv3_large_100", 96),
    Case("mobilenet_v3", "tv_large", "torchvision/mobilenet_v3_large", 96),
    Case("nfnet", "f0", "timm/nfnet_f0", rate=1e-5),
    Case("nfnet", "nf_resnet50", "timm/nf_resnet50", rate=1e-5),
]


def losses(module: nn.Module, case: Case) -> Iterator[float]:
    """Of SGD with momentum; a step's seed decides what is dropped."""
    optimiser = torch.optim.SGD(module.parameters(), lr=case.rate, momentum=0.9)
    for step in range(STEPS):
        x = parity.picture(case.size, BATCH, seed=step).double()
        torch.manual_seed(step)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(module(x), torch.arange(BATCH))
        loss.backward()
        optimiser.step()
        yield loss.item()


@pytest.mark.parametrize("case", [*SMALL, *(pytest.param(case, marks=LONG) for case in TRAINED)], ids=str)
def test_twenty_steps(case: Case) -> None:
    """In float64: every loss, the last gradients, and the weights and statistics that come of it."""
    compiled = effspec.compile(case.spec, variant=case.variant, set={"size": case.size})
    theirs = trainer(case.peer, compiled)
    parity.awaken(theirs, case.size)
    ours = parity.emitted(compiled, parity.move(theirs, compiled)).double().train()
    pairs = matched(ours, theirs.double().train(), compiled)
    for own, other in pairs.values():
        if case.peer.startswith(LATER):
            other.momentum = own.momentum
    own_drops = [m for m in ours.modules() if type(m).__name__ == "DropPath" and m.rate]
    drops = [m for m in theirs.modules() if type(m).__name__ == "DropPath" and m.drop_prob]  # timm's
    for own, other in zip(own_drops, drops, strict=False):
        assert other.drop_prob == pytest.approx(own.rate, abs=1e-6)
        other.drop_prob = own.rate  # timm computes some of them in float32
    for step, (found, expected) in enumerate(zip(losses(ours, case), losses(theirs, case), strict=True)):
        assert abs(found - expected) <= TOLERANCE * abs(expected), step
    state, wanted = ours.state_dict(), theirs.state_dict()
    gradients, aims = ({path: p.grad for path, p in model.named_parameters()} for model in (ours, theirs))
    # A shift that a later norm takes away has no gradient but rounding errors.
    least = 1e-6 * max(float(gradient.abs().max()) for gradient in aims.values())
    off = {}
    for path, key in parity.match(wanted, compiled).items():
        off[path] = distance(state[path].reshape(wanted[key].shape), wanted[key])
        if path in gradients:
            apart = (gradients[path].reshape(aims[key].shape) - aims[key]).abs().max()
            off[f"gradient of {path}"] = float(apart / aims[key].abs().max().clamp_min(least))
    assert {path: apart for path, apart in off.items() if apart > TOLERANCE} == {}
    assert len(off) > 2 * len(gradients) - 20


# Norms and rates -----------------------------------------------------------------------------------------------------

# What was trained in TensorFlow keeps its decay of 0.99 here; timm's models have PyTorch's, and take it as an argument.
LATER = ("timm/tf_", *(f"timm/efficientnet_b{n}_pruned" for n in (1, 2, 3)))

# Builders that compute with tensors what they build.
COMPUTED = "torchvision/regnet"


def matched(ours: nn.Module, theirs: nn.Module, compiled: Any) -> dict[str, tuple[Any, Any]]:
    """Our modules that have an epsilon, with the peer's that hold the same weights."""
    own, other = dict(ours.named_modules()), dict(theirs.named_modules())
    pairs = {
        path.rpartition(".")[0]: (own[path.rpartition(".")[0]], other.get(key.rpartition(".")[0]))
        for path, key in parity.match(theirs.state_dict(), compiled).items()
        if path.endswith(".weight")
    }
    return {path: (a, b) for path, (a, b) in pairs.items() if hasattr(a, "eps") and hasattr(b, "eps")}


def dropped(model: nn.Module, shape: tuple[int, ...]) -> dict[str, list[float]]:
    """The rates of stochastic depth and of dropout that are not zero, in the order of a forward pass in training."""
    found: dict[str, list[float]] = {"paths": [], "values": []}

    def note(module: nn.Module, given: Any, result: Any) -> None:
        rate = next(getattr(module, name) for name in ("rate", "drop_prob", "p") if hasattr(module, name))
        found["values" if isinstance(module, nn.Dropout) else "paths"] += [float(rate)] if rate else []

    for module in model.train().modules():
        if isinstance(module, nn.Dropout) or type(module).__name__ in ("DropPath", "StochasticDepth"):
            module.register_forward_hook(note)
    with torch.no_grad():
        model(torch.empty(2, *shape, device="meta"))
    return found


def compare(spec: str, variant: str) -> None:
    """Epsilon and momentum of every norm, what every block drops, and what is dropped before the classifier."""
    name = claimed(spec)[variant]
    compiled = effspec.compile(spec, variant=variant)
    cls = getattr(module_of(str(compiled.emit("torch"))), compiled.name)
    # Where a variant drops no paths by itself, a rate is given to both.
    droppable = name.startswith("timm/") and "drop_path_rate" in inspect.signature(cls).parameters
    given = {"drop_path_rate": float(compiled.parameters["drop_path_rate"]) or 0.2} if droppable else {}
    with torch.device("meta"):
        ours = cls(**given)
    with torch.device("cpu" if name.startswith(COMPUTED) else "meta"):
        theirs = trainer(name, compiled, **given).to("meta")
    for path, (own, other) in matched(ours, theirs, compiled).items():
        assert own.eps == other.eps, (path, own.eps, other.eps)
        if isinstance(own, nn.BatchNorm2d):
            expected = 0.01 if name.startswith(LATER) else other.momentum
            assert own.momentum == pytest.approx(expected, rel=1e-9), (path, own.momentum, expected)
    found, wanted = (dropped(model, compiled.input_shape) for model in (ours, theirs))
    assert found["paths"] == pytest.approx(wanted["paths"], abs=1e-6)  # timm computes some of them in float32
    if name.startswith("torchvision/"):  # timm's models call the function
        assert sorted(found["values"]) == pytest.approx(sorted(wanted["values"]))


@pytest.mark.parametrize("spec", SPECS)
def test_norms_and_rates(spec: str) -> None:
    """Of the first variant that is a peer's; of torchvision's, too, where there is one."""
    compare(spec, next(iter(claimed(spec))))
    others = [variant for variant, name in claimed(spec).items() if name.startswith("torchvision/")]
    for variant in others[:1]:
        compare(spec, variant)


@LONG
@pytest.mark.parametrize("spec", SPECS)
def test_norms_and_rates_of_every_variant(spec: str) -> None:
    for variant in claimed(spec):
        compare(spec, variant)
