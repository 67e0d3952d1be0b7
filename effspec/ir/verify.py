"""Checks a graph against its invariants and infers every type anew; runs after elaboration and after every pass.

The invariants:
1. every input is a result of an earlier node, and node numbers ascend;
2. every node has a path of its own;
3. every operator is a row of the table, with exactly the attributes that the row names;
4. the result types and the tensors of a node are those that its row gives;
5. one tensor path has one shape everywhere, and is a buffer everywhere or nowhere;
6. what exists at inference reads nothing that exists in training only;
7. there are outputs, with distinct names, and their values exist.
"""

from __future__ import annotations

from typing import TypeAlias

from effspec.ir.graph import Graph, Node, Parameter, Value, leaves
from effspec.ir.types import TensorType
from effspec.ops import OPS
from effspec.ops.base import OpError
from effspec.ops.bind import infer


class InternalError(Exception):
    """A graph that breaks an invariant: the mistake is effspec's, not the spec's."""

    def __init__(self, after: str, where: str, message: str) -> None:
        super().__init__(f"after {after}, {where}: {message} (a mistake of effspec itself: please report it)")
        self.after, self.where, self.message = after, where, message


def verify(graph: Graph, after: str, before: Graph | None = None) -> None:
    """Raise InternalError, naming the pass `after` which this runs and the node, unless every invariant holds.

    `before` is the verified graph that the pass was given: a node of it that reads the same types is not inferred anew.
    """
    seen: dict[int, Node] = {}
    paths: dict[str, Node] = {}
    tensors: dict[str, Parameter] = {}
    rows: dict[object, _Row] = {}
    latest = -1
    for node in graph:
        try:
            if node.id <= latest:
                raise _Violation(f"its number does not ascend: it stands after {latest}")
            latest = node.id
            if (other := paths.setdefault(node.path, node)) is not node:
                raise _Violation(f"node {other.id} has the same path")
            for value in node.inputs:
                _check_value(value, seen, node.training)
            types = [seen[value.node].types[value.output] for value in node.inputs]
            if before is None or not _stands(node, types, before):
                _check_row(node, types, rows)
            for parameter in node.parameters.values():
                known = tensors.setdefault(parameter.path, parameter)
                if known is not parameter and (known.shape, known.buffer) != (parameter.shape, parameter.buffer):
                    raise _Violation(
                        f"the tensor {parameter.path} is {_kind(parameter)} here and {_kind(known)} elsewhere"
                    )
        except _Violation as violation:
            where = f"node {node.id} ({node.op} at {node.path})"
            raise InternalError(after, where, str(violation)) from violation.__cause__
        seen[node.id] = node
    names = [output.name for output in graph.outputs]
    if not names or len(set(names)) != len(names):
        raise InternalError(after, "outputs", f"there has to be one of each name, found {names}")
    for output in graph.outputs:
        try:
            for value in leaves(output.value):
                _check_value(value, seen, output.training)
        except _Violation as violation:
            raise InternalError(after, f"output {output.name}", str(violation)) from None


_Row: TypeAlias = tuple[tuple[TensorType, ...], dict[str, tuple[tuple[int, ...], bool]]]
"""The types of a node's results, and its tensors: their shapes, and which are buffers."""


class _Violation(Exception):
    """What is wrong, before it is known of which pass."""


def _check_value(value: Value, seen: dict[int, Node], training: bool) -> None:
    source = seen.get(value.node)
    if source is None:
        raise _Violation(f"it reads node {value.node}, which does not come before it")
    if not 0 <= value.output < len(source.types):
        raise _Violation(f"it reads result {value.output} of {source.path}, which has {len(source.types)}")
    if source.training and not training:
        raise _Violation(f"it exists at inference and reads {source.path}, which does not")


def _stands(node: Node, types: list[TensorType], before: Graph) -> bool:
    return before.get(node.id) is node and types == [before.type(value) for value in node.inputs]


def _check_row(node: Node, types: list[TensorType], rows: dict[object, _Row]) -> None:
    """What the row infers is in `rows` for nodes that share their attributes: the blocks of a stage."""
    mark = (node.op, id(node.attributes), *types)
    if mark not in rows:
        rows[mark] = _row(node, types)
    inferred, wanted = rows[mark]
    if inferred != node.types:
        raise _Violation(f"its types are {_list(node.types)}, the row infers {_list(inferred)}")
    found = {name: (parameter.shape, parameter.buffer) for name, parameter in node.parameters.items()}
    if wanted != found:
        raise _Violation(f"its tensors are {found}, the row wants {wanted}")


def _row(node: Node, types: list[TensorType]) -> _Row:
    row = OPS.get(node.op)
    if row is None:
        raise _Violation("the operator table has no such row")
    present, needed = node.attributes.keys(), frozenset(row.attribute_names)
    if present != needed and (wrong := (needed - present) | (present - needed - set(row.optional))):
        raise _Violation(f"the attributes {sorted(wrong)} are missing or unknown")
    if row.optional and present and not present >= set(row.optional):
        raise _Violation(f"of the attributes {list(row.optional)} only {sorted(present)} is there")
    try:
        inferred = infer(row, types, node.attributes)
    except OpError as error:
        raise _Violation(error.message) from error
    wanted = {name: (tensor.shape, tensor.buffer) for name, tensor in row.tensors(types, node.attributes).items()}
    return inferred, wanted


def _list(types: tuple[object, ...]) -> str:
    return ", ".join(map(str, types))


def _kind(parameter: Parameter) -> str:
    return f"{'a buffer' if parameter.buffer else 'a weight'} of shape {parameter.shape}"
