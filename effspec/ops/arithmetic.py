"""Rows of the arithmetic between tensors, and between a tensor and a number.

A number in tensor arithmetic is no node: the operator then has one input and the attributes `scalar` and `scalar_left`
(true where the number is the left operand).  Shapes broadcast from the right, and the batch takes no part in it: every
operand with a batch has all the axes of the result, so that aligning from the right also aligns the batches.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from effspec.ir.types import TensorType
from effspec.ops.base import REAL_LIMIT, Attributes, Op, OpError, Types, show


def broadcast(types: Types, op: str) -> TensorType:
    """The type of tensors taken together element by element; an axis of 1 is repeated as often as the others need."""
    rank = max(len(t.shape) for t in types)
    shape = [1] * rank
    for t in types:
        if t.batched and len(t.shape) < rank:
            raise OpError(
                f"{op} cannot align shapes {_list(types)}: {show(t.shape)} has fewer axes and comes with a batch",
                help=f"give it {rank} axes, for instance by reshape([{', '.join(map(str, _padded(t, rank)))}])",
            )
        for axis, size in enumerate(t.shape, rank - len(t.shape)):
            if shape[axis] != size and 1 not in (shape[axis], size):
                raise OpError(
                    f"{op} needs equal sizes (or 1) on each axis, found {_list(types)}",
                    help=f"axis {axis} is {shape[axis]} on one side and {size} on the other",
                )
            shape[axis] = max(shape[axis], size)
    return TensorType(tuple(shape), any(t.batched for t in types))


def _list(types: Types) -> str:
    return " and ".join(show(t.shape) for t in types)


def _padded(t: TensorType, rank: int) -> tuple[int, ...]:
    # Channels stay channels: (C,) beside an image is (C, 1, 1).
    return (*t.shape, *[1] * (rank - len(t.shape)))


Infer = Callable[[Types, Attributes], tuple[TensorType, ...]]


def _elementwise(name: str) -> Infer:
    def infer(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
        if "scalar" not in attributes:
            return (broadcast(types, name),)
        scalar = attributes["scalar"]
        assert isinstance(scalar, int | Fraction)
        if not -REAL_LIMIT <= scalar <= REAL_LIMIT:
            raise OpError(f"the number beside the tensor in {name} is above 3.4e38, the largest of float32")
        if name == "div" and scalar == 0 and not attributes["scalar_left"]:
            raise OpError("a tensor is divided by 0", help="a small number in its place keeps the result finite")
        return (types[0],)

    return infer


def _matmul_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    left, right = types
    if len(left.shape) < 2 or len(right.shape) < 2:
        raise OpError(
            f"matmul needs two matrices, found {_list(types)}",
            help="reshape each to at least two axes; linear(out) is the product with a weight",
        )
    if left.shape[-1] != right.shape[-2]:
        raise OpError(
            f"matmul needs the last axis of the left to equal the last but one of the right, found {_list(types)}",
            help=f"{left.shape[-1]} is not {right.shape[-2]}: permute one of them",
        )
    # The leading axes broadcast; with one of them empty, the ranks still have to agree on where the batch is.
    ones = [TensorType((*t.shape[:-2], 1, 1), t.batched) for t in types]
    lead = broadcast(ones, "matmul")
    return (TensorType((*lead.shape[:-2], left.shape[-2], right.shape[-1]), lead.batched),)


def _matmul_macs(types: Types, attributes: Attributes, results: Types) -> int:
    return results[0].numel * types[0].shape[-1]


_SCALAR = ("scalar", "scalar_left")

ROWS = (
    Op(
        "add",
        "arithmetic",
        "Sum of two or more tensors, or of a tensor and a number.",
        _elementwise("add"),
        arity="list",
        linear=True,
        optional=_SCALAR,
    ),
    Op(
        "mul",
        "arithmetic",
        "Product, element by element, of two or more tensors, or of a tensor and a number.",
        _elementwise("mul"),
        arity="list",
        optional=_SCALAR,
    ),
    Op(
        "sub",
        "arithmetic",
        "Difference of two tensors, or of a tensor and a number.",
        _elementwise("sub"),
        arity="two",
        callable=False,
        linear=True,
        optional=_SCALAR,
    ),
    Op(
        "div",
        "arithmetic",
        "Quotient of two tensors, or of a tensor and a number.",
        _elementwise("div"),
        arity="two",
        callable=False,
        optional=_SCALAR,
    ),
    Op(
        "pow",
        "arithmetic",
        "The left operand to the power of the right, for two tensors or a tensor and a number.",
        _elementwise("pow"),
        arity="two",
        callable=False,
        optional=_SCALAR,
    ),
    Op(
        "matmul",
        "arithmetic",
        "Matrix product of the last two axes; the axes before them broadcast.",
        _matmul_type,
        arity="two",
        macs=_matmul_macs,
    ),
)
