"""Rules of the ONNX backend: one row an operator, each writes the ONNX nodes of one graph node.

Common denominators are preferred to newer operators where runtimes differ: SiLU is Sigmoid and Mul, a ceiling is
resolved into pads.  Attributes of ONNX are float32 whatever the model's type is, so a float64 model (there to judge
numbers) avoids those that float32 would round.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import pi, sqrt
from typing import TypeAlias

from effspec.backends.onnx.parts import Builder
from effspec.backends.onnx.windows import (
    adaptive_avg_pool,
    avg_pool,
    dynamic_conv,
    max_pool,
    resize,
    stated_pads,
    zero_pad,
)

from effspec.ir.graph import Attribute, Node
from effspec.ops.base import integer, integers, pair

Rule: TypeAlias = Callable[[Builder, Node, tuple[str, ...]], None]


def _number(value: Attribute) -> int | Fraction:
    assert isinstance(value, int | Fraction)
    return value


def _offset(b: Builder, node: Node) -> int:
    """How far the batch moves the axes."""
    return int(b.types(node)[0].batched)


def simple(op: str, **attributes: int | float) -> Rule:
    """An operator that ONNX has as it is."""

    def rule(b: Builder, node: Node, x: tuple[str, ...]) -> None:
        b.last(op, *x, **attributes)

    return rule


# Weights


def _conv(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    a = node.attributes
    weight = x[1] if len(x) == 2 else b.weight(node.parameters["weight"])
    bias = (b.weight(node.parameters["bias"]),) if a["bias"] else ()
    b.last(
        "Conv",
        x[0],
        weight,
        *bias,
        dilations=pair(a["dilation"]),
        group=integer(a["groups"]),
        kernel_shape=pair(a["kernel_size"]),
        pads=stated_pads(a["padding"]),
        strides=pair(a["stride"]),
    )


def _conv_transpose(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    a = node.attributes
    bias = (b.weight(node.parameters["bias"]),) if a["bias"] else ()
    b.last(
        "ConvTranspose",
        x[0],
        b.weight(node.parameters["weight"]),
        *bias,
        dilations=pair(a["dilation"]),
        group=integer(a["groups"]),
        kernel_shape=pair(a["kernel_size"]),
        output_padding=pair(a["out_pad"]),
        pads=stated_pads(a["padding"]),
        strides=pair(a["stride"]),
    )


def _linear(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    weight, bias = node.parameters["weight"], node.parameters.get("bias")
    kind = b.types(node)[0]
    if kind.batched and len(kind.shape) == 1:
        b.last("Gemm", x[0], b.weight(weight), *([b.weight(bias)] if bias else []), transB=1)
    elif bias:
        b.last("Add", b.step("MatMul", x[0], b.transposed(weight)), b.weight(bias))
    else:
        b.last("MatMul", x[0], b.transposed(weight))


def _batch_norm(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    channels, *rest = b.types(node)[0].shape
    tensors, eps = node.parameters, _number(node.attributes["eps"])
    if b.double:
        columns = {name: b.column(parameter, len(rest)) for name, parameter in tensors.items()}
        deviation = b.step("Sqrt", b.step("Add", columns["running_var"], b.real(eps)))
        write = b.step if "weight" in columns else b.last
        normal = write("Div", b.step("Sub", x[0], columns["running_mean"]), deviation)
        if "weight" in columns:
            b.last("Add", b.step("Mul", normal, columns["weight"]), columns["bias"])
        return
    affine = [b.weight(tensors[n]) if n in tensors else b.real(v, (channels,)) for n, v in (("weight", 1), ("bias", 0))]
    statistics = [b.weight(tensors[name]) for name in ("running_mean", "running_var")]
    # ONNX counts momentum as TensorFlow does.
    momentum = float(1 - _number(node.attributes["momentum"]))
    b.last(
        "BatchNormalization",
        x[0],
        *affine,
        *statistics,
        epsilon=float(eps),
        momentum=momentum,
    )


def _layer_norm(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    kind, axes, first = b.types(node)[0], integers(node.attributes["axes"]), _offset(b, node)
    rank, count = first + len(kind.shape), len(axes)
    moved = tuple(axis + first for axis in axes)
    # The normalised axes go last, where LayerNormalization and the weights' shape want them.
    order = (*(axis for axis in range(rank) if axis not in moved), *moved)
    there = order != tuple(range(rank))
    last = b.step if there else b.last
    y = b.step("Transpose", x[0], perm=order) if there else x[0]
    shape = tuple(kind.shape[axis] for axis in axes)
    weight, bias = node.parameters.get("weight"), node.parameters.get("bias")
    eps = _number(node.attributes["eps"])
    if b.opset >= 17 and not b.double:
        scale = b.weight(weight) if weight else b.real(1, shape)
        y = last("LayerNormalization", y, scale, *([b.weight(bias)] if bias else []), axis=-count, epsilon=float(eps))
    else:
        ends = tuple(range(rank - count, rank))
        centred = b.step("Sub", y, b.reduce("ReduceMean", y, ends))
        variance = b.reduce("ReduceMean", b.step("Mul", centred, centred), ends)
        deviation = b.step("Sqrt", b.step("Add", variance, b.real(eps)))
        if weight and bias:
            scaled = b.step("Mul", b.step("Div", centred, deviation), b.weight(weight))
            y = last("Add", scaled, b.weight(bias))
        else:
            y = last("Div", centred, deviation)
    if there:
        b.last("Transpose", y, perm=tuple(order.index(axis) for axis in range(rank)))


def _group_norm(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    kind, groups = b.types(node)[0], integer(node.attributes["groups"])
    weight, bias = node.parameters.get("weight"), node.parameters.get("bias")
    channels, rest = kind.shape[0], len(kind.shape) - 1
    eps = float(_number(node.attributes["eps"]))
    # GroupNormalization changed its meaning from opset 18 to 21, and ONNX infers no shape for it: the others do.
    if weight and bias and kind.batched and groups == channels and rest:
        b.last("InstanceNormalization", x[0], b.weight(weight), b.weight(bias), epsilon=eps)
        return
    ones, zeros = b.real(1, (groups,)), b.real(0, (groups,))
    split = b.step("Reshape", x[0], b.ints(0 if kind.batched else 1, groups, -1))
    normal = b.step("InstanceNormalization", split, ones, zeros, epsilon=eps)
    back = (normal, b.ints(*((0,) if kind.batched else ()), *kind.shape))
    if weight and bias:
        scaled = b.step("Mul", b.step("Reshape", *back), b.column(weight, rest))
        b.last("Add", scaled, b.column(bias, rest))
    else:
        b.last("Reshape", *back)


# Activations


def _relu6(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    b.last("Clip", x[0], b.real(0), b.real(6))


def _silu(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    b.last("Mul", x[0], b.step("Sigmoid", x[0]))


def _mish(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    b.last("Mul", x[0], b.step("Tanh", b.step("Softplus", x[0])))


def _hard_sigmoid(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    if b.double:
        b.last("Div", b.step("Clip", b.step("Add", x[0], b.real(3)), b.real(0), b.real(6)), b.real(6))
    else:
        b.last("HardSigmoid", x[0], alpha=1 / 6, beta=0.5)


def _hard_swish(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    if b.double:
        gate = b.step("Clip", b.step("Add", x[0], b.real(3)), b.real(0), b.real(6))
        b.last("Mul", x[0], b.step("Div", gate, b.real(6)))
    elif b.opset >= 14:
        b.last("HardSwish", x[0])
    else:
        b.last("Mul", x[0], b.step("HardSigmoid", x[0], alpha=1 / 6, beta=0.5))


def _gelu(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    approximate = bool(node.attributes["approximate"])
    if b.opset >= 20 and not b.double:
        b.last("Gelu", x[0], approximate="tanh" if approximate else "none")
        return
    if approximate:
        cube = b.step("Mul", b.step("Mul", x[0], x[0]), x[0])
        inner = b.step("Add", x[0], b.step("Mul", cube, b.real(Fraction(44715, 1_000_000))))
        curve = b.step("Tanh", b.step("Mul", inner, b.real(sqrt(2 / pi))))
    else:
        curve = b.step("Erf", b.step("Div", x[0], b.real(sqrt(2))))
    b.last("Mul", b.step("Mul", x[0], b.real(Fraction(1, 2))), b.step("Add", curve, b.real(1)))


def _leaky_relu(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    slope = _number(node.attributes["slope"])
    if b.double:
        b.last("PRelu", x[0], b.real(slope, (1,)))
    else:
        b.last("LeakyRelu", x[0], alpha=float(slope))


def _elu(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    alpha = _number(node.attributes["alpha"])
    if b.double and alpha != 1:
        below = b.step("Elu", b.step("Min", x[0], b.real(0)), alpha=1.0)
        b.last("Add", b.step("Relu", x[0]), b.step("Mul", below, b.real(alpha)))
    else:
        b.last("Elu", x[0], alpha=float(alpha))


def _softmax(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    b.last("Softmax", x[0], axis=integer(node.attributes["axis"]) + _offset(b, node))


def _clip(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    b.last("Clip", x[0], b.real(_number(node.attributes["low"])), b.real(_number(node.attributes["high"])))


# Arithmetic


def _arithmetic(op: str) -> Rule:
    def rule(b: Builder, node: Node, x: tuple[str, ...]) -> None:
        if "scalar" in node.attributes:
            number = b.real(_number(node.attributes["scalar"]))
            b.last(op, *((number, x[0]) if node.attributes["scalar_left"] else (x[0], number)))
            return
        if len(x) == 1:
            b.last("Identity", x[0])
            return
        # More than two: pairwise from the left, since not every runtime has the operator for many.
        total = x[0]
        for other in x[1:-1]:
            total = b.step(op, total, other)
        b.last(op, total, x[-1])

    return rule


def _pow(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    if "scalar" in node.attributes and not node.attributes["scalar_left"]:
        exponent = _number(node.attributes["scalar"])
        if exponent == 2:
            b.last("Mul", x[0], x[0])
            return
        if exponent == Fraction(1, 2):
            b.last("Sqrt", x[0])
            return
    _arithmetic("Pow")(b, node, x)


# Reductions and shapes


def _reduction(op: str) -> Rule:
    def rule(b: Builder, node: Node, x: tuple[str, ...]) -> None:
        first = _offset(b, node)
        b.reduce(op, x[0], tuple(axis + first for axis in integers(node.attributes["axes"])), last=True)

    return rule


def _concat(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    b.last("Concat", *x, axis=integer(node.attributes["axis"]) + _offset(b, node))


def _split(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    sizes = b.ints(*integers(node.attributes["sizes"]))
    b.last("Split", x[0], sizes, axis=integer(node.attributes["axis"]) + _offset(b, node))


def _slice(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    a = node.attributes
    axis = integer(a["axis"]) + _offset(b, node)
    b.last("Slice", x[0], b.ints(integer(a["start"])), b.ints(integer(a["stop"])), b.ints(axis))


def _reshape(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    kind = node.types[0]
    b.last("Reshape", x[0], b.ints(*((0,) if kind.batched else ()), *kind.shape))


def _flatten(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    if node.types[0].batched:
        b.last("Flatten", x[0], axis=1)
    else:
        b.last("Reshape", x[0], b.ints(-1))


def _permute(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    first = _offset(b, node)
    order = integers(node.attributes["order"])
    b.last("Transpose", x[0], perm=(*range(first), *(axis + first for axis in order)))


ROWS: dict[str, Rule] = {
    "conv": _conv,
    "dynamic_conv": dynamic_conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "relu": simple("Relu"),
    "relu6": _relu6,
    "silu": _silu,
    "mish": _mish,
    "sigmoid": simple("Sigmoid"),
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_swish,
    "tanh": simple("Tanh"),
    "softplus": simple("Softplus"),
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "softmax": _softmax,
    "clip": _clip,
    "add": _arithmetic("Add"),
    "sub": _arithmetic("Sub"),
    "mul": _arithmetic("Mul"),
    "div": _arithmetic("Div"),
    "pow": _pow,
    "matmul": simple("MatMul"),
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "global_avg_pool": simple("GlobalAveragePool"),
    "global_max_pool": simple("GlobalMaxPool"),
    "adaptive_avg_pool": adaptive_avg_pool,
    "reduce_mean": _reduction("ReduceMean"),
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_max": _reduction("ReduceMax"),
    "concat": _concat,
    "split": _split,
    "slice": _slice,
    "reshape": _reshape,
    "flatten": _flatten,
    "permute": _permute,
    "zero_pad": zero_pad,
    "resize": resize,
    "identity": simple("Identity"),
    "dropout": simple("Identity"),
    "drop_path": simple("Identity"),
}
