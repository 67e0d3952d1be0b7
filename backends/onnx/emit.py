"""Writes a plan as ONNX: the bytes of the file and, where protobuf's limit asks for it, of a file of weights beside it.

The structure is built with the `onnx` package.  The weights, which are nearly all of the bytes, are framed by hand
between its parts and made one tensor at a time, so that one tensor is the most that is ever held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy
from effspec.backends.onnx.numbers import evaluate, pieces
from effspec.backends.onnx.parts import Attribute, Call, Constant, Plan, Port, Weight
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    StringStringEntryProto,
    TensorProto,
    ValueInfoProto,
)

from effspec.backend import File, Weights

LIMIT = 2**31 - 1
"""The most bytes that protobuf reads as one message."""
ALIGNMENT = 4096
"""External tensors start at a multiple of a page, so that a runtime can map them into memory."""
SMALL = 1024
"""Tensors of fewer bytes stay in the model's file: shapes and scalars are looked at before the weights are loaded."""

# The numbers of the fields that are framed by hand (onnx.proto).
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9
_TYPES: Mapping[str, tuple[int, numpy.dtype[Any]]] = {
    "float32": (TensorProto.FLOAT, numpy.dtype("<f4")),
    "float64": (TensorProto.DOUBLE, numpy.dtype("<f8")),
    "int64": (TensorProto.INT64, numpy.dtype("<i8")),
}

Initializer = Weight | Constant


def files(plan: Plan, weights: Weights, filename: str, limit: int = LIMIT) -> tuple[File, ...]:
    """The model's file, and `<filename>.data` if the model would be larger than `limit` bytes."""
    head, before, after, tail = _structure(plan)
    framed = [(_frame(plan, item, _length(plan, item)), item) for item in plan.initializers]
    graph = len(before) + len(after) + sum(len(frame) + _length(plan, item) for frame, item in framed)
    if (size := len(head) + graph + len(tail)) < limit - 16:
        start = head + _tag(_MODEL_GRAPH) + _varint(graph) + before
        return (File(filename, partial(_chunks, plan, weights, start, framed, after + tail), size),)
    beside = filename + ".data"
    offset = 0
    inside: list[tuple[bytes, Initializer | None]] = []
    outside: list[tuple[bytes, Initializer | None]] = []
    for item in plan.initializers:
        length = _length(plan, item)
        if isinstance(item, Constant) or length < SMALL:
            inside.append((_frame(plan, item, length), item))
            continue
        gap = -offset % ALIGNMENT
        inside.append((_external(plan, item, beside, offset + gap, length), None))
        outside.append((bytes(gap), item))
        offset += gap + length
    graph = len(before) + len(after) + sum(len(frame) + (_length(plan, item) if item else 0) for frame, item in inside)
    start = head + _tag(_MODEL_GRAPH) + _varint(graph) + before
    return (
        File(filename, partial(_chunks, plan, weights, start, inside, after + tail)),
        File(beside, partial(_chunks, plan, weights, b"", outside, b""), offset),
    )


def _chunks(
    plan: Plan, weights: Weights, start: bytes, parts: Sequence[tuple[bytes, Initializer | None]], end: bytes
) -> Iterator[bytes | memoryview]:
    pending = bytearray(start)
    for frame, item in parts:
        pending += frame
        for data in _data(plan, item, weights) if item is not None else ():
            # Small pieces go out together.
            if len(data) < ALIGNMENT:
                pending += data
            else:
                yield bytes(pending)
                yield data
                pending.clear()
    pending += end
    if pending:
        yield bytes(pending)


def _type(plan: Plan, item: Initializer) -> tuple[int, numpy.dtype[Any]]:
    if isinstance(item, Constant) and item.type != "model":
        return _TYPES[item.type]
    return _TYPES["float64" if plan.double else "float32"]


def _length(plan: Plan, item: Initializer) -> int:
    return prod(item.shape) * _type(plan, item)[1].itemsize


def _data(plan: Plan, item: Initializer, weights: Weights) -> Iterator[memoryview]:
    """The numbers of an initializer as ONNX wants them, little endian and in C order, in parts."""
    dtype = _type(plan, item)[1]
    real = numpy.float64 if plan.double else numpy.float32
    arrays: Iterable[numpy.ndarray[Any, Any]]
    if isinstance(item, Constant):
        values = item.values if dtype.kind == "i" else tuple(float(value) for value in item.values)
        arrays = (numpy.broadcast_to(numpy.array(values, dtype), (prod(item.shape),)),)
    elif item.transposed:
        arrays = (evaluate(item.recipe, weights, real).T,)
    else:
        arrays = pieces(item.recipe, weights, real)
    size = 0
    for array in arrays:
        size += array.size
        yield numpy.ascontiguousarray(array, dtype).reshape(-1).data.cast("B")
    if size != prod(item.shape):
        raise ValueError(f"{item.name} has {size} numbers, expected {item.shape}")


def _frame(plan: Plan, item: Initializer, length: int) -> bytes:
    """What stands before a tensor's numbers in the graph."""
    proto = TensorProto(dims=item.shape, data_type=_type(plan, item)[0], name=item.name)
    header: bytes = proto.SerializeToString(deterministic=True) + _tag(_TENSOR_RAW_DATA) + _varint(length)
    return _tag(_GRAPH_INITIALIZER) + _varint(len(header) + length) + header


def _external(plan: Plan, item: Initializer, location: str, offset: int, length: int) -> bytes:
    """A tensor whose numbers are in another file of the same folder."""
    proto = TensorProto(dims=item.shape, data_type=_type(plan, item)[0], name=item.name)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        proto.external_data.append(StringStringEntryProto(key=key, value=value))
    proto.data_location = TensorProto.EXTERNAL
    header: bytes = proto.SerializeToString(deterministic=True)
    return _tag(_GRAPH_INITIALIZER) + _varint(len(header)) + header


def _structure(plan: Plan) -> tuple[bytes, bytes, bytes, bytes]:
    """The model's fields before its graph, the graph's before and after its initializers, the model's after."""
    head = ModelProto(ir_version=plan.ir_version, producer_name="effspec")
    before, after = GraphProto(name=plan.name), GraphProto()
    for call in plan.calls:
        _node(before.node.add(), call)
    kind = _TYPES["float64" if plan.double else "float32"][0]
    for ports, target in ((plan.inputs, after.input), (plan.outputs, after.output), (plan.values, after.value_info)):
        for port in ports:
            _port(target.add(), port, kind)
    tail = ModelProto(
        opset_import=[OperatorSetIdProto(domain="", version=plan.opset)],
        metadata_props=[StringStringEntryProto(key=key, value=value) for key, value in plan.metadata.items()],
    )
    parts: tuple[ModelProto | GraphProto, ...] = (head, before, after, tail)
    first, second, third, fourth = (part.SerializeToString(deterministic=True) for part in parts)
    return first, second, third, fourth


def _node(node: NodeProto, call: Call) -> None:
    node.op_type, node.name = call.op, call.name
    node.input.extend(call.inputs)
    node.output.extend(call.outputs)
    for name in sorted(call.attributes):
        _attribute(node.attribute.add(), name, call.attributes[name])


def _attribute(proto: AttributeProto, name: str, value: Attribute) -> None:
    proto.name = name
    match value:
        case int():
            proto.type, proto.i = AttributeProto.INT, value
        case float():
            proto.type, proto.f = AttributeProto.FLOAT, value
        case str():
            proto.type, proto.s = AttributeProto.STRING, value.encode("ascii")
        case tuple():
            proto.type = AttributeProto.INTS
            proto.ints.extend(value)


def _port(info: ValueInfoProto, port: Port, kind: int) -> None:
    info.name = port.name
    info.type.tensor_type.elem_type = kind
    shape = info.type.tensor_type.shape
    shape.SetInParent()
    for size in port.shape:
        dimension = shape.dim.add()
        if isinstance(size, int):
            dimension.dim_value = size
        elif size is not None:
            dimension.dim_param = size


def _tag(field: int) -> bytes:
    """The start of a length-delimited field."""
    return _varint(field << 3 | 2)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
