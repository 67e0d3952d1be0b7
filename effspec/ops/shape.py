"""Rows of the operators that move elements about: joining, cutting, reordering, padding and resizing."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import prod

from effspec.ir.types import TensorType
from effspec.ops.base import (
    Argument,
    Attributes,
    Op,
    OpError,
    Types,
    image,
    integer,
    integers,
    pair,
    resolve_axes,
    resolve_axis,
    show,
)


def _with_size(t: TensorType, axis: int, size: int) -> TensorType:
    return TensorType((*t.shape[:axis], size, *t.shape[axis + 1 :]), t.batched)


def _resolve_concat(arguments: Mapping[str, object], types: Types) -> Attributes:
    return {"axis": resolve_axis(arguments["axis"], types, "concat")}


def _concat_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    axis, first = integer(attributes["axis"]), types[0]
    for t in types[1:]:
        if t.batched != first.batched:
            raise OpError(
                "concat cannot join a tensor that is computed from parameters alone to one that comes with a batch",
                help="add the parameter to, or multiply it with, something that comes from the input first",
            )
        if len(t.shape) != len(first.shape) or _with_size(t, axis, 1) != _with_size(first, axis, 1):
            raise OpError(
                f"concat along axis {axis} needs all other axes equal, found {show(first.shape)} and {show(t.shape)}",
                help="resize or pool one of them, or reshape them to the same axes",
            )
    return (_with_size(first, axis, sum(t.shape[axis] for t in types)),)


def _resolve_split(arguments: Mapping[str, object], types: Types) -> Attributes:
    axis = resolve_axis(arguments["axis"], types, "split")
    size, parts = types[0].shape[axis], arguments["parts"]
    if isinstance(parts, int):
        if size % parts:
            raise OpError(
                f"split cannot cut axis {axis} of size {size} into {parts} equal parts",
                "parts",
                f"{parts} does not divide {size}; a list of sizes cuts it unevenly",
            )
        sizes = (size // parts,) * parts
    else:
        assert isinstance(parts, tuple)
        sizes = parts
        if sum(sizes) != size:
            raise OpError(
                f"the parts {list(sizes)} of split sum to {sum(sizes)}, axis {axis} has {size}",
                "parts",
                "the sizes have to cover the whole axis; slice() takes a piece of it",
            )
    return {"sizes": sizes, "axis": axis}


def _split_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    axis = integer(attributes["axis"])
    return tuple(_with_size(types[0], axis, size) for size in integers(attributes["sizes"]))


def _resolve_slice(arguments: Mapping[str, object], types: Types) -> Attributes:
    axis = resolve_axis(arguments["axis"], types, "slice")
    size, ends = types[0].shape[axis], []
    for name in ("start", "stop"):
        end = arguments[name]
        assert isinstance(end, int)
        if not -size <= end <= size:
            raise OpError(
                f"slice has its {name} at {end}, axis {axis} has {size} elements",
                name,
                f"count from 0 to {size}, or from the back from -{size}",
            )
        ends.append(end + size if end < 0 else end)
    start, stop = ends
    if start >= stop:
        raise OpError(
            f"slice from {start} to {stop} of axis {axis} with {size} elements is empty",
            "stop",
            "`stop` is the first element that is left out, so it lies after `start`",
        )
    return {"axis": axis, "start": start, "stop": stop}


def _slice_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    start, stop = integer(attributes["start"]), integer(attributes["stop"])
    return (_with_size(types[0], integer(attributes["axis"]), stop - start),)


def _reshape_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    shape = integers(attributes["shape"])
    if prod(shape) != types[0].numel:
        raise OpError(
            f"reshape keeps the number of elements: {show(types[0].shape)} has {types[0].numel}, "
            f"{show(shape)} has {prod(shape)}",
            "shape",
            "the batch axis is not counted; write the sizes with input.channels, input.height and input.width",
        )
    return (TensorType(shape, types[0].batched),)


def _resolve_permute(arguments: Mapping[str, object], types: Types) -> Attributes:
    order = arguments["order"]
    assert isinstance(order, tuple)
    if len(order) != len(types[0].shape):
        raise OpError(
            f"permute orders {len(order)} axes, the tensor {show(types[0].shape)} has {len(types[0].shape)}",
            "order",
            "name every axis once, without the batch: [1, 2, 0] puts the channels last",
        )
    if order:
        resolve_axes(order, types, "permute", "order")
    return {"order": tuple(resolve_axis(axis, types, "permute", "order") for axis in order)}


def _permute_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    shape = tuple(types[0].shape[axis] for axis in integers(attributes["order"]))
    return (TensorType(shape, types[0].batched),)


def _flatten_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return (TensorType((types[0].numel,), types[0].batched),)


def _resolve_zero_pad(arguments: Mapping[str, object], types: Types) -> Attributes:
    pad = arguments["pad"]
    if isinstance(pad, str):
        raise OpError(
            f'zero_pad has no kernel, so `pad = "{pad}"` means nothing here',
            "pad",
            "write numbers: `pad = 1`, `pad = [1, 2]` or `pad = [[top, bottom], [left, right]]`",
        )
    return {"pad": pad}  # type: ignore[dict-item]


def _zero_pad_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    channels, *sizes = image(types, "zero_pad")
    pads = attributes["pad"]
    assert isinstance(pads, tuple)
    height, width = (size + sum(integers(ends)) for size, ends in zip(sizes, pads, strict=True))
    return (TensorType((channels, height, width)),)


def _resolve_resize(arguments: Mapping[str, object], types: Types) -> Attributes:
    _, *sizes = image(types, "resize")
    size, scale = arguments["size"], arguments["scale"]
    if (size is None) == (scale is None):
        found = "neither" if size is None else "both"
        raise OpError(
            f"resize takes either `size` or `scale`, found {found}",
            None if size is None else "scale",
            "write resize(scale = 2) or resize(size = [height, width])",
        )
    if arguments["align_corners"] and arguments["mode"] == "nearest":
        raise OpError(
            '`align_corners` means nothing with `mode = "nearest"`',
            "align_corners",
            'leave it out, or write `mode = "bilinear"`',
        )
    if scale is not None:
        assert isinstance(scale, int | Fraction)
        scaled = [side * Fraction(scale) for side in sizes]
        if any(side < 1 or side.denominator != 1 for side in scaled):
            raise OpError(
                f"resize by {scale} makes {scaled[0]} x {scaled[1]} of {sizes[0]} x {sizes[1]}: not whole pixels",
                "scale",
                "give the size: resize(size = [height, width])",
            )
        size = tuple(int(side) for side in scaled)
    return {**arguments, "size": size, "scale": scale}  # type: ignore[dict-item]


def _resize_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return (TensorType((image(types, "resize")[0], *pair(attributes["size"]))),)


_AXIS = Argument("axis", "index", 0)

ROWS = (
    Op(
        "concat",
        "shape",
        "Tensors one after the other along `axis`.",
        _concat_type,
        (_AXIS,),
        arity="list",
        resolve=_resolve_concat,
    ),
    Op(
        "split",
        "shape",
        "A list of pieces along `axis`: `parts` equal ones, or a list of sizes.",
        _split_type,
        (Argument("parts", "parts"), _AXIS),
        resolve=_resolve_split,
        linear=True,
        attributes=("sizes", "axis"),
    ),
    Op(
        "slice",
        "shape",
        "Elements `start` to `stop` (left out) of an axis; negative numbers count from the back.",
        _slice_type,
        (Argument("axis", "index"), Argument("start", "index"), Argument("stop", "index")),
        resolve=_resolve_slice,
        linear=True,
    ),
    Op(
        "reshape",
        "shape",
        "The same elements in the same order with another shape.",
        _reshape_type,
        (Argument("shape", "sizes"),),
        linear=True,
    ),
    Op(
        "permute",
        "shape",
        "Axes in another order: axis i of the result is axis order[i].",
        _permute_type,
        (Argument("order", "axes"),),
        resolve=_resolve_permute,
        linear=True,
    ),
    Op(
        "flatten",
        "shape",
        "All axes but the batch as one.",
        _flatten_type,
        linear=True,
    ),
    Op(
        "zero_pad",
        "shape",
        "Zeros around an image.",
        _zero_pad_type,
        (Argument("pad", "pad"),),
        resolve=_resolve_zero_pad,
        linear=True,
    ),
    Op(
        "resize",
        "shape",
        "An image of another size; pixel centres are half a pixel in, unless `align_corners`; nearest rounds down.",
        _resize_type,
        (
            Argument("size", "pair", None),
            Argument("scale", "real", None),
            Argument("mode", "text", "nearest", choices=("nearest", "bilinear")),
            Argument("align_corners", "bool", False),
        ),
        resolve=_resolve_resize,
        linear=True,
    ),
)
