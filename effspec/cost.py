"""What a graph costs, from the operator rows alone: parameters, multiply-adds, activations, depth and memory.

All numbers are of one image at inference, except `training_params`; what exists in training only is not counted.

- `macs`: multiply-adds of convolutions, linear layers and matrix products; everything else is 0.
- `acts`: elements of the results of convolutions, linear layers and windowed pools (pycls's convention).
- `peak`: bytes of the tensors that are alive at once, in float32.  Nodes run in the graph's order; a result is
  allocated when its node runs and freed after its last reader; inputs are there from the start, outputs stay to the
  end.  Nothing is computed in place, operators that vanish at inference take nothing, and parameters are counted apart
  (`weights`).
- `depth`: convolutions and linear layers on the longest path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod

from effspec.ir.graph import Graph, Node, Value, leaves
from effspec.ir.types import TensorType
from effspec.ops import OPS
from effspec.ops.base import no_macs

BYTES = 4
"""Of one float32 element."""


@dataclass(frozen=True)
class NodeCost:
    """One operator: `params` and `buffers` are elements that no earlier node holds, `live` the bytes while it runs."""

    node: Node
    params: int
    buffers: int
    macs: int
    acts: int
    live: int


@dataclass(frozen=True)
class GroupCost:
    """Operators taken together: sums, the greatest `live` of them as `peak`, and what the last of them gives."""

    name: str
    types: tuple[TensorType, ...]
    nodes: int
    params: int
    buffers: int
    macs: int
    acts: int
    peak: int


class Cost:
    """The cost of a graph; see the module for what each number means."""

    def __init__(self, graph: Graph) -> None:
        self.training_params = sum(prod(p.shape) for p in graph.parameters(training=True))
        self._graph = graph.live(training=False)
        live = _live_bytes(self._graph)
        seen: set[str] = set()
        nodes = []
        for node in self._graph:
            held = [0, 0]
            for parameter in node.parameters.values():
                if parameter.path not in seen:
                    seen.add(parameter.path)
                    held[parameter.buffer] += prod(parameter.shape)
            types = [self._graph.type(value) for value in node.inputs]
            macs = OPS[node.op].macs(types, node.attributes, node.types)
            acts = sum(t.numel for t in node.types) if _counts_acts(node) else 0
            nodes.append(NodeCost(node, held[0], held[1], macs, acts, live[node.id]))
        self.nodes: tuple[NodeCost, ...] = tuple(nodes)
        total = _total("", self.nodes)
        self.params, self.buffers, self.macs, self.acts = total.params, total.buffers, total.macs, total.acts
        self.peak = total.peak

    def __repr__(self) -> str:
        return f"<Cost: {self.params:,} parameters, {self.macs:,} multiply-adds, {self.acts:,} activations>"

    @property
    def weights(self) -> int:
        """Bytes of the parameters and buffers in float32."""
        return BYTES * (self.params + self.buffers)

    @cached_property
    def depth(self) -> int:
        """Convolutions and linear layers on the longest path."""
        deep: dict[int, int] = {}
        for node in self._graph:
            before = max((deep[value.node] for value in node.inputs), default=0)
            deep[node.id] = before + is_weighted(node)
        return max(deep.values(), default=0)

    def count(self, op: str) -> int:
        """How many nodes of an operator there are at inference."""
        return sum(row.node.op == op for row in self.nodes)

    def groups(self, key: Callable[[Node], str]) -> list[GroupCost]:
        """The cost by the name that `key` gives each node, in the order in which the names first occur."""
        groups: dict[str, list[NodeCost]] = {}
        for row in self.nodes:
            groups.setdefault(key(row.node), []).append(row)
        return [_total(name, rows) for name, rows in groups.items()]

    def by_prefix(self, parts: int = 1) -> list[GroupCost]:
        """The cost by the first `parts` components of the path: 1 for `stage3`, 2 for `stage3.0`."""
        return self.groups(lambda node: ".".join(node.path.split(".")[:parts]))


def is_weighted(node: Node) -> bool:
    """Whether the node multiplies by a weight: a convolution or linear layer, as layers are counted in papers."""
    row = OPS[node.op]
    return row.group == "weights" and row.macs is not no_macs


def _counts_acts(node: Node) -> bool:
    # Among the operators without weights, the windowed pools alone have a kernel.
    return is_weighted(node) or "kernel_size" in node.attributes


def _total(name: str, rows: Iterable[NodeCost]) -> GroupCost:
    rows = tuple(rows)
    return GroupCost(
        name,
        rows[-1].node.types if rows else (),
        len(rows),
        sum(row.params for row in rows),
        sum(row.buffers for row in rows),
        sum(row.macs for row in rows),
        sum(row.acts for row in rows),
        max((row.live for row in rows), default=0),
    )


def _live_bytes(graph: Graph) -> dict[int, int]:
    """The bytes that are allocated while each node runs, its results included."""
    home: dict[Value, Value] = {}  # where the elements of a result are: its own place, or that of an operator's input
    last: dict[Value, int] = {}  # the last node that needs a place
    end = graph.next_id()
    for node in graph:
        for number, _ in enumerate(node.types):
            value = Value(node.id, number)
            home[value] = home[node.inputs[0]] if OPS[node.op].inference == "identity" else value
            last.setdefault(home[value], node.id)
        for source in node.inputs:
            last[home[source]] = node.id
    for output in graph.outputs:
        for leaf in leaves(output.value):
            last[home[leaf]] = end
    frees: dict[int, int] = {}
    sizes = {value: _bytes(graph, value) for value in last}
    for value, number in last.items():
        frees[number] = frees.get(number, 0) + sizes[value]
    live: dict[int, int] = {}
    now = sum(sizes[Value(node.id)] for node in graph.inputs)
    for node in graph:
        if node.op != "input":
            now += sum(sizes.get(Value(node.id, number), 0) for number, _ in enumerate(node.types))
        live[node.id] = now
        now -= frees.get(node.id, 0)
    return live


def _bytes(graph: Graph, value: Value) -> int:
    node = graph[value.node]
    return 0 if node.op == "parameter" else BYTES * node.types[value.output].numel
