"""Puts operators into the graph: their paths, the tensors that they own, and what an operator refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from effspec.calls import Calls
from effspec.diagnostics import Label, Span
from effspec.frames import Frame
from effspec.ir.graph import Graph, Node, Parameter, Value
from effspec.ir.types import TensorType
from effspec.layers import Application, Instance, Layer, Tensor, key
from effspec.ops import OPS
from effspec.ops.base import Attributes, Op, OpError, show
from effspec.ops.base import Tensor as Owned
from effspec.ops.bind import bind as bind_operator
from effspec.ops.bind import infer
from effspec.origins import Head, labels
from effspec.params import distribution
from effspec.syntax import nodes

MAX_NODES = 200_000
_Operator: TypeAlias = tuple[Attributes, tuple[TensorType, ...], Mapping[str, Owned]]


class Builder(Calls):
    """`Calls` with the graph."""

    def __init__(self, model_name: str) -> None:
        super().__init__()
        self.graph = Graph(model_name)
        self.next_id = 0
        self.paths: dict[str, int] = {}
        self.owners: dict[str, tuple[Span | None, tuple[int, ...]]] = {}
        # How many `each` are around: what they apply again owns what it owned the first time.
        self.sharing = 0
        self.training = False
        # The blocks that are running, and how to say where the user's own file applied them.
        self.home = ""
        self.running: list[Instance] = []
        self.heads: dict[Instance, Head] = {}
        self._operators: dict[Any, _Operator] = {}

    def add_node(
        self,
        op: str,
        path: str,
        inputs: tuple[Value, ...],
        attributes: Mapping[str, Any],
        types: tuple[TensorType, ...],
        span: Span | None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Node:
        if self.next_id >= MAX_NODES:
            self.fail("E0504", f"too large: more than {MAX_NODES:,} operators", span, help="make the model smaller")
        count = self.paths.get(path, 0)
        self.paths[path] = count + 1
        unique = path
        while count and unique in self.paths:
            count += 1
            unique = f"{path}_{count}"
        if unique != path:
            self.paths[unique] = 1
        node = Node(self.next_id, op, unique, inputs, attributes, types, parameters or {}, span, self.training)
        self.next_id += 1
        return self.graph.add(node)

    def own_tensors(
        self, tensors: Mapping[str, Any], path: str, span: Span | None, iteration: tuple[int, ...]
    ) -> dict[str, Parameter]:
        """Give an operator's tensors their paths; two layers may not have the same, except under `each`."""
        out = {}
        for name, tensor in tensors.items():
            if not tensor.buffer:
                try:
                    distribution(tensor.init, tensor.shape)
                except OpError as error:
                    self.fail(error.code, error.message, span, help=error.help)
            full = f"{path}.{name}" if name else path
            if full in self.owners and not self.sharing:
                other = self.owners[full][0]
                self.fail(
                    "E0208",
                    f"two layers have the same path `{path}`",
                    span,
                    "the second one",
                    secondary=(Label(other, "the first one"),) if other is not None and other is not span else (),
                    help=f"label them: `{path.rsplit('.', 1)[-1]}2: ...`, or with an index in a loop: `name[i]: ...`",
                )
            self.owners[full] = (span, iteration)
            out[name or "value"] = Parameter(full, tensor.shape, tensor.init, tensor.buffer)
        return out

    def operator_error(
        self, error: OpError, layer: Layer | None, site: nodes.Node, tensors: list[Tensor], frame: Frame
    ) -> None:
        """Raise an operator's refusal, with the places of this body that made its inputs."""
        span = site.span
        if layer is not None and error.argument is not None and error.argument in layer.bound:
            node = layer.bound[error.argument].node
            span = node.span if node is not None and node.span.source is span.source else span
        secondary: list[Label] = []
        notes: list[str] = []
        # A value of the wrong kind has nothing to do with what the layer is applied to.
        tensors = tensors if error.code != "E0408" else []
        for tensor, side in zip(tensors[:2], ("left", "right") if len(tensors) == 2 else ("it",), strict=False):
            what = f"{side}: {show(tensor.type.shape)}"
            label, place = self._maker(tensor, frame)
            if not frame.is_model and _is_input(tensor, frame):
                notes.append(f"{what} is the input of the block")
            elif place is not None and place is not span and place.source is span.source:
                secondary.append(Label(place, f"{what} from{f' `{label}`' if label else ''} here"))
        help = error.help
        if layer is None and notes and len({len(tensor.type.shape) for tensor in tensors}) == 1:
            help = f"{help}; guard a shortcut: `if it.shape == input.shape`"
        self.fail(error.code, error.message, span, secondary=tuple(secondary), notes=tuple(notes), help=help)

    def origins(self, span: Span, shown: tuple[Label, ...]) -> tuple[Label, ...]:
        return tuple(labels(span, self.running, self.heads, self.home, [label.span for label in shown]))

    def _maker(self, tensor: Tensor, frame: Frame) -> tuple[str | None, Span | None]:
        """The line of this body that made a tensor: a block that it applied, or an operator of its own."""
        path = self.graph[tensor.value.node].path
        if path.startswith(frame.prefix):
            parts = path[len(frame.prefix) :].split(".")
            for length in range(len(parts), 0, -1):
                name = ".".join(parts[:length])
                if name in frame.labels:
                    return name, frame.labels[name]
        return tensor.label, tensor.span

    def arithmetic(
        self, op: str, tensors: list[Tensor], attributes: dict[str, Any], node: nodes.Expr, frame: Frame
    ) -> Tensor:
        row = OPS[op]
        types = [tensor.type for tensor in tensors]
        try:
            result = infer(row, types, attributes)
        except OpError as error:
            self.operator_error(error, None, node, tensors, frame)
            raise AssertionError from error
        path = f"{frame.prefix}{op}"
        made = self.add_node(op, path, tuple(t.value for t in tensors), attributes, result, node.span)
        tensor = Tensor(Value(made.id), result[0], node.span)
        if self.recording:
            frame.instance.applied[node, frame.iteration] = Application(
                Layer({}, op=row), tuple(tensors), tensor, (op, ()), False, None, (made.id,), attributes
            )
        return tensor

    def operator(self, op: Op, given: Mapping[str, Any], types: list[TensorType]) -> _Operator:
        """An operator's attributes, results and tensors: worked out once for all blocks that apply it alike."""
        mark = (op.name, *((name, key(value)) for name, value in given.items()), *types)
        if mark not in self._operators:
            attributes = bind_operator(op, given, types)
            self._operators[mark] = attributes, infer(op, types, attributes), op.tensors(types, attributes)
        return self._operators[mark]


def _is_input(tensor: Tensor, frame: Frame) -> bool:
    given = frame.input if isinstance(frame.input, tuple) else (frame.input,)
    return any(isinstance(one, Tensor) and one.value == tensor.value for one in given)
