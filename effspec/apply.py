"""Applies layers: operators become nodes of the graph, blocks run in frames of their own, and all of it is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from effspec.calls import Calls
from effspec.diagnostics import Label, Span
from effspec.frames import MAX_NESTING, MAX_STEPS, Frame, Scope
from effspec.ir.graph import Graph, Node, Parameter, Value
from effspec.ir.types import TensorType
from effspec.layers import Application, Bound, Instance, Iteration, Layer, Tensor, key
from effspec.ops import OPS
from effspec.ops.base import REQUIRED, Attributes, Op, OpError, show
from effspec.ops.base import Tensor as Owned
from effspec.ops.bind import bind as bind_operator
from effspec.ops.bind import infer
from effspec.origins import Head, labels
from effspec.params import ROOT_INIT, distribution
from effspec.resolve import Definition, Module
from effspec.syntax import nodes

MAX_NODES = 200_000
_Operator: TypeAlias = tuple[Attributes, tuple[TensorType, ...], Mapping[str, Owned]]
ROOT_DEFAULTS: dict[str, Any] = {"pad": "half", "init": ROOT_INIT}


class Applier(Calls):
    """`Calls` with the graph."""

    def __init__(self, model_name: str) -> None:
        super().__init__()
        self.graph = Graph(model_name)
        self.next_id = 0
        self.paths: dict[str, int] = {}
        self.owners: dict[str, tuple[Span | None, tuple[int, ...]]] = {}
        self.sharing = 0
        self.training = False
        self.stack: list[Layer] = []
        self.preparation: dict[str, dict[str, Any]] = {}
        self.home = ""
        self.running: list[Instance] = []
        self.heads: dict[Instance, Head] = {}
        self.counting = False
        self._counted: dict[Any, Any] = {}
        self._operators: dict[Any, _Operator] = {}
        self._uses: dict[tuple[nodes.Node, str], int] = {}

    def static_weight(self, definition: Definition) -> int:
        node, weights = definition.node, definition.module.weights
        if node not in weights:
            weights[node] = 1  # a cycle is reported by resolve; here it only has to end
            weights[node] = self._body_weight(node, definition.module)
        return weights[node]

    def _body_weight(self, node: nodes.Node, module: Module) -> int:
        total = 0
        for part in nodes.descend(node):
            if isinstance(part, nodes.Line | nodes.Bind | nodes.Param | nodes.Step | nodes.Call | nodes.Output):
                total += 1
            elif isinstance(part, nodes.Name):
                used = module.definitions.get(part.id)
                if used is not None and used.node is not node and isinstance(used.node, nodes.Block | nodes.Model):
                    total += self.static_weight(used)
        return min(max(total, 1), 10 * MAX_STEPS)

    def weight(self, node: nodes.Node, frame: Frame) -> int:
        weights = frame.module.weights
        if node not in weights:
            weights[node] = self._body_weight(node, frame.module)
        return weights[node]

    def uses(self, layer: Layer, parameter: str) -> int:
        if layer.definition is None:
            return 1
        node = layer.definition.node
        if (node, parameter) not in self._uses:
            body = getattr(node, "body", node)
            count = sum(isinstance(p, nodes.Name) and p.id == parameter for p in nodes.descend(body))
            self._uses[node, parameter] = max(count, 1)
        return self._uses[node, parameter]

    def contextual(self, name: str, frame: Frame, span: Span) -> Bound:
        entry = frame.defaults.get(name)
        if entry is None:
            if name in ROOT_DEFAULTS:
                return Bound(ROOT_DEFAULTS[name], how="contextual")
            models = [one.node.name.id for one in self.running if isinstance(one.node, nodes.Model)]
            self.fail(
                "E0212",
                f"`default.{name}` is not set",
                span,
                "read here",
                help=f"set it in the model ({models[-1] if models else 'its body'}): `default {name} = ...`, "
                "or pass the argument",
            )
        owner = entry.frame
        saved = owner.scope, owner.at, owner.iteration, owner.defaults
        at = owner.context.at
        owner.scope, owner.at = entry.scope, at
        owner.iteration = at.iteration if at is not None else ()
        # A default's own right-hand side must not read itself.
        owner.defaults = {key: value for key, value in owner.defaults.items() if key != name}
        try:
            value = self.evaluate(entry.node.value, owner)
            return Bound(value, entry.node, owner.instance, owner.iteration, how="contextual")
        finally:
            owner.scope, owner.at, owner.iteration, owner.defaults = saved

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

    def apply(
        self,
        layer: Layer,
        value: Any,
        frame: Frame,
        label: tuple[str, tuple[int, ...]],
        site: nodes.Node,
        iteration: Iteration,
        *,
        written: bool = False,
        repeat: int | None = None,
    ) -> Any:
        """The result of `value |> label: layer`, recorded at (site, iteration)."""
        self.step(site.span)
        if len(self.stack) >= MAX_NESTING:
            self.fail(
                "E0511",
                f"layers are applied more than {MAX_NESTING} deep",
                site.span,
                help="a layer comes to apply itself: `f(f)`, or a default that leads back",
            )
        if layer.weight > 1:
            self.charge(1, layer.weight, site.span)
        parts = [label[0], *map(str, label[1])]
        if repeat is not None:
            parts.append(str(repeat))
        path = frame.prefix + ".".join(parts)
        application = Application(layer, value, None, label, written)
        if self.recording:
            frame.instance.applied[site, iteration] = application
        self.stack.append(layer)
        owned = len(self.owners)
        try:
            if layer.inner is not None:
                result = self._apply_each(layer, value, frame, label, site, iteration, written, repeat)
            elif layer.op is not None:
                result = self._apply_operator(layer, value, frame, path, site, application, iteration)
            else:
                result = self._apply_definition(layer, value, frame, path, site, application, iteration)
        finally:
            self.stack.pop()
        if len(self.owners) > owned and not self.sharing and layer.inner is None:
            name = ".".join(parts)
            if name in frame.labels:
                self.fail(
                    "E0208",
                    f"two layers have the same path `{path}`",
                    site.span,
                    "the second one",
                    secondary=(Label(frame.labels[name], "the first one"),)
                    if frame.labels[name] is not site.span
                    else (),
                    help=f"write `{label[0]}[i]:` in a loop, or give one of them another label",
                )
            frame.labels[name] = site.span
        application.output = result
        return result

    def _apply_each(
        self,
        layer: Layer,
        value: Any,
        frame: Frame,
        label: tuple[str, tuple[int, ...]],
        site: nodes.Node,
        iteration: Iteration,
        written: bool,
        repeat: int | None,
    ) -> Any:
        assert layer.inner is not None
        if not isinstance(value, tuple):
            self.fail("E0409", f"each needs a list of tensors, found {self.describe(value)}", site.span)
        out = []
        for index, element in enumerate(value):
            self.sharing += index > 0
            try:
                out.append(
                    self.apply(
                        layer.inner, element, frame, label, site, (*iteration, index), written=written, repeat=repeat
                    )
                )
            finally:
                self.sharing -= index > 0
        return tuple(out)

    def _tensors(self, value: Any, layer: Layer, site: nodes.Node) -> list[Tensor]:
        if isinstance(value, Tensor):
            return [value]
        if isinstance(value, tuple) and all(isinstance(element, Tensor) for element in value):
            return list(value)
        self.fail(
            "E0409",
            f"{layer.name} is applied to a tensor or a list of tensors, found {self.describe(value)}",
            site.span,
        )

    def _apply_operator(
        self,
        layer: Layer,
        value: Any,
        frame: Frame,
        path: str,
        site: nodes.Node,
        application: Application,
        iteration: Iteration,
    ) -> Any:
        op = layer.op
        assert op is not None
        if op.name == "identity":
            return value
        tensors = self._tensors(value, layer, site)
        if op.arity == "one" and len(tensors) != 1:
            # A weight that passes through a layer is a second input of the node, never of the language.
            found = f"{op.name} takes one tensor, found a list of {len(tensors)}"
            self.fail("E0409", found, site.span, help="apply it to one of them, or use each")
        types = [tensor.type for tensor in tensors]
        given = {name: bound.value for name, bound in layer.bound.items()}
        transform = given.pop("weight", None)
        for argument in op.arguments:
            if (
                argument.name not in given
                and isinstance(argument.default, str)
                and argument.default.startswith("default.")
            ):
                given[argument.name] = self.contextual(argument.default[8:], frame, site.span).value
            elif argument.name not in given and argument.default is REQUIRED:
                self.fail("E0304", f"{op.name} needs its argument `{argument.name}`", site.span)
        try:
            attributes, results, owned = self._operator(op, given, types)
            if isinstance(transform, Layer) and not transform.is_identity:
                weight = self._transformed_weight(op, types, attributes, transform, frame, path, site, iteration)
                tensors.append(weight)
                types.append(weight.type)
                results, owned = infer(op, types, attributes), op.tensors(types, attributes)
        except OpError as error:
            self.operator_error(error, layer, site, tensors, frame)
            raise AssertionError from error
        parameters = self.own_tensors(owned, path, site.span, iteration)
        made = self.add_node(op.name, path, tuple(t.value for t in tensors), attributes, results, site.span, parameters)
        application.nodes, application.attributes = (made.id,), attributes
        label = application.label[0]
        out = tuple(Tensor(Value(made.id, i), t, site.span, label) for i, t in enumerate(results))
        return out if op.name == "split" else out[0]

    def _operator(self, op: Op, given: Mapping[str, Any], types: list[TensorType]) -> _Operator:
        """An operator's attributes, results and tensors: worked out once for all blocks that apply it alike."""
        mark = (op.name, *((name, key(value)) for name, value in given.items()), *types)
        if mark not in self._operators:
            attributes = bind_operator(op, given, types)
            self._operators[mark] = attributes, infer(op, types, attributes), op.tensors(types, attributes)
        return self._operators[mark]

    def _transformed_weight(
        self,
        op: Op,
        types: list[TensorType],
        attributes: Mapping[str, Any],
        transform: Layer,
        frame: Frame,
        path: str,
        site: nodes.Node,
        iteration: Iteration,
    ) -> Tensor:
        """The weight of a convolution after the layer given as `weight`; the layer's params lie beside it."""
        own = op.tensors(types, attributes)["weight"]
        parameter = self.own_tensors({"": own}, f"{path}.weight", site.span, iteration)
        node = self.add_node(
            "parameter",
            f"{path}.weight",
            (),
            {"shape": own.shape, "init": own.init},
            (TensorType(own.shape, False),),
            site.span,
            parameter,
        )
        tensor = Tensor(Value(node.id), node.types[0], site.span, "weight")
        inner = replace_frame(frame, prefix="", labels={})
        key = nodes.Step(site.span, None, nodes.Name(site.span, "weight"))
        prefix, self_path = path + ".", path
        result = self._run_weight_layer(transform, tensor, inner, prefix, self_path, key, iteration)
        if not isinstance(result, Tensor) or result.type.shape != own.shape:
            found = self.describe(result)
            self.fail("E0414", f"the weight's layer turns shape {show(own.shape)} into {found}", site.span)
        return result

    def _run_weight_layer(
        self, layer: Layer, tensor: Tensor, frame: Frame, prefix: str, path: str, site: nodes.Node, iteration: Iteration
    ) -> Any:
        if layer.definition is None:
            return self.apply(
                layer, tensor, replace_frame(frame, prefix=prefix, labels={}), (layer.name, ()), site, iteration
            )
        application = Application(layer, tensor, None, ("weight", ()), False)
        if self.recording:
            frame.instance.applied[site, iteration] = application
        result = self._apply_definition(layer, tensor, frame, path, site, application, iteration)
        application.output = result
        return result

    def _apply_definition(
        self,
        layer: Layer,
        value: Any,
        frame: Frame,
        path: str,
        site: nodes.Node,
        application: Application,
        iteration: Iteration,
    ) -> Any:
        definition = layer.definition
        assert definition is not None
        node = definition.node
        if isinstance(node, nodes.Model):
            return self._apply_model(layer, definition, node, value, frame, path, site, application, iteration)
        assert isinstance(node, nodes.Block)
        instance = self._new_instance(node, definition, path, frame, site, iteration, application)
        instance.input = value
        scope = Scope()
        inner = Frame(
            definition.module, scope, instance, frame.context, frame.defaults, path + "." if path else "", value, value
        )
        if node.on:
            self._name_inputs(node, value, scope, site)
        mark = None
        if self.counting:
            # Blocks hold no lines of the model: while those are counted, equal blocks are run once.
            given = tuple((name, key(bound.value)) for name, bound in sorted(layer.bound.items()))
            mark = (node, given, _types(value), id(frame.defaults), id(frame.context), self.training)
            if mark in self._counted:
                return self._stand_in(self._counted[mark], path)
        self.trail.append(f"{path or node.name.id}")
        self.running.append(instance)
        try:
            for parameter in node.parameters:
                name = parameter.name.id
                bound = layer.bound.get(name)
                if bound is None:
                    bound = self._default_argument(parameter, layer, inner, site)
                instance.arguments[name] = bound
                scope.names[name] = bound.value
            self.run_body(node.body, inner)
        finally:
            self.trail.pop()
            self.running.pop()
        instance.output = inner.it
        if mark is not None:
            self._counted[mark] = inner.it
        return inner.it

    def _stand_in(self, value: Any, path: str) -> Any:
        """Tensors like those of an equal block, while lines are counted."""
        if isinstance(value, tuple):
            return tuple(self._stand_in(element, path) for element in value)
        if not isinstance(value, Tensor):
            return value
        made = self.add_node("input", path, (), {"shape": value.type.shape}, (value.type,), value.span)
        return Tensor(Value(made.id), value.type, value.span, value.label)

    def _new_instance(
        self,
        node: nodes.Block | nodes.Model | nodes.Group,
        definition: Definition | None,
        path: str,
        frame: Frame,
        site: nodes.Node | None,
        iteration: Iteration,
        application: Application | None,
    ) -> Instance:
        instance = Instance(node, definition, path, frame.instance, site, iteration, training=self.training)
        if self.recording:
            frame.instance.children.append(instance)
            if application is not None:
                application.child = instance
        return instance

    def _name_inputs(self, node: nodes.Block, value: Any, scope: Scope, site: nodes.Node) -> None:
        if len(node.on) == 1:
            scope.names[node.on[0].id] = value
            return
        if not isinstance(value, tuple) or len(value) != len(node.on):
            self.fail(
                "E0409",
                f"{node.name.id} takes {len(node.on)} inputs ({', '.join(n.id for n in node.on)}), "
                f"found {self.describe(value)}",
                site.span,
                help="apply it to a list: `[a, b] |> ...`",
            )
        for identifier, element in zip(node.on, value, strict=True):
            scope.names[identifier.id] = element

    def _default_argument(self, parameter: nodes.Parameter, layer: Layer, frame: Frame, site: nodes.Node) -> Bound:
        if parameter.default is None:
            names, place = self.signature(layer)
            self.fail(
                "E0304",
                f"{layer.name} needs its argument `{parameter.name.id}`",
                site.span,
                f"it takes {', '.join(names)} ({place})",
                help="`-> C` gives `out`" if parameter.name.id == "out" else None,
            )
        if isinstance(parameter.default, nodes.DefaultRead):
            bound = self.contextual(parameter.default.name, frame, parameter.default.span)
            if self.recording:
                frame.instance.values[parameter.default, ()] = bound.value
            return bound
        value = self.evaluate(parameter.default, frame)
        return Bound(value, parameter.default, frame.instance, (), how="default")

    def run_body(self, body: nodes.Body, frame: Frame) -> None:
        raise NotImplementedError  # pragma: no cover - effspec.statements

    def _apply_model(
        self,
        layer: Layer,
        definition: Definition,
        node: nodes.Model,
        value: Any,
        frame: Frame,
        path: str,
        site: nodes.Node,
        application: Application,
        iteration: Iteration,
    ) -> Any:
        raise NotImplementedError  # pragma: no cover - effspec.scaling


def _is_input(tensor: Tensor, frame: Frame) -> bool:
    given = frame.input if isinstance(frame.input, tuple) else (frame.input,)
    return any(isinstance(one, Tensor) and one.value == tensor.value for one in given)


def _types(value: Any) -> Any:
    """The shapes of a tensor or list of tensors."""
    if isinstance(value, Tensor):
        return value.type
    return tuple(_types(element) for element in value) if isinstance(value, tuple) else value


def replace_frame(frame: Frame, **changes: Any) -> Frame:
    return replace(frame, **changes)
