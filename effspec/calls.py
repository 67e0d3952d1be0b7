"""Calls: arguments are bound to layers, functions and hooks are run, conditions are checked."""

from __future__ import annotations

from typing import Any

from effspec import values
from effspec.diagnostics import EffspecError, Span, suggest
from effspec.evaluate import IRRATIONAL, IRRATIONAL_STEPS, Evaluator
from effspec.frames import MAX_STEPS, FnValue, Frame, HookValue, ModelContext, Scope
from effspec.ir.graph import Initializer
from effspec.layers import Bound, Instance, Layer, Tensor
from effspec.ops.base import OpError
from effspec.params import INITIALIZERS, initializer
from effspec.resolve import Module
from effspec.signatures import meant, rules_of
from effspec.syntax import nodes


class Calls(Evaluator):
    """`Evaluator` with what a call means."""

    def __init__(self) -> None:
        super().__init__()
        self._signatures: dict[Any, tuple[tuple[str, ...], str]] = {}

    def _call(self, node: nodes.Call, frame: Frame) -> Any:
        self.step(node.span)
        if isinstance(node.function, nodes.Name) and frame.scope.find(node.function.id) is None:
            name = node.function.id
            if name not in frame.module.definitions:
                if name in values.FUNCTIONS:
                    return self._builtin(name, node, frame)
                if name in INITIALIZERS:
                    return self._initializer(name, node, frame)
                if name == "each":
                    return self._each(node, frame)
        function = self.evaluate(node.function, frame)
        if isinstance(function, Layer):
            return self._bind_arguments(function, node, frame)
        if isinstance(function, FnValue | HookValue):
            return self._call_fn(function, node, frame)
        self.fail(
            "E0503",
            f"only a layer or a function is called, found {self.describe(function)}",
            node.function.span,
            help="a tensor flows by `|>`" if isinstance(function, Tensor) else None,
        )

    def _positional(self, node: nodes.Call, what: str) -> list[nodes.Expr]:
        for argument in node.arguments:
            if argument.name is not None:
                self.fail("E0303", f"{what} takes its arguments by position", argument.span, help="delete the name")
            if argument.then is not None:
                self.fail("E0211", "`then` belongs to a layer's argument", argument.span)
        return [argument.value for argument in node.arguments]

    def _builtin(self, name: str, node: nodes.Call, frame: Frame) -> Any:
        arguments = []
        for expression in self._positional(node, name):
            argument = self.evaluate(expression, frame)
            if isinstance(argument, Tensor):
                self.fail(
                    "E0503",
                    f"{name} computes with numbers, found {self.describe(argument)}",
                    expression.span,
                    help="reductions of tensors are layers: `x |> reduce_max(axes = [0])`"
                    if name in ("min", "max", "sum")
                    else None,
                )
            arguments.append(self.elements(argument, expression.span))
        if name in IRRATIONAL:
            self.step(node.span, IRRATIONAL_STEPS)
        try:
            return values.call(name, arguments)
        except values.ValueProblem as problem:
            self.no_value(problem, node.span)

    def _initializer(self, name: str, node: nodes.Call, frame: Frame) -> Initializer:
        names = [argument.name for argument in INITIALIZERS[name]]
        given: dict[str, Any] = {}
        for position, argument in enumerate(node.arguments):
            word = argument.name.id if argument.name else (names[position] if position < len(names) else "")
            if word in given:
                self.fail("E0302", f"{word} is given twice", argument.span)
            if word not in names:
                known = ", ".join(names)
                self.fail(
                    "E0301",
                    f"unknown argument of {name}",
                    argument.span,
                    f"it takes {known}",
                    help=suggest(word, names),
                )
            given[word] = self.evaluate(argument.value, frame)
        try:
            return initializer(name, given)
        except OpError as error:
            self.fail(error.code, error.message, node.span, help=error.help)

    def _each(self, node: nodes.Call, frame: Frame) -> Layer:
        arguments = self._positional(node, "each")
        if len(arguments) != 1:
            self.fail("E0303", f"each takes one layer, found {len(arguments)} arguments", node.span)
        layer = self.evaluate(arguments[0], frame)
        if not isinstance(layer, Layer):
            self.fail("E0503", f"each takes a layer, found {self.describe(layer)}", arguments[0].span)
        return Layer({}, inner=layer, weight=layer.weight)

    def signature(self, layer: Layer) -> tuple[tuple[str, ...], str]:
        """The names of a layer's parameters, and where they are declared (for messages)."""
        definition = layer.op.name if layer.op is not None else layer.definition
        if definition not in self._signatures:
            self._signatures[definition] = _signature(layer)
        return self._signatures[definition]

    def _bind_arguments(self, layer: Layer, node: nodes.Call, frame: Frame) -> Layer:
        if layer.inner is not None:
            self.fail("E0303", "each(...) takes no further arguments", node.span, help="give them to the layer inside")
        names, place = self.signature(layer)
        bound = {**layer.bound}
        given: set[str] = set()
        instance, iteration = frame.instance, frame.iteration
        weight = layer.weight
        for position, argument in enumerate(node.arguments):
            if argument.name is None:
                if position >= len(names):
                    self.fail(
                        "E0303",
                        f"{layer.name} takes {len(names)} arguments, found {len(node.arguments)}",
                        argument.span,
                        f"it takes {', '.join(names) or 'none'} ({place})",
                    )
                name = names[position]
            else:
                name = argument.name.id
                if name not in names:
                    self.fail(
                        "E0301",
                        f"unknown argument `{name}` of {layer.name}",
                        argument.name.span,
                        f"{layer.name} takes {', '.join(names) or 'no arguments'} ({place})",
                        help=meant(name, names),
                    )
            if name in given:
                self.fail("E0302", f"{name} is given twice", argument.span)
            given.add(name)
            expression = argument.value
            if argument.then is not None:
                if frame.at is None:
                    self.fail(
                        "E0211", "`then` is written on a line that is not repeated", argument.span, help="add `x N`"
                    )
                expression = argument.value if frame.at.i == 0 else argument.then
            value = self.evaluate(expression, frame)
            if isinstance(value, Tensor) or (isinstance(value, tuple) and any(isinstance(v, Tensor) for v in value)):
                self.fail(
                    "E0503", "a tensor is not an argument", argument.span, help="tensors flow by `|>`: `[x, y] |> f()`"
                )
            if isinstance(value, Layer):
                weight += value.weight * self.uses(layer, name)
            bound[name] = Bound(value, argument, instance, iteration)
        weight = min(weight, 10 * MAX_STEPS)
        return Layer(bound, layer.op, layer.definition, None, layer.taps, layer.variant, weight)

    def uses(self, layer: Layer, parameter: str) -> int:
        """How often a block names a parameter in its body: what a layer given for it multiplies."""
        raise NotImplementedError  # pragma: no cover - the elaborator knows it

    def variant_layer(self, name: str, module: Module, span: Span) -> Layer:
        raise NotImplementedError  # pragma: no cover - the elaborator knows it

    def _call_fn(self, function: FnValue | HookValue, node: nodes.Call, frame: Frame) -> Any:
        if isinstance(function, HookValue):
            parameters, name = function.node.parameters, function.node.name.id
            inner = Scope(function.frame.scope)
            module, instance = function.frame.module, function.frame.instance
        else:
            definition = function.definition
            assert isinstance(definition.node, nodes.Fn)
            parameters, name = definition.node.parameters, definition.node.name.id
            inner, module = Scope(), definition.module
            instance = frame.instance
        names = [parameter.name.id for parameter in parameters]
        given: dict[str, Any] = {}
        for position, argument in enumerate(node.arguments):
            if argument.then is not None:
                self.fail("E0211", "`then` belongs to a layer's argument", argument.span)
            word = argument.name.id if argument.name else (names[position] if position < len(names) else None)
            if word is None:
                self.fail("E0303", f"{name} takes {len(names)} arguments, found {len(node.arguments)}", argument.span)
            if word not in names:
                self.fail(
                    "E0301",
                    f"unknown argument `{word}` of {name}",
                    argument.span,
                    f"{name} takes {', '.join(names)}",
                    help=suggest(word, names),
                )
            if word in given:
                self.fail("E0302", f"{word} is given twice", argument.span)
            given[word] = self.evaluate(argument.value, frame)
        return self.run_fn(function, module, inner, instance, frame.context, given, node.span)

    def run_fn(
        self,
        function: FnValue | HookValue,
        module: Module,
        scope: Scope,
        instance: Instance,
        context: ModelContext,
        given: dict[str, Any],
        span: Span,
    ) -> Any:
        """The value of a fn or hook.  What happens inside is not recorded: a call is one value."""
        node: Any = function.node if isinstance(function, HookValue) else function.definition.node
        inner = Frame(module, scope, instance, context)
        recording, self.recording = self.recording, False
        self.trail.append(node.name.id)
        try:
            for parameter in node.parameters:
                name = parameter.name.id
                if name in given:
                    scope.names[name] = given[name]
                elif parameter.default is not None:
                    scope.names[name] = self.evaluate(parameter.default, inner)
                else:
                    self.fail("E0304", f"{node.name.id} needs its argument `{name}`", span)
            for statement in getattr(node, "statements", ()):
                if isinstance(statement, nodes.Require):
                    self.require(statement, inner)
                else:
                    self.bind(statement.targets, self.evaluate(statement.value, inner), inner, statement.span)
            return self.evaluate(node.result, inner)
        finally:
            self.recording = recording
            self.trail.pop()

    def require(self, node: nodes.Require, frame: Frame) -> None:
        """Check a condition; a failure reports the values in it."""
        self.readers.append(None)  # a condition that reads a parameter does not make the parameter matter
        try:
            holds = self.boolean(node.condition, frame, "a condition")
            if holds:
                return
            notes = []
            shown: set[str] = set()
            for part in nodes.descend(node.condition):
                text = part.span.text
                if isinstance(part, nodes.Name | nodes.Attribute | nodes.Call | nodes.Index) and text not in shown:
                    try:
                        value = self.evaluate(part, frame)
                    except EffspecError:
                        continue
                    if isinstance(value, int | str | tuple) or values.is_number(value):
                        shown.add(text)
                        notes.append(f"{text} is {values.show(value)}")
            message = node.message.value if isinstance(node.message, nodes.String) else None
            self.fail(
                "E0510",
                f"requirement failed: {message or node.condition.span.text}",
                node.condition.span,
                notes=tuple(notes),
            )
        finally:
            self.readers.pop()

    def _pipe(self, node: nodes.Pipe, frame: Frame) -> Any:
        value = self.evaluate(node.source, frame)
        for step in node.steps:
            value = self.run_step(step, value, frame)
        return value

    def run_step(self, step: nodes.Step, value: Any, frame: Frame) -> Any:
        raise NotImplementedError  # pragma: no cover - the elaborator applies layers


def _signature(layer: Layer) -> tuple[tuple[str, ...], str]:
    if layer.op is not None:
        return tuple(argument.name for argument in layer.op.arguments), "an operator"
    assert layer.definition is not None
    node = layer.definition.node
    assert isinstance(node, nodes.Block | nodes.Model)
    names = [parameter.name.id for parameter in node.parameters]
    if isinstance(node, nodes.Model):
        names += [parameter.name.id for rule in rules_of(layer.definition) for parameter in rule.node.parameters]
    return tuple(names), node.span.place
