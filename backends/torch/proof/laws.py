"""How the parameters of replayed code start, compared with the initialisers of the graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from effspec.backends.torch.proof.tensors import Parameter

from effspec.ir.graph import Graph
from effspec.params import Constant, Distribution, Normal, Uniform, distribution

_GAINS = {"linear": 1.0, "relu": math.sqrt(2)}


def differences(state: Mapping[str, Parameter], graph: Graph) -> list[tuple[str, str, str]]:
    """Path, the code's law and the graph's, of every tensor whose elements start by another law."""
    out = []
    for parameter in graph.parameters(training=True, buffers=True):
        expected = distribution(parameter.init, parameter.shape)
        found = law(state[parameter.path])
        if not _alike(found, expected):
            out.append((parameter.path, str(found), str(expected)))
    return out


def law(parameter: Parameter) -> Distribution | str:
    """The law of one element, or the words for one that effspec has no name for."""
    if parameter.init is None:
        start = parameter.start
        return Constant("constant", start.attributes[0]) if start.op == "constant" else "a computed value"
    name, args, keywords = parameter.init
    given: Mapping[str, Any] = keywords
    match name:
        case "zeros_":
            return Constant("constant", 0.0)
        case "ones_":
            return Constant("constant", 1.0)
        case "constant_" | "fill_":
            return Constant("constant", float(args[0] if args else given["val"]))
        case "normal_":
            mean, std = _numbers(args, given, mean=0.0, std=1.0)
            return Normal("normal", mean, std, -math.inf, math.inf)
        case "trunc_normal_":
            mean, std, low, high = _numbers(args, given, mean=0.0, std=1.0, a=-2.0, b=2.0)
            return Normal("normal", mean, std, low, high)
        case "uniform_":
            low, high = _numbers(args, given, a=0.0, b=1.0)
            return Uniform("uniform", low, high)
        case "kaiming_normal_" | "kaiming_uniform_" | "xavier_normal_" | "xavier_uniform_":
            return _by_fan(name, parameter.value.shape, args, given)
    return f"torch's own ({name})"


def _numbers(args: tuple[Any, ...], given: Mapping[str, Any], **defaults: float) -> list[float]:
    names = list(defaults)
    values = defaults | dict(zip(names, args, strict=False)) | dict(given)
    return [float(values[name]) for name in names]


def _by_fan(name: str, shape: tuple[int, ...], args: tuple[Any, ...], given: Mapping[str, Any]) -> Distribution:
    """torch.nn.init's fans: those of a weight [out, in, ...], whatever its groups."""
    window = math.prod(shape[2:])
    fan_in, fan_out = shape[1] * window, shape[0] * window
    if name.startswith("xavier"):
        (gain,) = _numbers(args, given, gain=1.0)
        std = gain * math.sqrt(2 / (fan_in + fan_out))
    else:
        words = {"a": 0, "mode": "fan_in", "nonlinearity": "leaky_relu"}
        values: dict[str, Any] = words | dict(zip(words, args, strict=False)) | dict(given)
        gain = _GAINS.get(values["nonlinearity"], math.sqrt(2 / (1 + values["a"] ** 2)))
        std = gain / math.sqrt(fan_out if values["mode"] == "fan_out" else fan_in)
    if name.endswith("normal_"):
        return Normal("normal", 0.0, std, -math.inf, math.inf)
    return Uniform("uniform", -math.sqrt(3) * std, math.sqrt(3) * std)


def _alike(found: Distribution | str, expected: Distribution) -> bool:
    if type(found) is not type(expected):
        return False
    return all(
        ours == theirs
        or (isinstance(ours, float) and isinstance(theirs, float) and math.isclose(ours, theirs, rel_tol=1e-9))
        for ours, theirs in zip(found, expected, strict=True)
    )
