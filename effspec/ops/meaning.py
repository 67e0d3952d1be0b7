"""What every operator computes, in numpy and in the type of its numbers: float64 says what a network means.

Slow, plain and independent of every runtime.  A tensor that comes with a batch has it as its first axis; the axes of
the table then stand one further back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import erf, pi, sqrt
from typing import Any, TypeAlias

import numpy

from effspec.ir.graph import Attribute, Node
from effspec.ops.base import integer, integers, pair

Array: TypeAlias = "numpy.ndarray[Any, numpy.dtype[Any]]"


@dataclass(frozen=True)
class Step:
    """One node at work: its inputs, its tensors, and how many axes of the first input are the batch (0 or 1).

    `backwards` adds up sums of products from the other end: another draw of the rounding errors.
    """

    node: Node
    inputs: Sequence[Array]
    tensors: Mapping[str, Array]
    first: int = 0
    backwards: bool = False

    @property
    def x(self) -> Array:
        return self.inputs[0]

    def axes(self, name: str = "axes") -> tuple[int, ...]:
        return tuple(axis + self.first for axis in integers(self.node.attributes[name]))

    def axis(self) -> int:
        return integer(self.node.attributes["axis"]) + self.first

    def real(self, name: str) -> float:
        return float(self.node.attributes[name])  # type: ignore[arg-type]


Rule: TypeAlias = "Callable[[Step], Array | list[Array]]"


def meaning(step: Step) -> list[Array]:
    """The results of a node."""
    found = MEANING[step.node.op](step)
    return found if isinstance(found, list) else [found]


def _unary(function: Callable[[Any], Any]) -> Rule:
    return lambda step: function(step.x)


def _arithmetic(function: Callable[[Any, Any], Any]) -> Rule:
    def rule(step: Step) -> Array:
        attributes = step.node.attributes
        if "scalar" in attributes:
            number = step.real("scalar")
            return numpy.asarray(function(*((number, step.x) if attributes["scalar_left"] else (step.x, number))))
        return numpy.asarray(reduce(function, step.inputs))

    return rule


def _reduction(function: Callable[..., Any]) -> Rule:
    return lambda step: function(step.x, axis=step.axes(), keepdims=True)


# Products with weights


def _windows(step: Step, x: Array, dilation: tuple[int, int]) -> Iterator[tuple[int, int, Array]]:
    """For each place (i, j) of the kernel, what all windows of a padded image hold there."""
    kernel, stride = pair(step.node.attributes["kernel_size"]), pair(step.node.attributes["stride"])
    _, *outs = step.node.types[0].shape
    places = [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]
    for place in reversed(places) if step.backwards else places:
        starts = [at * hole for at, hole in zip(place, dilation, strict=True)]
        rows, columns = (
            slice(start, start + (out - 1) * s + 1, s) for start, out, s in zip(starts, outs, stride, strict=True)
        )
        yield *place, x[:, :, rows, columns]


def _padded(x: Array, padding: Attribute, value: float = 0.0, more: tuple[int, int] = (0, 0)) -> Array:
    """An image with `value` around it, and `more` rows and columns of it at the end."""
    assert isinstance(padding, tuple)
    (top, bottom), (left, right) = (pair(ends) for ends in padding)
    ends = ((0, 0), (0, 0), (top, bottom + more[0]), (left, right + more[1]))
    return numpy.pad(x, ends, constant_values=value) if any(map(any, ends)) else x


def _product(step: Step, weight: Array, x: Array) -> Array:
    """Matrices times matrices."""
    found: Array = weight[..., ::-1] @ x[..., ::-1, :] if step.backwards else weight @ x
    return found


def _column(vector: Array, rank: int) -> Array:
    """A number for each channel, to stand beside tensors with `rank` axes after the batch."""
    return vector.reshape(-1, *(1,) * (rank - 1))


def _conv(step: Step) -> Array:
    attributes = step.node.attributes
    weight = step.inputs[1] if len(step.inputs) == 2 else step.tensors["weight"]
    groups, (out, inner, *_) = integer(attributes["groups"]), weight.shape
    x = _padded(step.x, attributes["padding"])
    count = len(x)
    total: Array = numpy.zeros((count, *step.node.types[0].shape), x.dtype)
    for i, j, view in _windows(step, x, pair(attributes["dilation"])):
        if inner == 1 and out == groups:
            total += view * weight[:, 0, i, j].reshape(-1, 1, 1)
        else:
            grouped = view.reshape(count, groups, inner, -1)
            taps = weight[:, :, i, j].reshape(groups, out // groups, inner)
            total += _product(step, taps, grouped).reshape(total.shape)
    return total + _column(step.tensors["bias"], 3) if "bias" in step.tensors else total


def _dynamic_conv(step: Step) -> Array:
    attributes, (image, weight) = step.node.attributes, step.inputs
    groups, (count, out, inner, *_) = integer(attributes["groups"]), weight.shape
    x = _padded(image, attributes["padding"])
    total: Array = numpy.zeros((count, *step.node.types[0].shape), x.dtype)
    for i, j, view in _windows(step, x, pair(attributes["dilation"])):
        taps = weight[..., i, j].reshape(count, groups, out // groups, inner)
        total += _product(step, taps, view.reshape(count, groups, inner, -1)).reshape(total.shape)
    return total


def _conv_transpose(step: Step) -> Array:
    attributes, weight = step.node.attributes, step.tensors["weight"]
    groups, (inner, out, *kernel) = integer(attributes["groups"]), weight.shape
    stride, dilation = pair(attributes["stride"]), pair(attributes["dilation"])
    count, _, *sizes = step.x.shape
    extents = [
        (size - 1) * s + d * (k - 1) + 1 + more
        for size, s, d, k, more in zip(sizes, stride, dilation, kernel, pair(attributes["out_pad"]), strict=True)
    ]
    total: Array = numpy.zeros((count, groups * out, *extents), step.x.dtype)
    grouped = step.x.reshape(count, groups, inner // groups, -1)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            taps = weight[:, :, i, j].reshape(groups, inner // groups, out).swapaxes(1, 2)
            rows, columns = (
                slice(at * d, at * d + (size - 1) * s + 1, s)
                for at, d, size, s in zip((i, j), dilation, sizes, stride, strict=True)
            )
            total[:, :, rows, columns] += _product(step, taps, grouped).reshape(count, groups * out, *sizes)
    padding = attributes["padding"]
    assert isinstance(padding, tuple)
    (top, _), (left, _) = (pair(ends) for ends in padding)
    _, height, width = step.node.types[0].shape
    total = total[:, :, top : top + height, left : left + width]
    return total + _column(step.tensors["bias"], 3) if "bias" in step.tensors else total


def _linear(step: Step) -> Array:
    found = _product(step, step.x[..., None, :], step.tensors["weight"].T)[..., 0, :]
    return found + step.tensors["bias"] if "bias" in step.tensors else found


# Normalisation


def _affine(step: Step, normal: Array, shape: tuple[int, ...]) -> Array:
    if "weight" not in step.tensors:
        return normal
    result: Array = normal * step.tensors["weight"].reshape(shape) + step.tensors["bias"].reshape(shape)
    return result


def _normal(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    centred = x - x.mean(axis=axes, keepdims=True)
    normal: Array = centred / numpy.sqrt((centred**2).mean(axis=axes, keepdims=True) + eps)
    return normal


def _batch_norm(step: Step) -> Array:
    rank = step.x.ndim - step.first
    mean, variance = (_column(step.tensors[f"running_{name}"], rank) for name in ("mean", "var"))
    return _affine(step, (step.x - mean) / numpy.sqrt(variance + step.real("eps")), (-1, *(1,) * (rank - 1)))


def _layer_norm(step: Step) -> Array:
    axes = step.axes()
    shape = tuple(size if axis in axes else 1 for axis, size in enumerate(step.x.shape))
    return _affine(step, _normal(step.x, axes, step.real("eps")), shape)


def _group_norm(step: Step) -> Array:
    lead = step.x.shape[: step.first]
    grouped = step.x.reshape(*lead, integer(step.node.attributes["groups"]), -1)
    normal = _normal(grouped, (step.first + 1,), step.real("eps")).reshape(step.x.shape)
    return _affine(step, normal, (-1, *(1,) * (step.x.ndim - step.first - 1)))


# Activations


def _sigmoid(x: Array) -> Array:
    # exp of a negative number only: no overflow.
    small = numpy.exp(-numpy.abs(x))
    gate: Array = numpy.where(x >= 0, 1, small).astype(x.dtype, copy=False) / (1 + small)
    return gate


def _softplus(x: Array) -> Array:
    found: Array = numpy.maximum(x, 0) + numpy.log1p(numpy.exp(-numpy.abs(x)))
    return found


def _hard_sigmoid(x: Array) -> Array:
    found: Array = numpy.clip(x + 3, 0, 6) / 6
    return found


def _gelu(step: Step) -> Array:
    x = step.x
    if step.node.attributes["approximate"]:
        curved: Array = x / 2 * (1 + numpy.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
        return curved
    curve = numpy.fromiter(map(erf, (x / sqrt(2)).ravel().tolist()), x.dtype, x.size).reshape(x.shape)
    exact: Array = x / 2 * (1 + curve)
    return exact


def _leaky_relu(step: Step) -> Array:
    found: Array = numpy.where(step.x > 0, step.x, step.real("slope") * step.x)
    return found


def _elu(step: Step) -> Array:
    found: Array = numpy.where(step.x > 0, step.x, step.real("alpha") * numpy.expm1(numpy.minimum(step.x, 0)))
    return found


def _softmax(step: Step) -> Array:
    powers = numpy.exp(step.x - step.x.max(axis=step.axis(), keepdims=True))
    shares: Array = powers / powers.sum(axis=step.axis(), keepdims=True)
    return shares


# Windows


def _overhang(step: Step, dilation: tuple[int, int]) -> tuple[int, int]:
    """How far the last windows stick out beyond the stated pads, which `ceil` allows."""
    attributes = step.node.attributes
    padding = attributes["padding"]
    assert isinstance(padding, tuple)
    kernel, stride = pair(attributes["kernel_size"]), pair(attributes["stride"])
    down, right = (
        max(0, (out - 1) * s + d * (k - 1) + 1 - size - sum(pair(ends)))
        for out, s, d, k, size, ends in zip(
            step.node.types[0].shape[1:], stride, dilation, kernel, step.x.shape[2:], padding, strict=True
        )
    )
    return down, right


def _max_pool(step: Step) -> Array:
    dilation = pair(step.node.attributes["dilation"])
    x = _padded(step.x, step.node.attributes["padding"], -numpy.inf, _overhang(step, dilation))
    found: Array = reduce(numpy.maximum, (view for _, _, view in _windows(step, x, dilation)))
    return found


def _avg_pool(step: Step) -> Array:
    attributes, more = step.node.attributes, _overhang(step, (1, 1))
    pads: Attribute = attributes["padding"]
    none: Attribute = ((0, 0), (0, 0))
    # What counts is 1: the image's pixels and, with count_pad, the stated pads.
    ones: Array = numpy.ones((1, 1, *step.x.shape[2:]), step.x.dtype)
    ones = (
        _padded(_padded(ones, pads, 1.0), none, 0.0, more)
        if attributes["count_pad"]
        else _padded(ones, pads, 0.0, more)
    )
    total: Array = reduce(numpy.add, (view for _, _, view in _windows(step, _padded(step.x, pads, 0.0, more), (1, 1))))
    count: Array = reduce(numpy.add, (view for _, _, view in _windows(step, ones, (1, 1))))
    found: Array = total / count
    return found


def _means(size: int, out: int, dtype: Any) -> Array:
    """Row o averages elements floor(o * size / out) to ceil((o + 1) * size / out)."""
    rows: Array = numpy.zeros((out, size), dtype)
    for o in range(out):
        start, stop = o * size // out, -(-(o + 1) * size // out)
        rows[o, start:stop] = 1 / (stop - start)
    return rows


def _adaptive_avg_pool(step: Step) -> Array:
    outs = pair(step.node.attributes["output_size"])
    down, right = (_means(size, out, step.x.dtype) for size, out in zip(step.x.shape[2:], outs, strict=True))
    found: Array = down @ step.x @ right.T
    return found


def _resize(step: Step) -> Array:
    sizes, outs = step.x.shape[2:], pair(step.node.attributes["size"])
    if step.node.attributes["mode"] == "nearest":
        rows, columns = (numpy.arange(out) * size // out for size, out in zip(sizes, outs, strict=True))
        return step.x[:, :, rows][:, :, :, columns]
    corners = bool(step.node.attributes["align_corners"])
    down, right = (_blends(size, out, corners, step.x.dtype) for size, out in zip(sizes, outs, strict=True))
    found: Array = down @ step.x @ right.T
    return found


def _blends(size: int, out: int, corners: bool, dtype: Any) -> Array:
    """Row o holds the shares of the two elements between which it lies."""
    if corners:
        places = numpy.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0)
    else:
        places = numpy.clip((numpy.arange(out) + 0.5) * (size / out) - 0.5, 0, size - 1)
    low = numpy.minimum(numpy.floor(places).astype(int), max(size - 2, 0))
    share = places - low
    rows = numpy.zeros((out, size))
    rows[numpy.arange(out), low] = 1 - share
    rows[numpy.arange(out), numpy.minimum(low + 1, size - 1)] += share
    return rows.astype(dtype)


# Shapes


def _slice(step: Step) -> Array:
    start, stop = (integer(step.node.attributes[name]) for name in ("start", "stop"))
    return step.x[(slice(None),) * step.axis() + (slice(start, stop),)]


def _split(step: Step) -> list[Array]:
    ends = numpy.cumsum(integers(step.node.attributes["sizes"]))[:-1]
    return list(numpy.split(step.x, ends, axis=step.axis()))


def _permute(step: Step) -> Array:
    return step.x.transpose(*range(step.first), *step.axes("order"))


def _clip(step: Step) -> Array:
    found: Array = numpy.clip(step.x, step.real("low"), step.real("high"))
    return found


def _reshaped(step: Step) -> Array:
    return step.x.reshape(*step.x.shape[: step.first], *step.node.types[0].shape)


MEANING: dict[str, Rule] = {
    "parameter": lambda step: step.tensors["value"],
    "conv": _conv,
    "dynamic_conv": _dynamic_conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "batch_norm": _batch_norm,
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
    "matmul": lambda step: _product(step, step.inputs[0], step.inputs[1]),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": _unary(lambda x: x.mean(axis=(2, 3), keepdims=True)),
    "global_max_pool": _unary(lambda x: x.max(axis=(2, 3), keepdims=True)),
    "adaptive_avg_pool": _adaptive_avg_pool,
    "reduce_mean": _reduction(numpy.mean),
    "reduce_sum": _reduction(numpy.sum),
    "reduce_max": _reduction(numpy.max),
    "concat": lambda step: numpy.concatenate(step.inputs, axis=step.axis()),
    "split": _split,
    "slice": _slice,
    "reshape": _reshaped,
    "flatten": _reshaped,
    "permute": _permute,
    "zero_pad": lambda step: _padded(step.x, step.node.attributes["pad"]),
    "resize": _resize,
    "identity": _unary(lambda x: x),
    "dropout": _unary(lambda x: x),
    "drop_path": _unary(lambda x: x),
}
"""One row an operator; `input` has none."""
