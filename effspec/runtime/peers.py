"""Whether a compiled model equals a peer's: the same parameters, and the same outputs with the same weights.

Judged in float64 on one random picture, with weights that let every part be seen: scales around 1, biases around 0,
and the statistics of batch norm taken from a forward pass.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from effspec.diagnostics import Diagnostic, EffspecError, Label, Span, suggest
from effspec.weights.convert import convert
from effspec.weights.initial import Seeded

if TYPE_CHECKING:
    import numpy

    from effspec.ir.graph import Parameter
    from effspec.pipeline import Compiled

TOLERANCE = 1e-9
"""The largest difference of outputs, over the largest output."""


class Unavailable(Exception):
    """The peer's package is not installed."""


def compare(compiled: Compiled, name: str, span: Span) -> Diagnostic | None:
    """What differs from the peer `timm/...`; None where nothing does.  Raises Unavailable."""
    library, _, model = name.partition("/")
    known, make = _library(library)
    if model.partition(".")[0] not in known:  # timm has tags of weights after a dot
        help = suggest(model, known) or f"{library} has {len(known)} models"
        return Diagnostic("E0903", f"{library} has no model `{model}`", Label(span), help=help)
    peer = make(model).eval()
    state = peer.state_dict()
    try:
        names = convert({key: tuple(tensor.shape) for key, tensor in state.items()}, compiled.graph).names
    except EffspecError as error:
        found = error.diagnostics[0]
        return Diagnostic(
            "E0903", f"this is not {name}: {found.message}", Label(span), notes=found.notes, help=found.help
        )
    generator = torch.Generator().manual_seed(0)
    _awaken(peer, compiled.input_shape, generator)
    state = peer.state_dict()
    own = compiled.to_torch(weights=_Moved({path: state[key] for path, key in names.items()})).eval()
    picture = torch.randn(1, *compiled.input_shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected, results = _tensors(peer.double()(picture)), _tensors(own.double()(picture))
    shapes = [" and ".join(str(tuple(tensor.shape)) for tensor in tensors) for tensors in (results, expected)]
    if shapes[0] != shapes[1]:
        return Diagnostic("E0903", f"this is not {name}: outputs of shape {shapes[0]}, not {shapes[1]}", Label(span))
    pairs = zip(expected, results, strict=True)
    difference = max(float((theirs - ours).abs().max() / theirs.abs().max()) for theirs, ours in pairs)
    if difference <= TOLERANCE:
        return None
    message = f"this is not {name}: with the same weights, outputs differ by {difference:.1e} of the largest"
    help = "look at pads, epsilons, activations and the order of layers; shapes and parameters are equal"
    return Diagnostic("E0903", message, Label(span), help=help)


class _Moved:
    """Tensors of the peer under the paths of the graph; initial ones for training outputs that the peer lacks."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors, self.initial = tensors, Seeded()

    def tensor(self, parameter: Parameter) -> numpy.ndarray[Any, Any]:
        if parameter.path not in self.tensors:
            return self.initial.tensor(parameter)
        made: numpy.ndarray[Any, Any] = self.tensors[parameter.path].reshape(parameter.shape).numpy()
        return made


def _timm() -> tuple[list[str], Callable[[str], nn.Module]]:
    package = importlib.import_module("timm")
    return package.list_models(), package.create_model


def _torchvision() -> tuple[list[str], Callable[[str], nn.Module]]:
    models = importlib.import_module("torchvision").models

    def make(name: str) -> nn.Module:
        # Models on top of another one would fetch that one's weights.
        known = inspect.signature(models.get_model_builder(name)).parameters
        model: nn.Module = models.get_model(name, **({"weights_backbone": None} if "weights_backbone" in known else {}))
        return model

    return models.list_models(), make


def _effdet() -> tuple[list[str], Callable[[str], nn.Module]]:
    package = importlib.import_module("effdet")
    known = list(importlib.import_module("effdet.config.model_config").efficientdet_model_param_dict)
    return known, partial(package.create_model, pretrained_backbone=False)


_LIBRARIES = {"timm": _timm, "torchvision": _torchvision, "effdet": _effdet}


def _library(name: str) -> tuple[list[str], Callable[[str], nn.Module]]:
    """The models of a package, and what makes one; Unavailable where the package is missing."""
    try:
        return _LIBRARIES[name]()
    except ImportError as error:
        raise Unavailable(f"{name}: {error}") from None


def _awaken(module: nn.Module, shape: tuple[int, ...], generator: torch.Generator) -> None:
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(drawn / parameter[0].numel() ** 0.5)
            else:
                scale = name.endswith("weight") or bool((parameter == 1).all())
                parameter.copy_(1 + drawn / 8 if scale else drawn / 5)
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        # The variance of a few pixels would be a matter of luck.
        module(torch.randn(2, *shape, generator=generator))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum


def _tensors(output: Any) -> list[torch.Tensor]:
    """What a model returns, in its order, without lists and names."""
    if isinstance(output, torch.Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [tensor for part in parts for tensor in _tensors(part)]
