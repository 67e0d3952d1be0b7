"""Applies layers: operators to the graph, blocks in frames of their own; all of it is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from effspec.building import Builder
from effspec.diagnostics import Label, Span
from effspec.frames import MAX_NESTING, MAX_STEPS, Frame, Place, Scope
from effspec.ir.graph import Value
from effspec.ir.types import TensorType
from effspec.layers import Application, Bound, Instance, Layer, Tensor
from effspec.ops.base import Op, OpError, show
from effspec.ops.bind import infer
from effspec.params import ROOT_INIT
from effspec.resolve import Definition, Module
from effspec.syntax import nodes

ROOT_DEFAULTS: dict[str, Any] = {"pad": "half", "init": ROOT_INIT}


class Applier(Builder):
    """`Builder` with layers."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        self.stack: list[Layer] = []
        self.preparation: dict[str, dict[str, Any]] = {}
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
                total += 3  # about as many expressions are evaluated for each
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
        if entry.bound is not None and self.recording:
            return entry.bound
        owner = entry.frame
        saved = owner.scope, owner.at, owner.iteration, owner.defaults
        at = owner.context.at
        owner.scope, owner.at = entry.scope, at
        owner.iteration = at.iteration if at is not None else ()
        # A default's own right-hand side must not read itself.
        owner.defaults = {key: value for key, value in owner.defaults.items() if key != name}
        try:
            value = self.evaluate(entry.node.value, owner)
            bound = Bound(value, entry.node, owner.instance, owner.iteration, how="contextual")
            if entry.fixed and self.recording:
                entry.bound = bound
            return bound
        finally:
            owner.scope, owner.at, owner.iteration, owner.defaults = saved

    def apply(self, layer: Layer, value: Any, place: Place) -> Any:
        """The result of `value |> label: layer`, recorded at its place."""
        span, frame = place.span, place.frame
        self.step(span)
        if len(self.stack) >= MAX_NESTING:
            self.fail(
                "E0511",
                f"layers are applied more than {MAX_NESTING} deep",
                span,
                help="a layer comes to apply itself: `f(f)`, or a default that leads back",
            )
        if layer.weight > 1:
            self.charge(1, layer.weight, span)
        application = self.record(layer, value, place)
        self.stack.append(layer)
        owned = len(self.owners)
        try:
            if layer.inner is not None:
                result = self._apply_each(layer.inner, value, place)
            elif layer.op is not None:
                result = self._apply_operator(layer, value, place, application)
            else:
                result = self._apply_definition(layer, value, place, place.path, application)
        finally:
            self.stack.pop()
        if len(self.owners) > owned and not self.sharing and layer.inner is None:
            name = place.name
            if name in frame.labels:
                first = frame.labels[name]
                self.fail(
                    "E0208",
                    f"two layers have the same path `{place.path}`",
                    span,
                    "the second one",
                    secondary=(Label(first, "the first one"),) if first is not span else (),
                    help=f"write `{place.label[0]}[i]:` in a loop, or give one of them another label",
                )
            frame.labels[name] = span
        application.output = result
        return result

    def record(self, layer: Layer, value: Any, place: Place) -> Application:
        """The application of a layer, noted in the running body."""
        application = Application(layer, value, None, place.label, place.written)
        if self.recording:
            place.frame.instance.applied[place.site, place.iteration] = application
        return application

    def _apply_each(self, inner: Layer, value: Any, place: Place) -> Any:
        if not isinstance(value, tuple):
            self.fail("E0409", f"each needs a list of tensors, found {self.describe(value)}", place.span)
        out = []
        for index, element in enumerate(value):
            self.sharing += index > 0
            try:
                out.append(self.apply(inner, element, replace(place, iteration=(*place.iteration, index))))
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

    def _apply_operator(self, layer: Layer, value: Any, place: Place, application: Application) -> Any:
        op, site, path = layer.op, place.site, place.path
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
        for argument in op.filled:
            if argument.name not in given:
                if argument.contextual is None:
                    self.fail("E0304", f"{op.name} needs its argument `{argument.name}`", site.span)
                given[argument.name] = self.contextual(argument.contextual, place.frame, site.span).value
        try:
            attributes, results, owned = self.operator(op, given, types)
            if isinstance(transform, Layer) and not transform.is_identity:
                weight = self._transformed_weight(op, types, attributes, transform, place)
                tensors.append(weight)
                types.append(weight.type)
                results, owned = infer(op, types, attributes), op.tensors(types, attributes)
        except OpError as error:
            self.operator_error(error, layer, site, tensors, place.frame)
            raise AssertionError from error
        parameters = self.own_tensors(owned, path, site.span, place.iteration)
        made = self.add_node(op.name, path, tuple(t.value for t in tensors), attributes, results, site.span, parameters)
        application.nodes, application.attributes = (made.id,), attributes
        if op.name != "split":
            return Tensor(Value(made.id), results[0], site.span, place.label[0])
        return tuple(Tensor(Value(made.id, i), t, site.span, place.label[0]) for i, t in enumerate(results))

    def _transformed_weight(
        self, op: Op, types: list[TensorType], attributes: Mapping[str, Any], transform: Layer, place: Place
    ) -> Tensor:
        """The weight of a convolution after the layer given as `weight`; the layer's params lie beside it."""
        path, span = place.path, place.span
        own = op.tensors(types, attributes)["weight"]
        parameter = self.own_tensors({"": own}, f"{path}.weight", span, place.iteration)
        given = {"shape": own.shape, "init": own.init}
        node = self.add_node("parameter", f"{path}.weight", (), given, (TensorType(own.shape, False),), span, parameter)
        tensor = Tensor(Value(node.id), node.types[0], span, "weight")
        inner = replace(place.frame, prefix=path + ".", labels={})
        site = nodes.Step(span, None, nodes.Name(span, "weight"))
        if transform.definition is None:
            result = self.apply(transform, tensor, Place(inner, site, place.iteration, (transform.name, ())))
        else:
            beside = Place(inner, site, place.iteration, ("weight", ()))
            application = self.record(transform, tensor, beside)
            result = self._apply_definition(transform, tensor, beside, path, application)
            application.output = result
        if not isinstance(result, Tensor) or result.type.shape != own.shape:
            found = self.describe(result)
            self.fail("E0414", f"the weight's layer turns shape {show(own.shape)} into {found}", span)
        return result

    def _apply_definition(self, layer: Layer, value: Any, place: Place, path: str, application: Application) -> Any:
        """The result of a block or model, whose own layers lie below `path`."""
        definition = layer.definition
        assert definition is not None
        node = definition.node
        if isinstance(node, nodes.Model):
            return self._apply_model(layer, definition, value, place, application)
        assert isinstance(node, nodes.Block)
        frame, site = place.frame, place.site
        instance = self._new_instance(node, definition, path, place, application)
        instance.input = value
        scope = Scope()
        inner = Frame(
            definition.module, scope, instance, frame.context, frame.defaults, path + "." if path else "", value, value
        )
        if node.on:
            self._name_inputs(node, value, scope, site)
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
        return inner.it

    def _new_instance(
        self,
        node: nodes.Block | nodes.Model | nodes.Group,
        definition: Definition | None,
        path: str,
        place: Place,
        application: Application,
    ) -> Instance:
        parent = place.frame.instance
        instance = Instance(node, definition, path, parent, place.site, place.iteration, training=self.training)
        if self.recording:
            parent.children.append(instance)
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
        self, layer: Layer, definition: Definition, value: Any, place: Place, application: Application
    ) -> Any:
        raise NotImplementedError  # pragma: no cover - effspec.scaling


def _types(value: Any) -> Any:
    """The shapes of a tensor or list of tensors."""
    if isinstance(value, Tensor):
        return value.type
    return tuple(_types(element) for element in value) if isinstance(value, tuple) else value
