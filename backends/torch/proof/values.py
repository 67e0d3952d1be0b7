"""Symbolic values in a normal form: two computations that mean the same get the same object.

`Values` makes one node per operator, attributes and operands, so that equality is identity.  Both the emitted code (by
`shim`) and the IR graph (by `replay`) are written down with its methods; each method rewrites what can be said in
several ways into one.  Every rewriting holds for all tensors, so a difference that it hides is none.

A shape never counts the batch axis; axes are those of the IR.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isinf, prod
from typing import Any, TypeAlias

Shape: TypeAlias = tuple[int, ...]
Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
Pair: TypeAlias = tuple[int, int]

NO_PADS: Pads = ((0, 0), (0, 0))
TOLERANCE = 4e-16
"""Relative; two numbers nearer than this are one number, written by different arithmetic."""


class ShapeError(Exception):
    """An operator was applied to a tensor that it does not fit."""


@dataclass(slots=True, eq=False, repr=False)
class Value:
    """A tensor: the operator that made it.  `number` counts the values in the order in which they were first made."""

    number: int
    op: str
    attributes: tuple[Any, ...]
    operands: tuple[Value, ...]
    shape: Shape
    batched: bool
    place: str

    def __repr__(self) -> str:
        attributes = ", ".join(map(str, self.attributes))
        if self.op == "parameter":
            return f"parameter {attributes}"
        if self.op == "input":
            return f"input {attributes}"
        operands = ", ".join(_brief(operand) for operand in self.operands)
        return f"{self.op}({attributes}) of {operands}" if operands else f"{self.op}({attributes})"


def _brief(value: Value) -> str:
    if value.op in ("parameter", "input"):
        return str(value.attributes[0])
    return f"[{value.op}{f' at {value.place}' if value.place else ''}]"


@lru_cache(4096)
def window(size: int, kernel: int, stride: int, pads: Pair, dilation: int, ceil: bool = False) -> int:
    """How many windows fit along an axis; raises ShapeError where none does."""
    space = size + sum(pads) - dilation * (kernel - 1) - 1
    if space < 0:
        raise ShapeError(f"a kernel of {kernel} does not fit on {size} with pads {pads}")
    count = (-(-space // stride) if ceil else space // stride) + 1
    return count - 1 if ceil and (count - 1) * stride >= size + pads[0] else count


class Values:
    """Every value of one comparison.  `place` is written into new values: where in the code or graph we are."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Value] = {}
        self._numbers: list[float] = []
        self._known: dict[float, float] = {}
        self._draws = 0
        self._spent: set[int] = set()
        self.place = ""

    def make(
        self, op: str, attributes: tuple[Any, ...], operands: tuple[Value, ...], shape: Shape, batched: bool
    ) -> Value:
        # Operands are compared by identity, which is equality here.
        key = (op, attributes, operands)
        value = self._made.get(key)
        if value is None:
            value = Value(len(self._made), op, attributes, operands, shape, batched, self.place)
            self._made[key] = value
        return value

    def real(self, number: float | Fraction) -> float:
        """The number, or the one within 4e-16 of it that was met before."""
        value = float(number)
        if isinf(value):
            return value
        known = self._known.get(value)
        if known is None:
            known = value
            at = bisect_left(self._numbers, value)
            for near in self._numbers[max(at - 1, 0) : at + 1]:
                if abs(near - value) <= TOLERANCE * abs(value):
                    known = near
            if known == value:
                insort(self._numbers, value)
            self._known[value] = known
        return known

    # Sources.

    def input(self, name: str, shape: Shape) -> Value:
        return self.make("input", (name,), (), shape, True)

    def parameter(self, path: str, shape: Shape) -> Value:
        return self.make("parameter", (path, shape), (), shape, False)

    def constant(self, number: float, shape: Shape, batched: bool = False) -> Value:
        return self.make("constant", (self.real(number), shape, batched), (), shape, batched)

    def bernoulli(self, keep: float, shape: Shape) -> Value:
        """One draw for each sample of the batch: 1 with probability `keep`, else 0; every call draws anew."""
        self._draws += 1
        return self.make("bernoulli", (self.real(keep), self._draws), (), shape, True)

    # Element by element.

    def unary(self, op: str, x: Value, *numbers: float | Fraction | bool) -> Value:
        """An activation, or another function of each element."""
        if op == "relu6":
            return self.unary("clip", x, 0, 6)
        if x.op == "reshape":
            return self.reshape(self.unary(op, x.operands[0], *numbers), x.shape)
        attributes = tuple([n if isinstance(n, bool) else self.real(n) for n in numbers])
        return self.make(op, attributes, (x,), x.shape, x.batched)

    def scalar(self, op: str, x: Value, number: float | Fraction, left: bool = False) -> Value:
        """`x op number`, or `number op x` with `left`."""
        if op in ("add", "mul"):
            left = False
        value = self.real(number)
        if op == "sub" and not left:
            op, value = "add", self.real(-value)
        if op == "add" and value == 0:
            return x
        if op == "div" and not left:
            kept = self._kept(x, value)
            if kept is not None:
                return kept
        if x.op == "reshape":
            return self.reshape(self.scalar(op, x.operands[0], number, left), x.shape)
        return self.make(f"{op} number", (value, left), (x,), x.shape, x.batched)

    def _kept(self, x: Value, keep: float) -> Value | None:
        """`x * draw / keep`, which is stochastic depth."""
        if x.op == "mul":
            for branch, draw in (x.operands, x.operands[::-1]):
                if draw.op == "bernoulli" and draw.attributes[0] == keep and draw.number not in self._spent:
                    # A draw that two branches share would drop them together, which stochastic depth does not.
                    self._spent.add(draw.number)
                    return self.drop("drop_path", branch, keep)
        return None

    def drop(self, op: str, x: Value, keep: float | Fraction) -> Value:
        """`drop_path`, or `dropout` with its rate; nothing for a rate of 0."""
        if (op == "drop_path" and keep == 1) or (op == "dropout" and keep == 0):
            return x
        return self.unary(op, x, keep)

    def binary(self, op: str, a: Value, b: Value) -> Value:
        """Two tensors, aligned from the right without the batch."""
        a, b = self._aligned(a, b), self._aligned(b, a)
        if op == "div":
            mean = self._uncounted(a, b)
            if mean is not None:
                return mean
        if op == "mul":
            for x, factor in ((a, b), (b, a)):
                if factor.op == "div number" and factor.operands[0].op == "bernoulli" and not factor.attributes[1]:
                    # A draw that is rescaled, rather than its product with the whole map.
                    return self.scalar("div", self.binary("mul", x, factor.operands[0]), factor.attributes[0])
        rank = max(len(a.shape), len(b.shape))
        for value in (a, b):
            if value.batched and len(value.shape) < rank:
                raise ShapeError(f"{op} of shapes {a.shape} and {b.shape}: the batch of one meets an axis of the other")
        shape = _broadcast(op, a.shape, b.shape)
        operands = (a, b)
        if op in ("add", "mul") and a.number > b.number:
            operands = (b, a)
        return self.make(op, (), operands, shape, a.batched or b.batched)

    def _aligned(self, value: Value, other: Value) -> Value:
        """Without the axes of 1 that alignment would add anyway."""
        if value.batched:
            return value
        rank = len(other.shape)
        if other.batched and len(value.shape) == rank + 1 and value.shape[0] == 1:
            # Such a tensor has the axis of the batch written out.
            value = self.reshape(value, value.shape[1:])
        if value.op == "reshape" and prod(value.shape) == 1 and len(value.operands[0].shape) <= rank:
            return value.operands[0]
        return value

    # Shapes.

    def reshape(self, x: Value, shape: Shape) -> Value:
        if prod(shape) != prod(x.shape):
            raise ShapeError(f"reshape of {x.shape} to {shape}")
        if x.op == "reshape":
            return self.reshape(x.operands[0], shape)
        return x if shape == x.shape else self.make("reshape", (shape,), (x,), shape, x.batched)

    def permute(self, x: Value, order: Sequence[int]) -> Value:
        if sorted(order) != list(range(len(x.shape))):
            raise ShapeError(f"permute of {x.shape} to the order {tuple(order)}")
        if x.op == "permute":
            return self.permute(x.operands[0], [x.attributes[0][axis] for axis in order])
        if list(order) == sorted(order):
            return x
        return self.make("permute", (tuple(order),), (x,), tuple(x.shape[axis] for axis in order), x.batched)

    def slice(self, x: Value, axis: int, start: int, stop: int) -> Value:
        size = x.shape[axis]
        if not 0 <= start < stop <= size:
            raise ShapeError(f"slice {start} to {stop} of axis {axis} of {x.shape}")
        if (start, stop) == (0, size):
            return x
        if x.op == "slice" and x.attributes[0] == axis:
            first = x.attributes[1]
            return self.slice(x.operands[0], axis, first + start, first + stop)
        shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
        return self.make("slice", (axis, start, stop), (x,), shape, x.batched)

    def concat(self, xs: Sequence[Value], axis: int) -> Value:
        first = xs[0]
        if len(xs) == 1:
            return first
        for x in xs:
            if len(x.shape) != len(first.shape) or x.batched != first.batched:
                raise ShapeError(f"concat of {first.shape} and {x.shape}")
            if any(a != b for i, (a, b) in enumerate(zip(x.shape, first.shape, strict=True)) if i != axis):
                raise ShapeError(f"concat of {first.shape} and {x.shape} along axis {axis}")
        shape = (*first.shape[:axis], sum(x.shape[axis] for x in xs), *first.shape[axis + 1 :])
        return self.make("concat", (axis,), tuple(xs), shape, first.batched)

    def reduce(self, op: str, x: Value, axes: Sequence[int]) -> Value:
        """`reduce_mean`, `reduce_sum` or `reduce_max`; the axes stay as 1."""
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        return self.make(op, (tuple(sorted(axes)),), (x,), shape, x.batched)

    def pad(self, x: Value, pads: Pads, number: float = 0.0) -> Value:
        if pads == NO_PADS:
            return x
        channels, height, width = _image("pad", x)
        shape = (channels, height + sum(pads[0]), width + sum(pads[1]))
        return self.make("pad", (pads, self.real(number)), (x,), shape, x.batched)

    def _unpadded(self, x: Value, pads: Pads, number: float) -> tuple[Value, Pads]:
        """The image before it was padded by `number`, and all pads together."""
        if x.op == "pad" and x.attributes[1] == number:
            (top, bottom), (left, right) = x.attributes[0]
            whole = ((pads[0][0] + top, pads[0][1] + bottom), (pads[1][0] + left, pads[1][1] + right))
            return self._unpadded(x.operands[0], whole, number)
        return x, pads

    def resize(self, x: Value, size: Pair, mode: str, align_corners: bool) -> Value:
        channels, height, width = _image("resize", x)
        if (height, width) == size:
            return x
        return self.make("resize", (size, mode, align_corners), (x,), (channels, *size), x.batched)

    # Windows.

    def conv(
        self, x: Value, weight: Value, bias: Value | None, stride: Pair, pads: Pads, dilation: Pair, groups: int
    ) -> Value:
        x, pads = self._unpadded(x, pads, 0.0)
        channels, *sizes = _image("conv", x)
        out, each, *kernel = weight.shape
        if each * groups != channels or out % groups:
            raise ShapeError(f"a convolution with weight {weight.shape} and {groups} groups on {channels} channels")
        _vector("the bias", bias, out)
        shape = [window(*a) for a in zip(sizes, kernel, stride, pads, dilation, strict=True)]
        operands = (x, weight) if bias is None else (x, weight, bias)
        return self.make("conv", (stride, pads, dilation, groups), operands, (out, *shape), True)

    def conv_transpose(
        self,
        x: Value,
        weight: Value,
        bias: Value | None,
        stride: Pair,
        pads: Pads,
        out_pad: Pair,
        dilation: Pair,
        groups: int,
    ) -> Value:
        channels, *sizes = _image("conv_transpose", x)
        inside, each, *kernel = weight.shape
        if inside != channels or channels % groups:
            raise ShapeError(f"a transposed convolution with weight {weight.shape} on {channels} channels")
        _vector("the bias", bias, each * groups)
        shape = [
            (size - 1) * s - sum(p) + d * (k - 1) + 1 + more
            for size, s, p, d, k, more in zip(sizes, stride, pads, dilation, kernel, out_pad, strict=True)
        ]
        operands = (x, weight) if bias is None else (x, weight, bias)
        attributes = (stride, pads, out_pad, dilation, groups)
        return self.make("conv_transpose", attributes, operands, (each * groups, *shape), True)

    def max_pool(self, x: Value, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair, ceil: bool) -> Value:
        x, pads = self._unpadded(x, pads, float("-inf"))
        shape, ceil = _pooled(x, kernel, stride, pads, dilation, ceil)
        return self.make("max_pool", (kernel, stride, pads, dilation, ceil), (x,), shape, True)

    def avg_pool(self, x: Value, kernel: Pair, stride: Pair, pads: Pads, ceil: bool, count_pad: bool) -> Value:
        if pads == NO_PADS:
            count_pad = True
        if count_pad and not ceil:
            x, pads = self._unpadded(x, pads, 0.0)
        shape, ceil = _pooled(x, kernel, stride, pads, (1, 1), ceil)
        return self.make("avg_pool", (kernel, stride, pads, ceil, count_pad), (x,), shape, True)

    def _uncounted(self, total: Value, count: Value) -> Value | None:
        """The mean over padded windows, divided by how much of each window is image: pads that do not count."""
        if total.op == "avg_pool" and count.op == "avg_pool" and total.attributes == count.attributes:
            kernel, stride, pads, ceil, count_pad = total.attributes
            ones = count.operands[0]
            image = total.operands[0]
            same_size = ones.shape[1:] == image.shape[1:]
            if count_pad and not ceil and same_size and ones.op == "constant" and ones.attributes[0] == 1:
                return self.avg_pool(image, kernel, stride, pads, False, False)
        return None

    def adaptive_avg_pool(self, x: Value, size: Pair) -> Value:
        channels, height, width = _image("adaptive_avg_pool", x)
        if size == (1, 1):
            return self.reduce("reduce_mean", x, (1, 2))
        if size == (height, width):
            return x
        return self.make("adaptive_avg_pool", (size,), (x,), (channels, *size), True)

    # Matrices and norms.

    def linear(self, x: Value, weight: Value, bias: Value | None) -> Value:
        out, features = weight.shape
        if not x.shape or x.shape[-1] != features:
            raise ShapeError(f"a linear map from {features} features on {x.shape}")
        _vector("the bias", bias, out)
        operands = (x, weight) if bias is None else (x, weight, bias)
        return self.make("linear", (), operands, (*x.shape[:-1], out), x.batched)

    def matmul(self, a: Value, b: Value) -> Value:
        if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] != b.shape[-2]:
            raise ShapeError(f"a matrix product of {a.shape} and {b.shape}")
        lead = _broadcast("matmul", a.shape[:-2], b.shape[:-2])
        return self.make("matmul", (), (a, b), (*lead, a.shape[-2], b.shape[-1]), a.batched or b.batched)

    def softmax(self, x: Value, axis: int) -> Value:
        return self.make("softmax", (axis,), (x,), x.shape, x.batched)

    def batch_norm(
        self,
        x: Value,
        mean: Value,
        variance: Value,
        weight: Value | None,
        bias: Value | None,
        eps: float | Fraction,
        momentum: float | Fraction,
    ) -> Value:
        if not x.batched or not x.shape or mean.shape != x.shape[:1]:
            raise ShapeError(f"batch_norm of {mean.shape} channels on {x.shape}")
        affine = (weight, bias) if weight is not None and bias is not None else ()
        attributes = (self.real(eps), self.real(momentum))
        return self.make("batch_norm", attributes, (x, mean, variance, *affine), x.shape, True)

    def layer_norm(
        self, x: Value, axes: tuple[int, ...], weight: Value | None, bias: Value | None, eps: float | Fraction
    ) -> Value:
        affine = (weight, bias) if weight is not None and bias is not None else ()
        if x.op == "permute":
            order = x.attributes[0]
            inside = tuple([order[axis] for axis in axes])
            if inside == tuple(sorted(inside)):
                return self.permute(self.layer_norm(x.operands[0], inside, weight, bias, eps), order)
        if weight is not None and weight.shape != tuple(x.shape[axis] for axis in axes):
            raise ShapeError(f"layer_norm of {weight.shape} over axes {axes} of {x.shape}")
        return self.make("layer_norm", (axes, self.real(eps)), (x, *affine), x.shape, x.batched)

    def group_norm(
        self, x: Value, groups: int, weight: Value | None, bias: Value | None, eps: float | Fraction
    ) -> Value:
        if not x.shape or x.shape[0] % groups:
            raise ShapeError(f"group_norm of {groups} groups on {x.shape}")
        affine = (weight, bias) if weight is not None and bias is not None else ()
        return self.make("group_norm", (groups, self.real(eps)), (x, *affine), x.shape, x.batched)


def _image(op: str, x: Value) -> tuple[int, int, int]:
    if len(x.shape) != 3 or not x.batched:
        raise ShapeError(f"{op} of a tensor of shape {x.shape}, which is no image")
    channels, height, width = x.shape
    return channels, height, width


def _vector(what: str, value: Value | None, size: int) -> None:
    if value is not None and value.shape != (size,):
        raise ShapeError(f"{what} has shape {value.shape}, expected {size} numbers")


def _pooled(x: Value, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair, ceil: bool) -> tuple[Shape, bool]:
    channels, *sizes = _image("a pool", x)
    axes = list(zip(sizes, kernel, stride, pads, dilation, strict=True))
    shape = [window(*axis) for axis in axes]
    if ceil:
        rounded = [window(*axis, ceil=True) for axis in axes]
        return (channels, *rounded), rounded != shape
    return (channels, *shape), False


def _broadcast(op: str, a: Shape, b: Shape) -> Shape:
    if a == b:
        return a
    rank = max(len(a), len(b))
    first, second = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if any(m != n and 1 not in (m, n) for m, n in zip(first, second, strict=True)):
        raise ShapeError(f"{op} of shapes {a} and {b}")
    return tuple(map(max, first, second))
