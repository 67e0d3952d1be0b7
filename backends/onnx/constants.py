"""Computes what depends on parameters alone, operator by operator, in float64 numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import erf, pi, sqrt
from typing import Any, TypeAlias

import numpy

from effspec.ir.graph import Attribute, Node, Parameter, Value
from effspec.ops.base import integer, integers
from effspec.passes.derived import Computed, needed

Array: TypeAlias = "numpy.ndarray[Any, numpy.dtype[numpy.float64]]"
Source: TypeAlias = Callable[[Parameter], Array]
Rule: TypeAlias = Callable[[Node, tuple[Array, ...], dict[str, Array]], "Array | list[Array]"]


def compute(item: Computed, source: Source) -> Array:
    """The value, from the numbers that `source` gives for parameters."""
    results: dict[Value, Array] = {}
    for node in needed(item):
        tensors = {name: source(parameter) for name, parameter in node.parameters.items()}
        found = _ROWS[node.op](node, tuple(results[value] for value in node.inputs), tensors)
        for output, array in enumerate(found if isinstance(found, list) else [found]):
            results[Value(node.id, output)] = array
    return results[item.value].reshape(item.graph.type(item.value).shape)


def _real(value: Attribute) -> float:
    return float(value)  # type: ignore[arg-type]


def _unary(function: Callable[[Any], Any]) -> Rule:
    return lambda node, x, tensors: function(x[0])


def _arithmetic(function: Callable[[Any, Any], Any]) -> Rule:
    def rule(node: Node, x: tuple[Array, ...], tensors: dict[str, Array]) -> Array:
        if "scalar" in node.attributes:
            number = _real(node.attributes["scalar"])
            pair = (number, x[0]) if node.attributes["scalar_left"] else (x[0], number)
            return numpy.asarray(function(*pair))
        return numpy.asarray(reduce(function, x))

    return rule


def _reduction(function: Callable[..., Any]) -> Rule:
    return lambda node, x, tensors: function(x[0], axis=integers(node.attributes["axes"]), keepdims=True)


def _sigmoid(x: Array) -> Array:
    # exp of a negative number only: no overflow.
    small = numpy.exp(-numpy.abs(x))
    gate: Array = numpy.where(x >= 0, 1, small) / (1 + small)
    return gate


def _softplus(x: Array) -> Array:
    return numpy.logaddexp(x, 0)


def _hard_sigmoid(x: Array) -> Array:
    return numpy.clip(x + 3, 0, 6) / 6


def _gelu(node: Node, x: tuple[Array, ...], tensors: dict[str, Array]) -> Array:
    if node.attributes["approximate"]:
        curved: Array = x[0] / 2 * (1 + numpy.tanh(sqrt(2 / pi) * (x[0] + 0.044715 * x[0] ** 3)))
        return curved
    curve = numpy.fromiter((erf(value / sqrt(2)) for value in x[0].flat), numpy.float64, x[0].size)
    return x[0] / 2 * (1 + curve.reshape(x[0].shape))


def _leaky_relu(node: Node, x: tuple[Array, ...], tensors: dict[str, Array]) -> Array:
    return numpy.where(x[0] > 0, x[0], _real(node.attributes["slope"]) * x[0])


def _elu(node: Node, x: tuple[Array, ...], tensors: dict[str, Array]) -> Array:
    return numpy.where(x[0] > 0, x[0], _real(node.attributes["alpha"]) * numpy.expm1(numpy.minimum(x[0], 0)))


def _softmax(node: Node, x: tuple[Array, ...], tensors: dict[str, Array]) -> Array:
    axis = integer(node.attributes["axis"])
    powers = numpy.exp(x[0] - x[0].max(axis=axis, keepdims=True))
    shares: Array = powers / powers.sum(axis=axis, keepdims=True)
    return shares


def _clip(node: Node, x: tuple[Array, ...], tensors: dict[str, Array]) -> Array:
    return numpy.clip(x[0], _real(node.attributes["low"]), _real(node.attributes["high"]))


def _linear(node: Node, x: tuple[Array, ...], tensors: dict[str, Array]) -> Array:
    result: Array = x[0] @ tensors["weight"].T + tensors.get("bias", 0)
    return result


def _normal(x: Array, axes: tuple[int, ...], eps: Attribute) -> Array:
    centred = x - x.mean(axis=axes, keepdims=True)
    normal: Array = centred / numpy.sqrt((centred**2).mean(axis=axes, keepdims=True) + _real(eps))
    return normal


def _layer_norm(node: Node, x: tuple[Array, ...], tensors: dict[str, Array]) -> Array:
    axes = integers(node.attributes["axes"])
    shape = tuple(size if axis in axes else 1 for axis, size in enumerate(x[0].shape))
    normal = _normal(x[0], axes, node.attributes["eps"])
    if not tensors:
        return normal
    return normal * tensors["weight"].reshape(shape) + tensors["bias"].reshape(shape)


def _group_norm(node: Node, x: tuple[Array, ...], tensors: dict[str, Array]) -> Array:
    grouped = x[0].reshape(integer(node.attributes["groups"]), -1)
    normal = _normal(grouped, (1,), node.attributes["eps"]).reshape(x[0].shape)
    if not tensors:
        return normal
    shape = (-1, *(1,) * (x[0].ndim - 1))
    return normal * tensors["weight"].reshape(shape) + tensors["bias"].reshape(shape)


def _slice(node: Node, x: tuple[Array, ...], tensors: dict[str, Array]) -> Array:
    axis, start, stop = (integer(node.attributes[name]) for name in ("axis", "start", "stop"))
    return x[0][(slice(None),) * axis + (slice(start, stop),)]


def _split(node: Node, x: tuple[Array, ...], tensors: dict[str, Array]) -> list[Array]:
    ends = numpy.cumsum(integers(node.attributes["sizes"]))[:-1]
    return list(numpy.split(x[0], ends, axis=integer(node.attributes["axis"])))


_ROWS: dict[str, Rule] = {
    "parameter": lambda node, x, tensors: tensors["value"],
    "linear": _linear,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "relu": _unary(lambda x: numpy.maximum(x, 0)),
    "relu6": _unary(lambda x: numpy.clip(x, 0, 6)),
    "silu": _unary(lambda x: x * _sigmoid(x)),
    "mish": _unary(lambda x: x * numpy.tanh(_softplus(x))),
    "sigmoid": _unary(_sigmoid),
    "hard_sigmoid": _unary(_hard_sigmoid),
    "hard_swish": _unary(lambda x: x * _hard_sigmoid(x)),
    "tanh": _unary(numpy.tanh),
    "softplus": _unary(_softplus),
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "softmax": _softmax,
    "clip": _clip,
    "add": _arithmetic(lambda a, b: a + b),
    "sub": _arithmetic(lambda a, b: a - b),
    "mul": _arithmetic(lambda a, b: a * b),
    "div": _arithmetic(lambda a, b: a / b),
    "pow": _arithmetic(lambda a, b: a**b),
    "matmul": lambda node, x, tensors: x[0] @ x[1],
    "reduce_mean": _reduction(numpy.mean),
    "reduce_sum": _reduction(numpy.sum),
    "reduce_max": _reduction(numpy.max),
    "concat": lambda node, x, tensors: numpy.concatenate(x, axis=integer(node.attributes["axis"])),
    "split": _split,
    "slice": _slice,
    "reshape": lambda node, x, tensors: x[0].reshape(integers(node.attributes["shape"])),
    "flatten": _unary(lambda x: x.reshape(-1)),
    "permute": lambda node, x, tensors: x[0].transpose(integers(node.attributes["order"])),
    "identity": _unary(lambda x: x),
    "dropout": _unary(lambda x: x),
}
