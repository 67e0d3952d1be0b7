"""What a row of the operator table is made of.

A row states everything that effspec knows of an operator: its arguments in the language, how they become attributes of
the IR, the shape of the result, its tensors and its cost.  Shapes never count the batch axis; axis 0 is channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from effspec.ir.graph import Attribute, Initializer
from effspec.ir.types import TensorType

Kind: TypeAlias = Literal[
    "size",  # an integer >= 1
    "count",  # an integer >= 0
    "index",  # any integer
    "pair",  # a size or [h, w]; the attribute is always (h, w)
    "count_pair",  # a count or [h, w]; the attribute is always (h, w)
    "pad",  # a number, [h, w], [[top, bottom], [left, right]], "half" or "same"
    "bool",
    "real",
    "sizes",  # a list of sizes
    "axes",  # a list of axes (distinct integers)
    "parts",  # a size, or a list of sizes
    "text",  # one of `choices`
    "init",  # an initializer
    "layer",  # a layer: elaboration takes it, the IR never sees it
]

Attributes: TypeAlias = Mapping[str, Attribute]
Types: TypeAlias = Sequence[TensorType]
REQUIRED = object()
REAL_LIMIT: int = (2**24 - 1) * 2**104
"""The largest number of float32: every real becomes one in the end."""


class OpError(Exception):
    """An operator cannot be applied: what is wrong, which argument is to blame (if one is), and what would help."""

    def __init__(self, message: str, argument: str | None = None, help: str | None = None, code: str = "E0410") -> None:
        super().__init__(message)
        self.message, self.argument, self.help, self.code = message, argument, help, code


@dataclass(frozen=True)
class Argument:
    """An argument as the language spells it.

    `default` is REQUIRED, a value, or a string "default.NAME" for one that is read from the model's contextual default.
    """

    name: str
    kind: Kind
    default: object = REQUIRED
    choices: tuple[str, ...] = ()

    @property
    def contextual(self) -> str | None:
        """The NAME of "default.NAME"."""
        default = self.default
        return default[8:] if isinstance(default, str) and default.startswith("default.") else None


@dataclass(frozen=True)
class Tensor:
    """A tensor that an operator owns, before it has a path."""

    shape: tuple[int, ...]
    init: Initializer
    buffer: bool = False


def no_tensors(types: Types, attributes: Attributes) -> Mapping[str, Tensor]:
    return {}


def no_macs(types: Types, attributes: Attributes, results: Types) -> int:
    return 0


def same_attributes(arguments: Mapping[str, object], types: Types) -> Attributes:
    """The arguments are the attributes."""
    return arguments  # type: ignore[return-value]


@dataclass(frozen=True)
class Op:
    """A row.

    `arity`: "one" tensor, "two" tensors, a "list" of tensors, or "none" (a source).  `resolve` turns checked arguments
    into attributes (pads become numbers there), `infer` gives the result types, `tensors` the weights and buffers,
    `macs` the multiply-adds of one image.  `infer` and `resolve` raise OpError.  `linear` says that the operator is a
    linear map of its input (for the linear fold); `inference` is "identity" for what vanishes at inference (dropout).
    `attributes` names what the IR holds where that differs from the arguments, `optional` what a node may hold beside
    them.
    """

    name: str
    group: str
    doc: str
    infer: Callable[[Types, Attributes], tuple[TensorType, ...]]
    arguments: tuple[Argument, ...] = ()
    arity: Literal["one", "two", "list", "none"] = "one"
    resolve: Callable[[Mapping[str, object], Types], Attributes] = same_attributes
    tensors: Callable[[Types, Attributes], Mapping[str, Tensor]] = no_tensors
    macs: Callable[[Types, Attributes, Types], int] = no_macs
    callable: bool = True
    linear: bool = False
    inference: Literal["compute", "identity"] = "compute"
    attributes: tuple[str, ...] | None = None
    optional: tuple[str, ...] = ()

    @cached_property
    def filled(self) -> tuple[Argument, ...]:
        """The arguments that have no value of their own: a call gives them, or the model's contextual default."""
        return tuple(a for a in self.arguments if a.default is REQUIRED or a.contextual is not None)

    @cached_property
    def weighted(self) -> bool:
        """Whether a layer may be given for its weight, which then is a second input of the node."""
        return any(argument.kind == "layer" for argument in self.arguments)

    @cached_property
    def attribute_names(self) -> tuple[str, ...]:
        """The attributes that every node of this operator has."""
        return tuple(argument.name for argument in self.arguments) if self.attributes is None else self.attributes


def same_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    """The result is like the (first) input."""
    return (types[0],)


def image(types: Types, op: str) -> tuple[int, int, int]:
    """Channels, height and width of the only input, which has to be an image."""
    shape = types[0].shape
    if len(shape) != 3:
        raise OpError(
            f"{op} needs an image [channels, height, width], found shape {show(shape)}",
            help="put it before flatten(), or reshape the tensor to three axes",
        )
    if not types[0].batched:
        raise OpError(
            f"{op} needs an image of the batch, found a tensor {show(shape)} that is computed from parameters alone",
            help="add it to or multiply it with something that comes from the input first",
        )
    return shape[0], shape[1], shape[2]


def show(shape: Sequence[int]) -> str:
    """A shape as messages print it: (24, 56, 56)."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def pair(value: Attribute) -> tuple[int, int]:
    """A pair attribute as two integers."""
    assert isinstance(value, tuple) and len(value) == 2
    height, width = value
    assert isinstance(height, int) and isinstance(width, int)
    return height, width


def integer(value: Attribute) -> int:
    """An attribute as one integer."""
    assert isinstance(value, int)
    return value


def integers(value: Attribute) -> tuple[int, ...]:
    """An attribute as a tuple of integers."""
    assert isinstance(value, tuple)
    return tuple(integer(item) for item in value)


def resolve_axis(axis: object, types: Types, op: str, argument: str = "axis") -> int:
    """An axis of the first input counted from the front; a negative one counts from the back."""
    rank = len(types[0].shape)
    assert isinstance(axis, int)
    if not -rank <= axis < rank:
        raise OpError(
            f"{op} has no axis {axis} in a tensor of shape {show(types[0].shape)}",
            argument,
            f"axes are 0 to {rank - 1} here (the batch is not counted)" if rank else "a scalar has no axes",
        )
    return axis % rank


def resolve_axes(axes: object, types: Types, op: str, argument: str = "axes") -> tuple[int, ...]:
    """Distinct axes of the first input, ascending and counted from the front; at least one."""
    assert isinstance(axes, tuple)
    found = sorted(resolve_axis(axis, types, op, argument) for axis in axes)
    if not found:
        raise OpError(f"{op} needs at least one axis, found []", argument, "write for instance `axes = [1, 2]`")
    if len(set(found)) != len(found):
        raise OpError(
            f"{op} names an axis twice: {list(axes)} of shape {show(types[0].shape)}",
            argument,
            "a negative axis counts from the back: name each axis once",
        )
    return tuple(found)
