"""The graph: operators in a deterministic order, also as a networkx `MultiDiGraph`.  Only this file imports networkx.

Nodes are numbered in the order in which they were added, which is a topological order: an operator is added after its
inputs.  The networkx graph is public (`Graph.nx`): each networkx node is the node's number, with the `Node` as its
attribute `node`; each edge carries `output` (which result of the source) and its key is the position among the inputs.
It is made when it is asked for, because importing networkx takes longer than compiling a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from effspec.diagnostics import Span
from effspec.ir.types import TensorType

if TYPE_CHECKING:
    import networkx

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

    @cached_property
    def _hash(self) -> int:
        return hash((self.kind, frozenset(self.args.items())))

    def __hash__(self) -> int:
        return self._hash


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
    """A graph of operators, with named inputs and outputs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.outputs: list[Output] = []
        self._nodes: dict[int, Node] = {}
        self._users: dict[int, list[Node]] | None = None
        self._nx: networkx.MultiDiGraph[int] | None = None

    @property
    def nx(self) -> networkx.MultiDiGraph[int]:
        """The graph for networkx's algorithms.  It is not read back: `add` and `rewrite` change a graph."""
        if self._nx is None:
            import networkx

            self._nx = networkx.MultiDiGraph(name=self.name)
            for node in self:
                self._nx.add_node(node.id, node=node)
                for position, value in enumerate(node.inputs):
                    self._nx.add_edge(value.node, node.id, key=position, output=value.output)
        return self._nx

    def __iter__(self) -> Iterator[Node]:
        """The nodes, each after its inputs."""
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, number: int) -> Node:
        return self._nodes[number]

    def get(self, number: int) -> Node | None:
        return self._nodes.get(number)

    def add(self, node: Node) -> Node:
        """Add a node whose inputs are in the graph already."""
        for value in node.inputs:
            if value.node not in self._nodes:
                raise KeyError(f"input {value} of {node.path} is not in the graph")
        self._nodes[node.id] = node
        self._users = self._nx = None
        return node

    def copy(self) -> Graph:
        """A graph of the same nodes that grows by itself."""
        graph = Graph(self.name)
        graph.outputs = list(self.outputs)
        graph._nodes = dict(self._nodes)
        return graph

    def next_id(self) -> int:
        """A number greater than that of every node."""
        return max(self._nodes, default=-1) + 1

    def type(self, value: Value) -> TensorType:
        return self[value.node].types[value.output]

    def users(self, number: int) -> list[Node]:
        """The nodes that read a node's results, each once, in order."""
        if self._users is None:
            self._users = {node.id: [] for node in self}
            for node in self:
                for source in {value.node for value in node.inputs}:
                    self._users[source].append(node)
        return list(self._users[number])

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
                inputs = tuple(map(follow, new.inputs))
                graph.add(new if inputs == new.inputs else replace(new, inputs=inputs))
        graph.outputs = [replace(output, value=walk(output.value)) for output in self.outputs]
        return graph

    def live(self, *, training: bool = True) -> Graph:
        """Only what inputs and outputs need: itself if that is all; without `training` less the training outputs."""
        outputs = [output for output in self.outputs if training or not output.training]
        needed = {node.id for node in self.inputs}
        stack = [leaf.node for output in outputs for leaf in leaves(output.value)]
        while stack:
            number = stack.pop()
            if number not in needed:
                needed.add(number)
                stack.extend([value.node for value in self._nodes[number].inputs])
        if len(needed) == len(self) and len(outputs) == len(self.outputs):
            return self
        graph = Graph(self.name)
        graph.outputs = outputs
        for node in self:
            if node.id in needed:
                graph.add(node)
        return graph
