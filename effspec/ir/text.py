"""The stable text form of a graph: one line a node, then its outputs and its tensors.

    %1 = conv(%0, @stem.conv.weight, out_channels=32, kernel_size=(3, 3), ...) : 32 x 112 x 112  # stem.conv

`%1` is a node (numbered by its place, so that a pass that drops nodes leaves no holes), `%4.1` the second result of a
split, `@` a tensor.  The type after the colon has no batch axis; a type in brackets is that of a tensor which has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from effspec.ir.graph import Attribute, Graph, Initializer, Tree, Value


def graph_text(graph: Graph) -> str:
    """The graph as text, ending in a newline."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    place = {node.id: number for number, node in enumerate(graph)}

    def name(value: Value) -> str:
        several = len(graph[value.node].types) > 1
        return f"%{place[value.node]}" + (f".{value.output}" if several else "")

    def tree(branch: Tree) -> str:
        return name(branch) if isinstance(branch, Value) else "[" + ", ".join(map(tree, branch)) + "]"

    yield f"graph {graph.name}"
    for node in graph:
        operands = [name(value) for value in node.inputs]
        operands += [f"@{parameter.path}" for parameter in node.parameters.values()]
        # How a tensor starts stands with the tensors at the end.
        operands += [
            f"{key}={attribute_text(value)}"
            for key, value in node.attributes.items()
            if not isinstance(value, Initializer)
        ]
        types = ", ".join(map(str, node.types))
        training = " (training only)" if node.training else ""
        yield f"%{place[node.id]} = {node.op}({', '.join(operands)}) : {types}  # {node.path}{training}"
    yield ""
    for output in graph.outputs:
        yield f"{'training ' if output.training else ''}output {output.name} = {tree(output.value)}"
    yield ""
    for parameter in graph.parameters(training=True, buffers=True):
        shape = " x ".join(map(str, parameter.shape)) or "scalar"
        kind = "buffer" if parameter.buffer else "weight"
        yield f"{kind} @{parameter.path} : {shape} = {attribute_text(parameter.init)}"


def attribute_text(value: Attribute) -> str:
    """A value as the text form writes it: numbers exact, tuples in parentheses."""
    if type(value) is int:
        return str(value)
    match value:
        case bool():
            return str(value).lower()
        case Fraction() if value.denominator != 1:
            return _decimal(value)
        case int() | Fraction():
            return str(int(value))
        case str():
            return f'"{value}"'
        case tuple():
            return "(" + ", ".join(map(attribute_text, value)) + ("," if len(value) == 1 else "") + ")"
        case Initializer():
            return f"{value.kind}({', '.join(f'{name}={attribute_text(arg)}' for name, arg in value.args.items())})"
        case None:
            return "none"


@lru_cache(1024)
def _decimal(value: Fraction) -> str:
    """A short exact decimal where there is one (1/1000 is 0.001), else the fraction in lowest terms."""
    for digits in range(1, 13):
        scaled = value * 10**digits
        if scaled.denominator == 1:
            sign, whole = "-" if scaled < 0 else "", str(abs(int(scaled))).zfill(digits + 1)
            return f"{sign}{whole[:-digits]}.{whole[-digits:]}"
    return str(value)
