"""Resolved tree + parameters -> graph: runs bodies, applies layers, and records what each definition did.

A model is expanded twice where it asks for `at.blocks`: once to count its repeated lines, once for real.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from effspec import values
from effspec.diagnostics import Diagnostic, EffspecError, Label, Span, suggest
from effspec.evaluate import (
    IDENTITY,
    MAX_NESTING,
    MAX_STEPS,
    At,
    Cell,
    DefaultEntry,
    Evaluator,
    FnValue,
    Frame,
    HookValue,
    ModelContext,
    Scope,
)
from effspec.ir.graph import Graph, Initializer, Node, Output, Parameter, Value
from effspec.ir.types import TensorType
from effspec.layers import Application, Bound, Instance, Iteration, Layer, Taps, Tensor, key
from effspec.ops import OPS
from effspec.ops.base import REQUIRED, Op, OpError, show
from effspec.ops.bind import bind as bind_operator
from effspec.ops.bind import infer
from effspec.params import ROOT_INIT, distribution
from effspec.resolve import Definition, Module
from effspec.syntax import nodes

MAX_NODES = 200_000
ROOT_DEFAULTS: dict[str, Any] = {"pad": "half", "init": ROOT_INIT}


@dataclass(frozen=True, eq=False)
class Given:
    """A parameter's value from outside: `origin` is "with", "variant" or "setting"."""

    bound: Bound
    span: Span
    origin: str


@dataclass(frozen=True)
class ParameterValue:
    """What a model parameter came out as, what decided it ("default", "with", "variant", "setting"), and which other
    parameters it was computed from."""

    value: Any
    origin: str
    span: Span
    reads: frozenset[str] = frozenset()


@dataclass(eq=False)
class Elaborated:
    """A lowered model: its graph, and the record of its instances for backends that write source."""

    graph: Graph
    module: Module
    model: nodes.Model
    root: Instance
    parameters: dict[str, ParameterValue]
    blocks: int
    preparation: dict[str, dict[str, Any]] = field(default_factory=dict)
    variant: str | None = None


def snake_case(name: str) -> str:
    """`ConvNorm` -> `conv_norm`: how an unlabelled block is called in paths."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class Elaborator(Evaluator):
    """One elaboration of one model."""

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
        self.counting = False
        self._counted: dict[Any, Any] = {}
        self._weights: dict[nodes.Node, int] = {}
        self._uses: dict[tuple[nodes.Node, str], int] = {}

    # The budget: static weights over the acyclic use graph

    def static_weight(self, definition: Definition) -> int:
        node = definition.node
        if node not in self._weights:
            self._weights[node] = 1  # a cycle is reported by resolve; here it only has to end
            self._weights[node] = self._body_weight(node, definition.module)
        return self._weights[node]

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
        if node not in self._weights:
            self._weights[node] = self._body_weight(node, frame.module)
        return self._weights[node]

    def uses(self, layer: Layer, parameter: str) -> int:
        if layer.definition is None:
            return 1
        node = layer.definition.node
        if (node, parameter) not in self._uses:
            body = getattr(node, "body", node)
            count = sum(isinstance(p, nodes.Name) and p.id == parameter for p in nodes.descend(body))
            self._uses[node, parameter] = max(count, 1)
        return self._uses[node, parameter]

    # Contextual defaults

    def contextual(self, name: str, frame: Frame, span: Span) -> Bound:
        entry = frame.defaults.get(name)
        if entry is None:
            if name in ROOT_DEFAULTS:
                return Bound(ROOT_DEFAULTS[name], how="contextual")
            models = [part for part in self.trail if part]
            self.fail(
                "E0212",
                f"`default.{name}` is not set",
                span,
                "read here",
                help=f"set it in the model ({models[0] if models else 'its body'}): `default {name} = ...`, or pass the argument",
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

    # The graph

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

    def operator_error(self, error: OpError, layer: Layer | None, site: nodes.Node, tensors: list[Tensor]) -> None:
        span = site.span
        if layer is not None and error.argument is not None and error.argument in layer.bound:
            node = layer.bound[error.argument].node
            span = node.span if node is not None and node.span.source is span.source else span
        secondary = []
        for tensor, side in zip(tensors[:2], ("left", "right") if len(tensors) == 2 else ("it",), strict=False):
            if tensor.span is not None and tensor.span is not span and tensor.span.source is span.source:
                where = f" `{tensor.label}`" if tensor.label else ""
                secondary.append(Label(tensor.span, f"{side}: {show(tensor.type.shape)} from{where} here"))
        self.fail(error.code, error.message, span, secondary=tuple(secondary), help=error.help)

    def arithmetic(
        self, op: str, tensors: list[Tensor], attributes: dict[str, Any], node: nodes.Expr, frame: Frame
    ) -> Tensor:
        row = OPS[op]
        types = [tensor.type for tensor in tensors]
        try:
            result = infer(row, types, attributes)
        except OpError as error:
            self.operator_error(error, None, node, tensors)
            raise AssertionError from error
        path = f"{frame.prefix}{op}"
        made = self.add_node(op, path, tuple(t.value for t in tensors), attributes, result, node.span)
        tensor = Tensor(Value(made.id), result[0], node.span)
        if self.recording:
            frame.instance.applied[node, frame.iteration] = Application(
                Layer({}, op=row), tuple(tensors), tensor, (op, ()), False, None, (made.id,), attributes
            )
        return tensor

    # Applying layers

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
                    secondary=(Label(frame.labels[name], "the first one"),) if frame.labels[name] is not site.span else (),
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
        self.fail("E0409", f"{layer.name} is applied to a tensor or a list of tensors, found {self.describe(value)}", site.span)

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
        types = [tensor.type for tensor in tensors]
        given = {name: bound.value for name, bound in layer.bound.items()}
        transform = given.pop("weight", None)
        for argument in op.arguments:
            if argument.name not in given and isinstance(argument.default, str) and argument.default.startswith("default."):
                given[argument.name] = self.contextual(argument.default[8:], frame, site.span).value
            elif argument.name not in given and argument.default is REQUIRED:
                self.fail("E0304", f"{op.name} needs its argument `{argument.name}`", site.span)
        try:
            attributes = bind_operator(op, given, types)
            if isinstance(transform, Layer) and not transform.is_identity:
                weight = self._transformed_weight(op, types, attributes, transform, frame, path, site, iteration)
                tensors.append(weight)
                types.append(weight.type)
            results = infer(op, types, attributes)
        except OpError as error:
            self.operator_error(error, layer, site, tensors)
            raise AssertionError from error
        parameters = self.own_tensors(op.tensors(types, attributes), path, site.span, iteration)
        made = self.add_node(
            op.name, path, tuple(t.value for t in tensors), attributes, results, site.span, parameters
        )
        application.nodes, application.attributes = (made.id,), attributes
        label = application.label[0]
        out = tuple(Tensor(Value(made.id, i), t, site.span, label) for i, t in enumerate(results))
        return out if op.name == "split" else out[0]

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
            return self.apply(layer, tensor, replace_frame(frame, prefix=prefix, labels={}), (layer.name, ()), site, iteration)
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
                f"{node.name.id} takes {len(node.on)} inputs ({', '.join(n.id for n in node.on)}), found {self.describe(value)}",
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

    # Bodies

    def run_body(self, body: nodes.Body, frame: Frame) -> None:
        for statement in body.statements:
            self.step(statement.span)
            _STATEMENTS[type(statement)](self, statement, frame)

    def run_inner(self, body: nodes.Body, frame: Frame) -> None:
        """A nested `{ }`: names and defaults bound inside end with it."""
        scope, defaults = frame.scope, frame.defaults
        frame.scope = Scope(scope)
        try:
            self.run_body(body, frame)
        finally:
            frame.scope, frame.defaults = scope, defaults

    def _run_line(self, line: nodes.Line, frame: Frame) -> None:
        if line.guard is not None:
            holds = self.boolean(line.guard, frame, "a guard")
            if self.recording:
                frame.instance.ran[line, frame.iteration] = int(holds)
            if not holds:
                return
        if line.repeats is not None:
            self._run_repeats(line, frame)
            return
        value = line.value if isinstance(line.value, nodes.Group) else self._line_value(line, frame)
        if isinstance(value, nodes.Group):
            frame.it = self._apply_group(value, line, frame, self._label(line, frame), frame.iteration, None)
        elif isinstance(value, Layer):
            layer = self._with_out(value, line, frame)
            frame.it = self.apply(
                layer, frame.it, frame, self._label(line, frame), line, frame.iteration, written=line.label is not None
            )
        else:
            self._become(value, line, frame)

    def _line_value(self, line: nodes.Line, frame: Frame) -> Any:
        assert not isinstance(line.value, nodes.Group)
        return self.evaluate(line.value, frame)

    def _become(self, value: Any, line: nodes.Line, frame: Frame) -> None:
        """A line that is a tensor, or a list of them, becomes the current value."""

        def tensors(value: Any) -> bool:
            return isinstance(value, Tensor | Taps) or (isinstance(value, tuple) and all(map(tensors, value)))

        if not tensors(value) or value == ():
            self.fail(
                "E0213",
                f"this line has no effect: it is {self.describe(value)}",
                line.span,
                help="bind it (`name = ...`) or delete it",
            )
        for extra, word in ((line.label, "a label"), (line.out, "`-> C`")):
            if extra is not None:
                self.fail("E0214", f"{word} needs a layer, found {self.describe(value)}", extra.span)
        frame.it = value

    def _with_out(self, layer: Layer, line: nodes.Line, frame: Frame, cached: Bound | None = None) -> Layer:
        """The layer with `-> C` bound as `out`."""
        if line.out is None:
            return layer
        names, place = self.signature(layer) if layer.inner is None else ([], "")
        if "out" not in names:
            self.fail(
                "E0305", f"`-> C` gives `out`, which {layer.name} does not take", line.out.span,
                f"it takes {', '.join(names) or 'no arguments'} ({place})",
            )
        if "out" in layer.bound and layer.bound["out"].instance is frame.instance and layer.bound["out"].node in getattr(
            line.value, "arguments", ()
        ):
            self.fail("E0302", "out is given twice: as an argument and by `->`", line.out.span, help="keep one of them")
        bound = cached or self._out(line, frame)
        return replace(layer, bound={**layer.bound, "out": bound})

    def _out(self, line: nodes.Line, frame: Frame) -> Bound:
        assert line.out is not None
        value = self.evaluate(line.out.value, frame)
        value = self._scaled(line.out, "channels", value, frame)
        return Bound(value, line.out.value, frame.instance, frame.iteration)

    def _scaled(self, scaled: nodes.Scaled, hook: str, value: Any, frame: Frame) -> Any:
        """A number after the model's hook of that name, unless it is `fixed`."""
        function = frame.scope.find(hook) if frame.is_model else None
        if not isinstance(function, HookValue):
            if scaled.fixed:
                self.fail("E0215", "`fixed` keeps a number from the scaling, but there is none", scaled.span, help="delete it")
            return value
        if scaled.fixed:
            return value
        if not values.is_number(value):
            self.fail("E0503", f"`{hook}` scales numbers, found {self.describe(value)}", scaled.value.span)
        parameters = function.node.parameters
        given = {parameters[0].name.id: value} if parameters else {}
        return self.run_fn(
            function, function.frame.module, Scope(function.frame.scope), function.frame.instance, frame.context, given,
            scaled.span,
        )

    def _run_repeats(self, line: nodes.Line, frame: Frame) -> None:
        assert line.repeats is not None
        written = self.integer(line.repeats.value, frame, "a repeat count")
        literal_zero = isinstance(line.repeats.value, nodes.Number) and written == 0
        count = self._scaled(line.repeats, "repeats", written, frame)
        if not isinstance(count, int):
            self.fail("E0502", f"a repeat count is an integer, the scaling gives {values.show(count)}", line.repeats.span)
        if count < 0 or literal_zero or (count == 0 and written > 0):
            found = f"{written} scaled to {count}" if count != written else str(count)
            self.fail("E0512", f"a line is repeated at least once, found {found}", line.repeats.span, help="delete the line")
        weight = max(self.weight(line.value, frame), 1)
        self.charge(count, weight, line.repeats.span)
        # `-> C` is the same for every repeat, and may not read `at`.
        outer_at, outer_iteration = frame.at, frame.iteration
        if self.recording:
            frame.instance.counts[line, outer_iteration] = count
        out: Bound | None = None
        try:
            for i in range(count):
                block = None
                if frame.is_model:
                    block = 0 if self.counting else frame.context.block
                    frame.context.block += 1
                frame.iteration = (*outer_iteration, i)
                if line.out is not None:
                    frame.at = None
                    if out is None:
                        out = self._out(line, frame)
                    elif self.recording:
                        frame.instance.values[line.out.value, frame.iteration] = out.value
                frame.at = At(i, count, block, frame.iteration)
                if frame.is_model:
                    frame.context.at = frame.at
                self._one_repeat(line, frame, i, out)
        finally:
            frame.at, frame.iteration = outer_at, outer_iteration
            if frame.is_model:
                frame.context.at = None

    def _one_repeat(self, line: nodes.Line, frame: Frame, i: int, out: Bound | None) -> None:
        if isinstance(line.value, nodes.Group):
            label = self._label(line, frame)
            frame.it = self._apply_group(line.value, line, frame, label, frame.iteration, i)
            return
        value = self.evaluate(line.value, frame)
        if not isinstance(value, Layer):
            self.fail("E0214", f"only a layer is repeated, found {self.describe(value)}", line.value.span)
        layer = self._with_out(value, line, frame, out)
        frame.it = self.apply(
            layer, frame.it, frame, self._label(line, frame), line, frame.iteration,
            written=line.label is not None, repeat=i,
        )

    def _label(self, line: nodes.Line, frame: Frame) -> tuple[str, tuple[int, ...]]:
        if line.label is not None:
            return line.label.name, tuple(self.integer(index, frame, "a label's index") for index in line.label.indices)
        assert not isinstance(line.value, nodes.Group)
        return self._written_name(line.value), ()

    def _written_name(self, node: nodes.Expr) -> str:
        while isinstance(node, nodes.Call):
            node = node.function
        if isinstance(node, nodes.Attribute):
            name = node.name.id
            if name == "taps":
                return self._written_name(node.value)
        elif isinstance(node, nodes.Name):
            name = node.id
        else:
            return "layer"
        return snake_case(name) if name[:1].isupper() else name

    def _apply_group(
        self,
        group: nodes.Group,
        site: nodes.Node,
        frame: Frame,
        label: tuple[str, tuple[int, ...]],
        iteration: Iteration,
        repeat: int | None,
        value: Any = None,
    ) -> Any:
        parts = [label[0], *map(str, label[1])] + ([str(repeat)] if repeat is not None else [])
        path = frame.prefix + ".".join(parts)
        start = frame.it if value is None else value
        application = Application(IDENTITY, start, None, label, True)
        if self.recording:
            frame.instance.applied[site, iteration] = application
        instance = self._new_instance(group, None, path, frame, site, iteration, application)
        instance.input = start
        inner = Frame(
            frame.module, Scope(frame.scope), instance, frame.context, frame.defaults, path + ".", frame.input, start,
            at=frame.at, is_model=frame.is_model,
        )
        self.run_body(group.body, inner)
        instance.output = application.output = inner.it
        return inner.it

    def run_step(self, step: nodes.Step, value: Any, frame: Frame) -> Any:
        if isinstance(step.layer, nodes.Group):
            assert step.label is not None
            label = self._step_label(step, frame)
            return self._apply_group(step.layer, step, frame, label, frame.iteration, None, value)
        layer = self.evaluate(step.layer, frame)
        if not isinstance(layer, Layer):
            self.fail("E0503", f"`|>` applies a layer, found {self.describe(layer)}", step.layer.span)
        return self.apply(
            layer, value, frame, self._step_label(step, frame), step, frame.iteration, written=step.label is not None
        )

    def _step_label(self, step: nodes.Step, frame: Frame) -> tuple[str, tuple[int, ...]]:
        if step.label is not None:
            return step.label.name, tuple(self.integer(index, frame, "a label's index") for index in step.label.indices)
        assert not isinstance(step.layer, nodes.Group)
        return self._written_name(step.layer), ()

    def _run_bind(self, statement: nodes.Bind, frame: Frame) -> None:
        if isinstance(statement.value, nodes.For):
            outer = frame.yields
            frame.yields = []
            self._run_for(statement.value, frame)
            value: Any = tuple(frame.yields)
            frame.yields = outer
        else:
            value = self.evaluate(statement.value, frame)
        self.bind(statement.targets, value, frame, statement.span)

    def _run_for(self, statement: nodes.For, frame: Frame) -> None:
        defaults = frame.defaults
        count = 0
        outer = frame.iteration
        for _ in self.iterate(statement.targets, statement.iterable, self.weight(statement.body, frame), frame):
            self.run_body(statement.body, frame)
            frame.defaults = defaults
            count += 1
        if self.recording:
            frame.instance.counts[statement, outer] = count

    def _run_if(self, statement: nodes.If, frame: Frame) -> None:
        taken = -1
        for number, (condition, body) in enumerate(statement.branches):
            if self.boolean(condition, frame, "a condition"):
                taken = number
                self.run_inner(body, frame)
                break
        else:
            if statement.otherwise is not None:
                taken = len(statement.branches)
                self.run_inner(statement.otherwise, frame)
        if self.recording:
            frame.instance.ran[statement, frame.iteration] = taken

    def _run_param(self, statement: nodes.Param, frame: Frame) -> None:
        shape = self.evaluate(statement.shape, frame)
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
            self.fail("E0503", f"a param's shape is a list of sizes, found {values.show(shape)}", statement.shape.span)
        init: Any = 0 if statement.init is None else self.evaluate(statement.init, frame)
        if values.is_number(init):
            init = Initializer("constant", {"value": init})
        if not isinstance(init, Initializer):
            self.fail("E0503", f"a param starts as a number or an initializer, found {self.describe(init)}", statement.span)
        path = frame.prefix + statement.name.id
        own = self.own_tensors({"": _Shaped(shape, init)}, path, statement.span, frame.iteration)
        attributes = {"shape": shape, "init": init}
        node = self.add_node("parameter", path, (), attributes, (TensorType(shape, False),), statement.span, own)
        tensor = Tensor(Value(node.id), node.types[0], statement.span, statement.name.id)
        if self.recording:
            frame.instance.values[statement, frame.iteration] = tensor  # type: ignore[index]
        self.bind_name(statement.name, tensor, frame)

    def _run_default(self, statement: nodes.Default, frame: Frame) -> None:
        if not frame.is_model:
            self.fail("E0216", "`default` belongs into a model", statement.span, help="a block takes an argument instead")
        entries = {entry.name.id: DefaultEntry(entry, frame, frame.scope) for entry in statement.entries}
        frame.defaults = {**frame.defaults, **entries}

    def _run_output(self, statement: nodes.Output, frame: Frame) -> None:
        if not frame.is_model:
            self.fail("E0216", "`output` belongs into a model", statement.span, help="a block's value is its last line")
        name = statement.name.id
        self.training = self.training or statement.training
        try:
            value = frame.it if statement.value is None else self.evaluate(statement.value, frame)
        finally:
            if statement.training:
                self.training = False
        if any(output.name == name for output in self.graph.outputs):
            self.fail("E0707", f"two outputs are called `{name}`", statement.name.span)
        if self.recording:
            frame.instance.values[statement, frame.iteration] = value  # type: ignore[index]
        if len(self.stack) == 0:
            self.graph.outputs.append(Output(name, self._tree(value, statement.span), statement.training))
        else:
            self.fail("E0707", "a model used as a layer gives its last value, not outputs", statement.span)

    def _tree(self, value: Any, span: Span) -> Any:
        if isinstance(value, Tensor):
            return value.value
        if isinstance(value, tuple) and value:
            return tuple(self._tree(element, span) for element in value)
        self.fail("E0707", f"an output is a tensor or a list of tensors, found {self.describe(value)}", span)

    def _run_require(self, statement: nodes.Require, frame: Frame) -> None:
        self.require(statement, frame)

    def _run_yield(self, statement: nodes.Yield, frame: Frame) -> None:
        if frame.yields is None:
            self.fail("E0217", "`yield` stands in a loop whose result is bound: `xs = for ...`", statement.span)
        value = frame.it if statement.value is None else self.evaluate(statement.value, frame)
        frame.yields.append(value)

    def _run_prepare(self, statement: nodes.Prepare, frame: Frame) -> None:
        if not frame.is_model:
            self.fail("E0216", "`prepare` belongs into a model", statement.span)
        given: dict[str, Any] = {}
        for argument in statement.arguments:
            if argument.name is None or argument.then is not None:
                self.fail("E0303", "prepare takes named arguments", argument.span, help="for example `mean = [...]`")
            given[argument.name.id] = self.evaluate(argument.value, frame)
        self.preparation[statement.input.id] = given

    # Models

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
        given = {name: Given(bound, (bound.node or site).span, "variant") for name, bound in layer.bound.items()}
        inputs = list(value) if isinstance(value, tuple) else [value]

        def expand(blocks: int | None) -> tuple[Frame, dict[str, Cell]]:
            instance = self._new_instance(node, definition, path, frame, site, iteration, application)
            instance.variant = layer.variant
            instance.input = value
            return self.expand_model(
                definition, given, instance, blocks, path + ".", inputs, site.span
            )

        total = self._count_blocks(node, lambda: expand(None))
        inner, _ = expand(total)
        inner.instance.output = inner.it
        if layer.taps:
            return self._taps(inner)
        return inner.it

    def _count_blocks(self, node: nodes.Model, expand: Any) -> int | None:
        """The number of repeated lines of a model that asks for it, by a trial expansion that leaves no trace."""
        if not any(isinstance(part, nodes.Attribute) and part.name.id == "blocks" for part in nodes.descend(node)):
            return None
        saved = (self.graph, self.next_id, self.paths, self.owners, self.recording, dict(self.preparation))
        trial = Graph(self.graph.name)
        trial.nx = saved[0].nx.copy()
        trial.outputs = list(saved[0].outputs)
        self.graph, self.paths, self.owners, self.recording = trial, dict(saved[2]), dict(saved[3]), False
        outer = self.counting, self._counted
        self.counting, self._counted = True, {}
        try:
            frame, _ = expand()
            return int(frame.context.block)
        finally:
            self.counting, self._counted = outer
            (self.graph, self.next_id, self.paths, self.owners, self.recording, self.preparation) = saved

    def _taps(self, frame: Frame) -> Taps:
        entries: dict[Any, Any] = {}
        for (site, _), application in frame.instance.applied.items():
            if not isinstance(site, nodes.Line) or site.label is None:
                continue
            name, indices = application.label
            if not indices:
                entries[name] = application.output
                continue
            level = entries.setdefault(name, {})
            for index in indices[:-1]:
                level = level.setdefault(index, {})
            level[indices[-1]] = application.output

        def freeze(value: Any) -> Any:
            return Taps({k: freeze(v) for k, v in value.items()}) if isinstance(value, dict) else value

        return Taps({name: freeze(value) for name, value in entries.items()})

    def variant_layer(self, name: str, module: Module, span: Span) -> Layer:
        """A variant as a layer: its model with the arguments of the whole chain."""
        definition, given = self.variant_arguments(name, module)
        bound = {key: value.bound for key, value in given.items()}
        return Layer(bound, definition=definition, variant=name, weight=self.static_weight(definition))

    def variant_arguments(self, name: str, module: Module) -> tuple[Definition, dict[str, Given]]:
        """The model behind a variant, and what the chain of variants gives it (the base first)."""
        chain: list[nodes.Variant] = []
        while name in module.variants:
            variant = module.variants[name]
            if variant in chain:
                self.fail("E0206", f"variant {name} leads back to itself", variant.name.span)
            chain.append(variant)
            function = variant.call.function
            if isinstance(function, nodes.Attribute) and isinstance(function.value, nodes.Name):
                module = module.namespaces[function.value.id]
                name = function.name.id
            else:
                assert isinstance(function, nodes.Name)
                name = function.id
        definition = module.definitions.get(name)
        if definition is None or not isinstance(definition.node, nodes.Model):
            where = chain[-1].call.function.span
            self.fail("E0201", f"`{name}` is neither a model nor a variant", where, help=suggest(name, module.variants))
        given: dict[str, Given] = {}
        frame = self.file_frame(module)
        base = Layer({}, definition=definition)
        for variant in reversed(chain):
            bound = self._bind_arguments(replace(base, bound={}), variant.call, frame).bound
            for key, value in bound.items():
                span = value.node.span if value.node is not None else variant.span
                given[key] = Given(value, span, "variant")
        return definition, given

    def model_header(
        self, definition: Definition, given: Mapping[str, Given], instance: Instance, blocks: int | None, prefix: str, span: Span
    ) -> tuple[Frame, dict[str, Cell]]:
        """Evaluate a model's parameters, those of its scaling first, and the scaling's `require`s."""
        node = definition.node
        assert isinstance(node, nodes.Model)
        scaling = self.scaling_of(definition)
        cells: dict[str, Cell] = {}
        frame = Frame(definition.module, Scope(), instance, ModelContext(blocks), prefix=prefix, is_model=True)
        self.readers.append(None)
        try:
            if scaling is not None:
                assert isinstance(scaling.node, nodes.Scaling)
                self._scaling_cells(scaling, node, definition, given, frame, cells)
            self._cells(node.parameters, frame, given, {}, cells, node.name.id)
            self._unknown_settings(given, cells, node, span)
            for cell in cells.values():
                self.read(cell)
        finally:
            self.readers.pop()
        if scaling is not None:
            hook_frame = frame.scope.find("")
            for require in scaling.node.requires:  # type: ignore[union-attr]
                self.require(require, hook_frame)
        for name, cell in cells.items():
            assert cell.bound is not None
            instance.arguments[name] = cell.bound
        return frame, cells

    def expand_model(
        self,
        definition: Definition,
        given: Mapping[str, Given],
        instance: Instance,
        blocks: int | None,
        prefix: str,
        inputs: list[Any] | None,
        span: Span,
    ) -> tuple[Frame, dict[str, Cell]]:
        """Evaluate a model's parameters and run its body; `inputs` are None for the compiled model itself."""
        node = definition.node
        assert isinstance(node, nodes.Model)
        scaling = self.scaling_of(definition)
        frame, cells = self.model_header(definition, given, instance, blocks, prefix, span)
        root = Cell("", node.span, None)
        self.readers.append(root)
        try:
            self._model_inputs(node, frame, inputs)
            self.run_body(node.body, frame)
        finally:
            self.readers.pop()
        if inputs is None:
            rule = scaling.node if scaling is not None else None
            assert rule is None or isinstance(rule, nodes.Scaling)
            self._check_effect(given, cells, root, node, rule)
        return frame, cells

    def _scaling_cells(
        self,
        scaling: Definition,
        node: nodes.Model,
        definition: Definition,
        given: Mapping[str, Given],
        frame: Frame,
        cells: dict[str, Cell],
    ) -> None:
        """The parameters and hooks of `with S(...)`, visible to the model's."""
        rule = scaling.node
        assert isinstance(rule, nodes.Scaling) and node.scaling is not None
        rule_frame = Frame(scaling.module, Scope(), frame.instance, frame.context)
        defaults: dict[str, Given] = {}
        if isinstance(node.scaling, nodes.Call):
            file = self.file_frame(definition.module)
            names = [parameter.name.id for parameter in rule.parameters]
            for position, argument in enumerate(node.scaling.arguments):
                word = argument.name.id if argument.name else (names[position] if position < len(names) else "")
                if word not in names:
                    self.fail(
                        "E0301", f"unknown argument `{word}` of {rule.name.id}", argument.span,
                        f"it takes {', '.join(names)} ({rule.span.place})", help=suggest(word, names),
                    )
                if word in defaults:
                    self.fail("E0302", f"{word} is given twice", argument.span)
                defaults[word] = Given(Bound(self.evaluate(argument.value, file), argument), argument.span, "with")
        self._cells(rule.parameters, rule_frame, given, defaults, cells, rule.name.id)
        for name, cell in cells.items():
            frame.scope.names[name] = cell
        for hook in rule.hooks:
            value = HookValue(hook, rule_frame)
            rule_frame.scope.names[hook.name.id] = value
            frame.scope.names[hook.name.id] = value
        frame.scope.names[""] = rule_frame

    def _cells(
        self,
        parameters: tuple[nodes.Parameter, ...],
        frame: Frame,
        given: Mapping[str, Given],
        defaults: Mapping[str, Given],
        cells: dict[str, Cell],
        owner: str,
    ) -> None:
        for parameter in parameters:
            name = parameter.name.id
            if name in cells:
                self.fail("E0203", f"{owner} and its scaling both have a parameter `{name}`", parameter.span)
            source = given.get(name) or defaults.get(name)
            if source is not None:
                cell = Cell(name, parameter.span, None, source.bound, source.origin)
                cell.given = source.span
            elif parameter.default is not None:
                cell = Cell(name, parameter.span, self._lazy(parameter, parameter.default, frame))
            else:
                self.fail(
                    "E0304",
                    f"{owner} needs its parameter `{name}`",
                    parameter.span,
                    help=f"give it: `--set {name}=...`, or choose a variant",
                )
            cells[name] = cell
            frame.scope.names[name] = cell

    def _lazy(self, parameter: nodes.Parameter, default: nodes.Expr, frame: Frame) -> Any:
        return lambda: Bound(self.evaluate(default, frame), default, frame.instance, (), how="default")

    def _unknown_settings(self, given: Mapping[str, Given], cells: dict[str, Cell], node: nodes.Model, span: Span) -> None:
        problems = []
        for name, source in given.items():
            if name not in cells:
                label = Label(source.span, f"{node.name.id} takes {', '.join(cells)}")
                help = suggest(name, cells)
                if name == "phi" and help is None:
                    help = "this model has no compound coefficient; its scaling takes other parameters"
                problems.append(Diagnostic("E0602", f"{node.name.id} has no parameter `{name}`", label, help=help))
        if problems:
            raise EffspecError(tuple(problems))

    def _model_inputs(self, node: nodes.Model, frame: Frame, inputs: list[Any] | None) -> None:
        made: list[Any] = []
        for position, declared in enumerate(node.inputs):
            shape = self.evaluate(declared.shape, frame)
            if not isinstance(shape, tuple) or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
                self.fail(
                    "E0502", f"an input's shape is a list of sizes, found {values.show(shape)}", declared.shape.span,
                    help="round what is not an integer",
                )
            if any(n > 2**31 for n in shape):
                self.fail("E0505", f"a size is at most 2^31, found {values.show(shape)}", declared.shape.span)
            if inputs is None:
                kind = TensorType(shape)
                new = self.add_node("input", declared.name.id, (), {"shape": shape}, (kind,), declared.span)
                tensor = Tensor(Value(new.id), kind, declared.span, declared.name.id)
            else:
                if position >= len(inputs) or len(inputs) != len(node.inputs):
                    self.fail("E0409", f"{node.name.id} takes {len(node.inputs)} inputs, found {len(inputs)}", declared.span)
                tensor = inputs[position]
                if not isinstance(tensor, Tensor) or tensor.type.shape != shape:
                    found = self.describe(tensor)
                    self.fail(
                        "E0414", f"{node.name.id} is compiled for an input {show(shape)}, found {found}", declared.span,
                        help="pass the size: `backbone(size = ...)`",
                    )
            frame.scope.names[declared.name.id] = tensor
            if self.recording:
                frame.instance.values[declared, ()] = tensor  # type: ignore[index]
            made.append(tensor)
        frame.input = frame.it = made[0] if len(made) == 1 else tuple(made)
        if inputs is None:
            frame.instance.input = frame.input

    def _check_effect(
        self,
        given: Mapping[str, Given],
        cells: dict[str, Cell],
        root: Cell,
        node: nodes.Model,
        rule: nodes.Scaling | None,
    ) -> None:
        """An argument from a variant or the command line that nothing evaluated reads is an error."""
        reached: set[int] = set()
        stack = [root]
        while stack:
            cell = stack.pop()
            for other in cell.reads:
                if id(other) not in reached:
                    reached.add(id(other))
                    stack.append(other)
        problems = []
        for name, source in given.items():
            if id(cells[name]) in reached:
                continue
            blockers = [other for other in given if other != name and _mentions(node, rule, other, name, set())]
            notes: tuple[str, ...] = ()
            if blockers:
                origin = given[blockers[0]]
                who = "the variant" if origin.origin == "variant" else "the request"
                where = f" ({origin.span.place})" if origin.origin == "variant" else ""
                notes = (f"{who}{where} gives {_listed(blockers)}, so nothing is left that reads {name}",)
            problems.append(
                Diagnostic(
                    "E0612",
                    f"{name} has no effect",
                    Label(source.span),
                    notes=notes or (f"nothing that is evaluated reads {name}",),
                    help=f"drop the variant to use {name}, or drop {name}" if blockers else f"drop {name}",
                )
            )
        if problems:
            raise EffspecError(tuple(problems))


@dataclass(frozen=True)
class _Shaped:
    """What own_tensors needs to know of a `param`."""

    shape: tuple[int, ...]
    init: Initializer
    buffer: bool = False


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _mentions(node: nodes.Model, rule: nodes.Scaling | None, parameter: str, name: str, seen: set[str]) -> bool:
    """Whether the default of `parameter` would, directly or through hooks and other defaults, read `name`."""
    if parameter in seen:
        return False
    seen.add(parameter)
    texts: list[nodes.Node] = []
    every = node.parameters + (rule.parameters if rule is not None else ())
    texts += [p.default for p in every if p.name.id == parameter and p.default is not None]
    if rule is not None:
        texts += [hook.result for hook in rule.hooks if hook.name.id == parameter]
    words = [part.id for text in texts for part in nodes.descend(text) if isinstance(part, nodes.Name)]
    return name in words or any(_mentions(node, rule, word, name, seen) for word in words)


def _types(value: Any) -> Any:
    """The shapes of a tensor or list of tensors."""
    if isinstance(value, Tensor):
        return value.type
    return tuple(_types(element) for element in value) if isinstance(value, tuple) else value


def replace_frame(frame: Frame, **changes: Any) -> Frame:
    return replace(frame, **changes)


_STATEMENTS: dict[type, Any] = {
    nodes.Line: Elaborator._run_line,
    nodes.Bind: Elaborator._run_bind,
    nodes.For: Elaborator._run_for,
    nodes.If: Elaborator._run_if,
    nodes.Param: Elaborator._run_param,
    nodes.Default: Elaborator._run_default,
    nodes.Output: Elaborator._run_output,
    nodes.Require: Elaborator._run_require,
    nodes.Yield: Elaborator._run_yield,
    nodes.Prepare: Elaborator._run_prepare,
}


@dataclass(frozen=True)
class Setting:
    """`--set NAME=VALUE` or a keyword of the API: a value, or an expression of the language to be evaluated in the file."""

    name: str
    value: Any
    span: Span


@dataclass(frozen=True)
class Request:
    """Which point of which model is wanted."""

    variant: str | None = None
    model: str | None = None
    settings: tuple[Setting, ...] = ()


def choose(module: Module, request: Request, elaborator: Elaborator) -> tuple[Definition, dict[str, Given]]:
    """The model that a request means, and what its variant gives."""
    models = {
        name: d for name, d in module.definitions.items() if isinstance(d.node, nodes.Model) and d.module is module
    }
    if request.variant is not None:
        if request.variant not in module.variants:
            known = ", ".join(module.variants) or "none"
            raise EffspecError(
                (
                    Diagnostic(
                        "E0601",
                        f"{module.name} has no variant `{request.variant}`",
                        notes=(f"its variants: {known}",),
                        help=suggest(request.variant, module.variants),
                    ),
                )
            )
        return elaborator.variant_arguments(request.variant, module)
    if request.model is not None:
        if request.model not in models:
            known = ", ".join(models) or "none"
            raise EffspecError(
                (
                    Diagnostic(
                        "E0601",
                        f"{module.name} has no model `{request.model}`",
                        notes=(f"its models: {known}",),
                        help=suggest(request.model, models),
                    ),
                )
            )
        return models[request.model], {}
    if len(models) != 1:
        what = f"{module.name} has {len(models)} models: {', '.join(models)}" if models else f"{module.name} has no model"
        help = "choose one: --model NAME, or --variant NAME" if models else "compile the file that states the model"
        raise EffspecError((Diagnostic("E0603", what, help=help),))
    return next(iter(models.values())), {}


def _start(module: Module, request: Request) -> tuple[Elaborator, Definition, dict[str, Given]]:
    """An elaborator, the model that is asked for, and what its variant and the settings give."""
    elaborator = Elaborator("")
    definition, given = choose(module, request, elaborator)
    seen: dict[str, Setting] = {}
    for setting in request.settings:
        if setting.name in seen and setting.span is not seen[setting.name].span:
            elaborator.fail(
                "E0604", f"{setting.name} is set twice", setting.span, "the second time",
                secondary=(Label(seen[setting.name].span, "the first time"),), help="keep one of them",
            )
        seen[setting.name] = setting
        value = setting.value
        if isinstance(value, nodes.Node):
            value = elaborator.evaluate(value, elaborator.file_frame(module))  # type: ignore[arg-type]
        given[setting.name] = Given(Bound(value), setting.span, "setting")
    return elaborator, definition, given


def header(module: Module, request: Request) -> dict[str, ParameterValue]:
    """The parameters of a requested point, without its body."""
    elaborator, definition, given = _start(module, request)
    node = definition.node
    assert isinstance(node, nodes.Model)
    instance = Instance(node, definition, "", None, None, ())
    return _parameter_values(elaborator.model_header(definition, given, instance, None, "", node.span)[1])


def _parameter_values(cells: Mapping[str, Cell]) -> dict[str, ParameterValue]:
    return {
        name: ParameterValue(
            cell.bound.value, cell.origin, cell.given or cell.span, frozenset(other.name for other in cell.reads)
        )
        for name, cell in cells.items()
        if cell.bound is not None
    }


def elaborate(module: Module, request: Request | None = None) -> Elaborated:
    """Lower the requested point of a loaded spec.  Raises EffspecError."""
    request = request or Request()
    elaborator, definition, given = _start(module, request)
    node = definition.node
    assert isinstance(node, nodes.Model)
    elaborator.graph = Graph(node.name.id)
    title = f"variant {request.variant}" if request.variant else node.name.id
    elaborator.trail = [title]
    elaborator.charge(1, elaborator.static_weight(definition), node.name.span)

    def expand(blocks: int | None) -> tuple[Frame, dict[str, Cell]]:
        instance = Instance(node, definition, "", None, None, ())
        instance.variant = request.variant
        return elaborator.expand_model(definition, given, instance, blocks, "", None, node.span)

    total = elaborator._count_blocks(node, lambda: expand(None))
    elaborator.steps = 0
    frame, cells = expand(total)
    if total is not None and frame.context.block != total:
        elaborator.fail(
            "E0513",
            f"the model counts {total} repeated lines first and {frame.context.block} then",
            node.name.span,
            help="a repeat count may not depend on at.blocks",
        )
    graph = elaborator.graph
    if not graph.outputs or all(output.training for output in graph.outputs):
        graph.outputs.append(Output("output", elaborator._tree(frame.it, node.span)))
    frame.instance.output = frame.it
    return Elaborated(
        graph.live(), module, node, frame.instance, _parameter_values(cells), frame.context.block, elaborator.preparation, request.variant
    )
