"""Which axes follow from the height and width of the input, and which operators need to know them beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from effspec.ir.graph import Graph, Node, Value
from effspec.ops.base import integer, integers, pair

Free: TypeAlias = frozenset[int]
"""The axes of a tensor (without the batch) whose size is not known before the model runs."""


class Fixed(Exception):
    """The operator depends on the compiled size: why."""


def free_axes(graph: Graph) -> tuple[dict[Value, Free], list[tuple[Node, str]]]:
    """The free axes of every value when the images' height and width are free, and the nodes that stand against it."""
    free: dict[Value, Free] = {}
    problems = []
    for node in graph:
        if node.op == "input":
            results: tuple[Free, ...] = (frozenset({1, 2} if len(node.types[0].shape) == 3 else ()),)
        else:
            inputs = [free[value] for value in node.inputs]
            try:
                results = _RULES.get(node.op, _elementwise)(graph, node, inputs) if any(inputs) else ()
            except Fixed as reason:
                problems.append((node, str(reason)))
                results = ()
        for output in range(len(node.types)):
            free[Value(node.id, output)] = results[min(output, len(results) - 1)] if results else frozenset()
    return free, problems


Rule: TypeAlias = Callable[[Graph, Node, list[Free]], tuple[Free, ...]]


def _elementwise(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    rank = len(node.types[0].shape)
    result: set[int] = set()
    for value, axes in zip(node.inputs, inputs, strict=True):
        result |= {axis + rank - len(graph.type(value).shape) for axis in axes}
    for value, axes in zip(node.inputs, inputs, strict=True):
        shape = graph.type(value).shape
        start = rank - len(shape)
        for axis, size in enumerate(shape):
            if axis + start in result and axis not in axes and size != 1:
                raise Fixed(f"{node.op} meets a tensor whose axis {axis} is always {size}")
    return (frozenset(result),)


def _window(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    if 0 in inputs[0]:
        raise Fixed(f"{node.op} needs to know its channels")
    if node.attributes.get("pad_mode") == "same" and pair(node.attributes["stride"]) != (1, 1):
        raise Fixed('the pads of `pad = "same"` depend on the size where the stride is above 1')
    if node.attributes.get("ceil"):
        raise Fixed("rounding up depends on the size")
    return (frozenset(inputs[0]),)


def _pooled(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    return (inputs[0] - {1, 2},)


def _adaptive(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    if pair(node.attributes["output_size"]) != (1, 1):
        raise Fixed("the windows of adaptive_avg_pool depend on the size")
    return (inputs[0] - {1, 2},)


def _reduction(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    return (inputs[0] - set(integers(node.attributes["axes"])),)


def _concat(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    axis = integer(node.attributes["axis"])
    for axes in inputs:
        if axes - {axis} != inputs[0] - {axis}:
            raise Fixed("concat joins a tensor of free size to one of a fixed size")
    return (frozenset().union(*inputs),)


def _along(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    if integer(node.attributes["axis"]) in inputs[0]:
        raise Fixed(f"{node.op} cuts an axis of free size")
    return (inputs[0],)


def _permute(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    return (frozenset(new for new, old in enumerate(integers(node.attributes["order"])) if old in inputs[0]),)


def _linear(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    if len(node.types[0].shape) - 1 in inputs[0]:
        raise Fixed("linear needs to know the last axis")
    return (inputs[0],)


def _layer_norm(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    if inputs[0] & set(integers(node.attributes["axes"])):
        raise Fixed("layer_norm needs to know the axes that it normalises")
    return (inputs[0],)


def _channels(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    if 0 in inputs[0]:
        raise Fixed(f"{node.op} needs to know its channels")
    return (inputs[0],)


def _group_norm(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    if integer(node.attributes["groups"]) != node.types[0].shape[0] or not node.parameters:
        raise Fixed("group_norm is written with a reshape")
    return _channels(graph, node, inputs)


def _resize(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    if node.attributes["scale"] is None:
        raise Fixed("resize to a stated size fixes it: write `scale`")
    return (inputs[0],)


def _fixed(graph: Graph, node: Node, inputs: list[Free]) -> tuple[Free, ...]:
    raise Fixed(f"{node.op} needs to know every size")


_RULES: dict[str, Rule] = {
    "conv": _window,
    "conv_transpose": _window,
    "max_pool": _window,
    "avg_pool": _window,
    "global_avg_pool": _pooled,
    "global_max_pool": _pooled,
    "adaptive_avg_pool": _adaptive,
    "reduce_mean": _reduction,
    "reduce_sum": _reduction,
    "reduce_max": _reduction,
    "concat": _concat,
    "split": _along,
    "slice": _along,
    "permute": _permute,
    "linear": _linear,
    "layer_norm": _layer_norm,
    "batch_norm": _channels,
    "group_norm": _group_norm,
    "resize": _resize,
    "reshape": _fixed,
    "flatten": _fixed,
    "matmul": _fixed,
    "dynamic_conv": _fixed,
}
