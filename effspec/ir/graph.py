"""The graph: operators in a deterministic order over a networkx `MultiDiGraph`.  The only file that imports networkx.

Nodes are numbered in the order in which they were added, which is a topological order: an operator is added after its
inputs.  The networkx graph is public (`Graph.nx`): each networkx node is the node's number, with the `Node` as its
attribute `node`; each edge carries `output` (which result of the source) and its key is the position among the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import networkx

from effspec.diagnostics import Span
from effspec.ir.types import TensorType

Attribute: TypeAlias = "bool | int | Fraction | str | tuple[Attribute, ...] | Initializer | None"


class Value(NamedTuple):
    """One result of a node: a split has several, everything else has number 0 alone."""

    node: int
    output: int = 0


Tree: TypeAlias = Value | tuple["Tree", ...]
"""The values of a model output: one tensor or a (nested) list of them."""


@dataclass(frozen=True)
class Initializer:
    """How a parameter starts: `kind` is a row of `effspec.params.INITIALIZERS`, `args` its numbers."""

    kind: str
    args: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameter:
    """A tensor of a node: a trained weight, or a `buffer` such as a running mean."""

    path: str
    shape: tuple[int, ...]
    init: Initializer
    buffer: bool = False


@dataclass(frozen=True)
class Node:
    """One operator.

    `path` is the label path of the place in the spec, unique for each node (`stage2.0.dw.conv`); `parameters` maps the
    operator's own tensor names (`weight`) to tensors (`stage2.0.dw.conv.weight`), which nodes made by `each` share.
    `training` marks what exists in training only.  `span` is the spec line that made the node.
    """

    id: int
    op: str
    path: str
    inputs: tuple[Value, ...]
    attributes: Mapping[str, Attribute]
    types: tuple[TensorType, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    span: Span | None = None
    training: bool = False


@dataclass(frozen=True)
class Output:
    """A result of the model; `training` outputs exist in training only."""

    name: str
    value: Tree
    training: bool = False


def leaves(tree: Tree) -> tuple[Value, ...]:
    """The tensors of an output from left to right."""
    if isinstance(tree, Value):
        return (tree,)
    return tuple(leaf for branch in tree for leaf in leaves(branch))


class Graph:
    """Owner of a networkx graph of operators, with named inputs and outputs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nx: networkx.MultiDiGraph[int] = networkx.MultiDiGraph(name=name)
        self.outputs: list[Output] = []

    def __iter__(self) -> Iterator[Node]:
        """The nodes, each after its inputs."""
        for _, data in self.nx.nodes(data=True):
            yield data["node"]

    def __len__(self) -> int:
        return int(self.nx.number_of_nodes())

    def __getitem__(self, number: int) -> Node:
        node: Node = self.nx.nodes[number]["node"]
        return node

    def add(self, node: Node) -> Node:
        """Add a node whose inputs are in the graph already."""
        self.nx.add_node(node.id, node=node)
        for position, value in enumerate(node.inputs):
            if value.node not in self.nx:
                raise KeyError(f"input {value} of {node.path} is not in the graph")
            self.nx.add_edge(value.node, node.id, key=position, output=value.output)
        return node

    def next_id(self) -> int:
        """A number greater than that of every node."""
        return max(self.nx.nodes, default=-1) + 1

    def type(self, value: Value) -> TensorType:
        return self[value.node].types[value.output]

    def users(self, number: int) -> list[Node]:
        """The nodes that read a node's results, each once, in order."""
        return [self[user] for user in sorted(set(self.nx.successors(number)))]

    @property
    def inputs(self) -> list[Node]:
        return [node for node in self if node.op == "input"]

    def parameters(self, *, training: bool = False, buffers: bool = False) -> list[Parameter]:
        """Every tensor once, in the order of first use; with `training` also those that only training outputs need."""
        found: dict[str, Parameter] = {}
        for node in self:
            if training or not node.training:
                for parameter in node.parameters.values():
                    if buffers or not parameter.buffer:
                        found.setdefault(parameter.path, parameter)
        return list(found.values())

    def rewrite(self, change: Mapping[int, Node | Value | None]) -> Graph:
        """A copy in which nodes are replaced (`Node`), bypassed (`Value` of an earlier node) or dropped (`None`).

        Readers of a bypassed node read the value instead; what nothing reads any more stays (see `live`).
        """
        graph = Graph(self.name)
        instead: dict[Value, Value] = {}

        def follow(value: Value) -> Value:
            while value in instead:
                value = instead[value]
            return value

        def walk(tree: Tree) -> Tree:
            return follow(tree) if isinstance(tree, Value) else tuple(walk(branch) for branch in tree)

        for node in self:
            new = change.get(node.id, node)
            if isinstance(new, Value):
                instead[Value(node.id)] = new
            elif new is not None:
                graph.add(replace(new, inputs=tuple(follow(value) for value in new.inputs)))
        graph.outputs = [replace(output, value=walk(output.value)) for output in self.outputs]
        return graph

    def live(self, *, training: bool = True) -> Graph:
        """A copy with only what the inputs and outputs need; without `training` also less the training outputs."""
        graph = Graph(self.name)
        graph.outputs = [output for output in self.outputs if training or not output.training]
        needed = {node.id for node in self.inputs}
        stack = [leaf.node for output in graph.outputs for leaf in leaves(output.value)]
        while stack:
            number = stack.pop()
            if number not in needed:
                needed.add(number)
                stack.extend(value.node for value in self[number].inputs)
        for node in self:
            if node.id in needed:
                graph.add(node)
        return graph
