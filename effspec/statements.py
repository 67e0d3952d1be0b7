"""Runs the statements of bodies: lines and their repeats, loops, conditions, parameters and outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from effspec import values
from effspec.apply import Applier
from effspec.diagnostics import Span
from effspec.evaluate import IDENTITY
from effspec.frames import At, DefaultEntry, Frame, HookValue, Place, Scope
from effspec.ir.graph import Initializer, Output, Value
from effspec.ir.types import TensorType
from effspec.layers import Bound, Layer, Taps, Tensor
from effspec.names import written_name
from effspec.preparation import Unprepared, preparation
from effspec.syntax import nodes


class Statements(Applier):
    """`Applier` with bodies."""

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
            frame.it = self._apply_group(value, frame.it, self._place(line, frame))
        elif isinstance(value, Layer):
            layer = self._with_out(value, line, frame)
            frame.it = self.apply(layer, frame.it, self._place(line, frame))
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
        names, place = self.signature(layer) if layer.inner is None else ((), "")
        if "out" not in names:
            self.fail(
                "E0305",
                f"`-> C` gives `out`, which {layer.name} does not take",
                line.out.span,
                f"it takes {', '.join(names) or 'no arguments'} ({place})",
            )
        if (
            "out" in layer.bound
            and layer.bound["out"].instance is frame.instance
            and layer.bound["out"].node in getattr(line.value, "arguments", ())
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
        function = frame.scope.find(hook) if frame.is_model and not scaled.fixed else None
        if not isinstance(function, HookValue):
            return value
        if not values.is_number(value):
            self.fail("E0503", f"`{hook}` scales numbers, found {self.describe(value)}", scaled.value.span)
        parameters = function.node.parameters
        given = {parameters[0].name.id: value} if parameters else {}
        return self.run_fn(
            function,
            function.frame.module,
            Scope(function.frame.scope),
            function.frame.instance,
            frame.context,
            given,
            scaled.span,
        )

    def _run_repeats(self, line: nodes.Line, frame: Frame) -> None:
        assert line.repeats is not None
        count = self.repeats(line.repeats, frame)
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
                    block = frame.context.block
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

    def repeats(self, times: nodes.Scaled, frame: Frame) -> int:
        """How often a line is repeated."""
        written = self.integer(times.value, frame, "a repeat count")
        literal_zero = isinstance(times.value, nodes.Number) and written == 0
        count = self._scaled(times, "repeats", written, frame)
        if not isinstance(count, int):
            self.fail("E0502", f"a repeat count is an integer, the scaling gives {values.show(count)}", times.span)
        if count < 0 or literal_zero or (count == 0 and written > 0):
            found = f"{written} scaled to {count}" if count != written else str(count)
            self.fail("E0512", f"a line is repeated at least once, found {found}", times.span, help="delete the line")
        return count

    def _one_repeat(self, line: nodes.Line, frame: Frame, i: int, out: Bound | None) -> None:
        if isinstance(line.value, nodes.Group):
            frame.it = self._apply_group(line.value, frame.it, self._place(line, frame, i))
            return
        value = self.evaluate(line.value, frame)
        if not isinstance(value, Layer):
            self.fail("E0214", f"only a layer is repeated, found {self.describe(value)}", line.value.span)
        layer = self._with_out(value, line, frame, out)
        frame.it = self.apply(layer, frame.it, self._place(line, frame, i))

    def _place(self, site: nodes.Line | nodes.Step, frame: Frame, repeat: int | None = None) -> Place:
        """Where a line or step stands, with its label; without one it is called as the layer is written."""
        written = site.value if isinstance(site, nodes.Line) else site.layer
        if site.label is not None:
            indices = tuple(self.integer(index, frame, "a label's index") for index in site.label.indices)
            return Place(frame, site, frame.iteration, (site.label.name, indices), True, repeat)
        assert not isinstance(written, nodes.Group)
        return Place(frame, site, frame.iteration, (written_name(written), ()), False, repeat)

    def _apply_group(self, group: nodes.Group, start: Any, place: Place) -> Any:
        frame, path = place.frame, place.path
        application = self.record(IDENTITY, start, place)
        instance = self._new_instance(group, None, path, place, application)
        instance.input = start
        inner = Frame(
            frame.module,
            Scope(frame.scope),
            instance,
            frame.context,
            frame.defaults,
            path + ".",
            frame.input,
            start,
            at=frame.at,
            is_model=frame.is_model,
        )
        self.run_body(group.body, inner)
        instance.output = application.output = inner.it
        return inner.it

    def run_step(self, step: nodes.Step, value: Any, frame: Frame) -> Any:
        if isinstance(step.layer, nodes.Group):
            return self._apply_group(step.layer, value, self._place(step, frame))
        layer = self.evaluate(step.layer, frame)
        if not isinstance(layer, Layer):
            self.fail("E0503", f"`|>` applies a layer, found {self.describe(layer)}", step.layer.span)
        return self.apply(layer, value, self._place(step, frame))

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
        if not isinstance(shape, tuple) or not all(
            isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape
        ):
            self.fail("E0503", f"a param's shape is a list of sizes, found {values.show(shape)}", statement.shape.span)
        init: Any = 0 if statement.init is None else self.evaluate(statement.init, frame)
        if values.is_number(init):
            init = Initializer("constant", {"value": init})
        if not isinstance(init, Initializer):
            self.fail(
                "E0503", f"a param starts as a number or an initializer, found {self.describe(init)}", statement.span
            )
        path = frame.prefix + statement.name.id
        own = self.own_tensors({"": _Shaped(shape, init)}, path, statement.span, frame.iteration)
        attributes = {"shape": shape, "init": init}
        node = self.add_node("parameter", path, (), attributes, (TensorType(shape, False),), statement.span, own)
        tensor = Tensor(Value(node.id), node.types[0], statement.span, statement.name.id)
        if self.recording:
            frame.instance.values[statement, frame.iteration] = tensor
        self.bind_name(statement.name, tensor, frame)

    def _run_default(self, statement: nodes.Default, frame: Frame) -> None:
        if not frame.is_model:
            self.fail(
                "E0216", "`default` belongs into a model", statement.span, help="a block takes an argument instead"
            )
        entries = {
            entry.name.id: DefaultEntry(entry, frame, frame.scope, _is_fixed(entry.value))
            for entry in statement.entries
        }
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
            help = "give this one another name"
            self.fail("E0707", f"two outputs are called `{name}`", statement.name.span, help=help)
        if self.recording:
            frame.instance.values[statement, frame.iteration] = value
        if len(self.stack) == 0:
            self.graph.outputs.append(Output(name, self._tree(value, statement.span), statement.training))
        else:
            self.fail("E0707", "a model used as a layer gives its last value, not outputs", statement.span,
                      help="read its labelled lines: `x |> M().taps`")  # fmt: skip

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
        tensor = frame.scope.find(statement.input.id)
        assert isinstance(tensor, Tensor)
        try:
            preparation(given, tensor.type.shape)
        except Unprepared as wrong:
            named = {argument.name.id: argument.span for argument in statement.arguments if argument.name is not None}
            self.fail("E0514", wrong.message, named.get(wrong.argument, statement.input.span), help=wrong.help)
        # A model inside of another prepares what the outer one is given and says nothing about.
        source = self.graph[tensor.value.node]
        if source.op == "input" and (len(self.stack) == 0 or source.path not in self.preparation):
            self.preparation[source.path] = given


@dataclass(frozen=True)
class _Shaped:
    """What own_tensors needs to know of a `param`."""

    shape: tuple[int, ...]
    init: Initializer
    buffer: bool = False


_STATEMENTS: dict[type, Any] = {
    nodes.Line: Statements._run_line,
    nodes.Bind: Statements._run_bind,
    nodes.For: Statements._run_for,
    nodes.If: Statements._run_if,
    nodes.Param: Statements._run_param,
    nodes.Default: Statements._run_default,
    nodes.Output: Statements._run_output,
    nodes.Require: Statements._run_require,
    nodes.Yield: Statements._run_yield,
    nodes.Prepare: Statements._run_prepare,
}


def _is_fixed(node: nodes.Expr) -> bool:
    """Whether an expression has one value wherever it is evaluated in a scope."""
    return not any(isinstance(part, nodes.Name) and part.id in ("at", "it", "input") for part in nodes.descend(node))
