"""Pass: drops what does nothing at inference, and the training outputs with all that only they need."""

from __future__ import annotations

from collections.abc import Callable

from effspec.ir.graph import Graph, Node, Value

# Operators whose result is their first input when the condition holds and the type does not change.
_NEUTRAL: dict[str, Callable[[Node], bool]] = {
    "identity": lambda node: True,
    "dropout": lambda node: True,
    "drop_path": lambda node: True,
    "add": lambda node: len(node.inputs) == 1 and node.attributes.get("scalar", 0) == 0,
    "sub": lambda node: _right_scalar(node) == 0,
    "mul": lambda node: len(node.inputs) == 1 and node.attributes.get("scalar", 1) == 1,
    "div": lambda node: _right_scalar(node) == 1,
    "pow": lambda node: _right_scalar(node) == 1,
    "concat": lambda node: len(node.inputs) == 1,
    "split": lambda node: len(node.types) == 1,
    "slice": lambda node: True,
    "reshape": lambda node: True,
    "flatten": lambda node: True,
    "permute": lambda node: node.attributes["order"] == tuple(range(len(node.types[0].shape))),
    # A pad that keeps the shape is zero: pads are never negative.
    "zero_pad": lambda node: True,
    "resize": lambda node: True,
    "adaptive_avg_pool": lambda node: True,
    "reduce_mean": lambda node: True,
    "reduce_sum": lambda node: True,
    "reduce_max": lambda node: True,
}
# An image resized or averaged to its own size, or a reduction over axes of size 1, copies each element.


def _right_scalar(node: Node) -> object:
    return None if node.attributes.get("scalar_left") else node.attributes.get("scalar")


def drop_identity(graph: Graph) -> Graph:
    change: dict[int, Node | Value | None] = {}
    for node in graph:
        neutral = _NEUTRAL.get(node.op)
        if neutral and len(node.inputs) == 1 and node.types == (graph.type(node.inputs[0]),) and neutral(node):
            change[node.id] = node.inputs[0]
    if change:
        graph = graph.rewrite(change)
    return graph.live(training=False) if any(output.training for output in graph.outputs) else graph
