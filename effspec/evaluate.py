"""Expressions to values: names, exact numbers, lists, layers, and tensor arithmetic through the operator table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NoReturn

from effspec import values
from effspec.diagnostics import Diagnostic, EffspecError, Label, Source, Span, suggest
from effspec.frames import MAX_STEPS, Cell, FnValue, Frame, Given, HookValue, ModelContext, Scope
from effspec.layers import Bound, Instance, Layer, Namespace, Taps, Tensor
from effspec.names import HOOKS
from effspec.ops import OPS
from effspec.resolve import Definition, Module
from effspec.syntax import nodes

_ARITHMETIC: dict[str, tuple[Callable[[Any, Any], Any], str | None]] = {
    "+": (values.add, "add"),
    "-": (values.subtract, "sub"),
    "*": (values.multiply, "mul"),
    "/": (values.divide, "div"),
    "//": (values.floor_divide, None),
    "%": (values.modulo, None),
    "**": (values.power, "pow"),
}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_OPERATORS = {name: Layer({}, op=row) for name, row in OPS.items()}
IDENTITY = _OPERATORS["identity"]
IRRATIONAL = ("sqrt", "log", "exp")
IRRATIONAL_STEPS = 50
"""What fifty digits cost, beside a sum."""


def _unscaled(name: str) -> nodes.Hook:
    """`name(n) = n`."""
    span = Span(Source("", "n"), 0, 1)
    word = nodes.Identifier(span, "n")
    return nodes.Hook(span, nodes.Identifier(span, name), (nodes.Parameter(span, word, None),), nodes.Name(span, "n"))


_UNSCALED = {name: _unscaled(name) for name in HOOKS}


# What evaluates each kind of expression.
_METHODS: dict[type, str] = {
    nodes.Number: "_literal",
    nodes.Boolean: "_literal",
    nodes.String: "_literal",
    nodes.Name: "_name",
    nodes.DefaultRead: "_default_read",
    nodes.List: "_list",
    nodes.Comprehension: "_comprehension",
    nodes.Range: "_range",
    nodes.Call: "_call",
    nodes.Index: "_index",
    nodes.Attribute: "_attribute",
    nodes.Unary: "_unary",
    nodes.Binary: "_binary",
    nodes.Compare: "_compare",
    nodes.Logic: "_logic",
    nodes.Ternary: "_ternary",
    nodes.Pipe: "_pipe",
}


class Evaluator:
    """Evaluates expressions in a frame; subclasses apply layers."""

    _dispatch: ClassVar[dict[type, Callable[[Any, Any, Frame], Any]]]

    def __init__(self) -> None:
        self.steps = 0
        self.trail: list[str] = []
        self.several = False
        self.recording = True
        self.readers: list[Cell | None] = []
        self._constants: dict[nodes.Constant, Any] = {}

    def __init_subclass__(cls) -> None:
        cls._dispatch = {kind: getattr(cls, name) for kind, name in _METHODS.items()}

    def fail(
        self,
        code: str,
        message: str,
        span: Span | None,
        text: str = "",
        *,
        secondary: tuple[Label, ...] = (),
        notes: tuple[str, ...] = (),
        help: str | None = None,
    ) -> NoReturn:
        """Raise one diagnostic that shows the chain of lines that led here, and where its values were given."""
        primary = Label(span, text) if span is not None else None
        trail = tuple(self.trail) if len(self.trail) > 1 or self.several else ()
        if span is not None:
            secondary += self.origins(span, secondary)
        raise EffspecError((Diagnostic(code, message, primary, secondary, notes, help, trail),))

    def origins(self, span: Span, shown: tuple[Label, ...]) -> tuple[Label, ...]:
        """Where the values that an error is about were given."""
        return ()

    def no_value(self, problem: values.ValueProblem, span: Span) -> NoReturn:
        """Give a failed computation the place where it stands."""
        self.fail(problem.code, problem.message, span, help=problem.help)

    def charge(self, count: int, weight: int, span: Span) -> None:
        """Refuse what would be too much before any of it is expanded."""
        if self.steps + count * weight > MAX_STEPS:
            repeats = f"{count:,} repeats of {weight:,} step{'s' * (weight != 1)}"
            self.fail(
                "E0504",
                f"too large: {repeats if count != 1 else 'more steps than a spec may take'}",
                span,
                f"the budget is {MAX_STEPS:,} steps, {self.steps:,} are used",
                help="repeat it fewer times; a scaling coefficient may be far too large",
            )

    def step(self, span: Span, count: int = 1) -> None:
        """Note work that is done: an expression, a statement, an element of a list."""
        self.steps += count
        if self.steps > MAX_STEPS:
            self.charge(1, 1, span)

    def elements(self, value: Any, span: Span) -> Any:
        """A list that was made, or is gone through: its elements are work."""
        if isinstance(value, tuple):
            self.step(span, len(value))
        return value

    def evaluate(self, node: nodes.Expr, frame: Frame) -> Any:
        """The value of an expression; recorded under (node, iteration)."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            self.charge(1, 1, node.span)
        value = self._dispatch[type(node)](self, node, frame)
        if self.recording:
            frame.instance.values[node, frame.iteration] = value
        return value

    def number(self, node: nodes.Expr, frame: Frame, what: str) -> Any:
        value = self.evaluate(node, frame)
        if not values.is_number(value):
            self.fail("E0503", f"{what} is a number, found {self.describe(value)}", node.span)
        return value

    def integer(self, node: nodes.Expr, frame: Frame, what: str, least: int = 0) -> int:
        value = self.evaluate(node, frame)
        if not isinstance(value, int) or isinstance(value, bool):
            help = "round it: floor(...), ceil(...) or round(...)" if values.is_number(value) else None
            self.fail("E0502", f"{what} is an integer, found {self.describe(value)}", node.span, help=help)
        if value < least:
            self.fail("E0502", f"{what} is at least {least}, found {value}", node.span)
        return value

    def boolean(self, node: nodes.Expr, frame: Frame, what: str) -> bool:
        value = self.evaluate(node, frame)
        if not isinstance(value, bool):
            self.fail(
                "E0503",
                f"{what} is true or false, found {self.describe(value)}",
                node.span,
                help="compare it (`n > 0`), or give true or false" if values.is_number(value) else None,
            )
        return value

    def describe(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return f"a tensor of shape {value.type}"
        return values.describe(value)

    def _literal(self, node: nodes.Number | nodes.Boolean | nodes.String, frame: Frame) -> Any:
        return node.value

    def _name(self, node: nodes.Name, frame: Frame) -> Any:
        name = node.id
        if name == "it":
            return frame.it
        if name == "input":
            return frame.input
        value = frame.scope.find(name)
        if value is None and name in HOOKS and frame.is_model and name not in frame.module.bound_at:
            return self.unscaled(name, frame)
        if value is None:
            return self.file_name(name, frame.module, node.span)
        return self.read(value) if isinstance(value, Cell) else value

    def unscaled(self, name: str, frame: Frame) -> HookValue:
        """A hook that the model calls and its rules lack: it changes nothing."""
        return HookValue(_UNSCALED[name], self.file_frame(frame.module))

    def read(self, cell: Cell) -> Any:
        """A model parameter's value; evaluates its default on first use and notes who read it."""
        if self.readers and (reader := self.readers[-1]) is not None:
            reader.reads[cell] = None
        if cell.bound is None:
            compute, cell.compute = cell.compute, None
            if compute is None:
                self.fail("E0206", f"{cell.name} depends on itself", cell.span)
            self.readers.append(cell)
            try:
                cell.bound = compute()
            finally:
                self.readers.pop()
        return cell.bound.value

    def file_name(self, name: str, module: Module, span: Span) -> Any:
        """A file-level or predeclared name."""
        definition = module.definitions.get(name)
        if definition is not None:
            return self.defined(definition)
        if name in module.namespaces:
            return Namespace(module.namespaces[name])
        if name in OPS and OPS[name].callable:
            return _OPERATORS[name]
        known = [*module.definitions, *module.namespaces, *OPS, *values.FUNCTIONS]
        # Names of files have been resolved: this one stands in a setting.
        yes = {"yes": "true", "on": "true", "True": "true", "no": "false", "off": "false", "False": "false"}.get(name)
        near = f"write {yes}" if yes else None if name in ("nan", "inf") else suggest(name, known)
        quoted = "a number is finite" if name in ("nan", "inf") else f"a text stands in quotes: 'NAME=\"{name}\"'"
        self.fail("E0201", f"unknown name `{name}`", span, help=near or quoted)

    def defined(self, definition: Definition) -> Any:
        node = definition.node
        if isinstance(node, nodes.Constant):
            if node not in self._constants:
                frame = self.file_frame(definition.module)
                self._constants[node] = self.evaluate(node.value, frame)
            return self._constants[node]
        if isinstance(node, nodes.Fn):
            return FnValue(definition)
        bound = {name: given.bound for name, given in self.inherited(definition).items()}
        return Layer(bound, definition=definition, weight=self.static_weight(definition))

    def inherited(self, definition: Definition) -> dict[str, Given]:
        raise NotImplementedError  # pragma: no cover - effspec.scaling

    def file_frame(self, module: Module) -> Frame:
        """A frame in which only file-level names are visible."""
        instance = Instance(
            nodes.Group(module.file.span, nodes.Body(module.file.span, None, ())), None, "", None, None, ()
        )
        return Frame(module, Scope(), instance, ModelContext(0))

    def static_weight(self, definition: Definition) -> int:
        raise NotImplementedError  # pragma: no cover - the elaborator knows it

    def _default_read(self, node: nodes.DefaultRead, frame: Frame) -> Any:
        return self.contextual(node.name, frame, node.span).value

    def contextual(self, name: str, frame: Frame, span: Span) -> Bound:
        raise NotImplementedError  # pragma: no cover - the elaborator knows it

    def _list(self, node: nodes.List, frame: Frame) -> Any:
        try:
            return values.checked_list(tuple([self.evaluate(item, frame) for item in node.items]))
        except values.ValueProblem as problem:
            self.no_value(problem, node.span)

    def _range(self, node: nodes.Range, frame: Frame) -> Any:
        assert node.start is not None and node.stop is not None
        start, stop = self.evaluate(node.start, frame), self.evaluate(node.stop, frame)
        try:
            return self.elements(values.make_range(start, stop, node.inclusive), node.span)
        except values.ValueProblem as problem:
            self.no_value(problem, node.span)

    def iterate(
        self, targets: tuple[nodes.Identifier, ...], iterable: nodes.Expr, weight: int, frame: Frame
    ) -> Iterator[None]:
        """Run the loop's body once for each element, in a scope of its own."""
        elements = self.evaluate(iterable, frame)
        if not isinstance(elements, tuple):
            self.fail("E0503", f"a loop runs over a list, found {self.describe(elements)}", iterable.span)
        self.charge(len(elements), weight, iterable.span)
        outer_scope, outer_iteration = frame.scope, frame.iteration
        try:
            for index, element in enumerate(elements):
                frame.scope = Scope(outer_scope)
                frame.iteration = (*outer_iteration, index)
                self.step(iterable.span)
                self.bind(targets, element, frame, iterable.span)
                yield
        finally:
            frame.scope, frame.iteration = outer_scope, outer_iteration

    def bind(self, targets: tuple[nodes.Identifier, ...], value: Any, frame: Frame, span: Span) -> None:
        """`a = value`, or one name for each element."""
        if len(targets) == 1:
            self.bind_name(targets[0], value, frame)
            return
        if not isinstance(value, tuple) or len(value) != len(targets):
            names = ", ".join(target.id for target in targets)
            help = "apply it: `a, b = it |> split(2)`" if isinstance(value, Layer) else None
            self.fail("E0506", f"`{names}` needs {len(targets)} values, found {self.describe(value)}", span, help=help)
        for target, element in zip(targets, value, strict=True):
            self.bind_name(target, element, frame)

    def bind_name(self, target: nodes.Identifier, value: Any, frame: Frame) -> None:
        if target.id != "_":
            frame.scope.names[target.id] = value
        if self.recording:
            frame.instance.values[target, frame.iteration] = value

    def _comprehension(self, node: nodes.Comprehension, frame: Frame) -> Any:
        out = []
        for _ in self.iterate(node.targets, node.iterable, self.weight(node.element, frame), frame):
            out.append(self.evaluate(node.element, frame))
        return tuple(out)

    def weight(self, node: nodes.Node, frame: Frame) -> int:
        raise NotImplementedError  # pragma: no cover - the elaborator knows it

    def _index(self, node: nodes.Index, frame: Frame) -> Any:
        value = self.evaluate(node.value, frame)
        if isinstance(value, Taps):
            index = self.evaluate(node.index, frame)
            return self._tap(value, index, node.span)
        if not isinstance(value, tuple):
            self.fail("E0503", f"only a list is indexed, found {self.describe(value)}", node.value.span)
        if isinstance(node.index, nodes.Range):
            return self._slice(value, node.index, frame)
        index = self.integer(node.index, frame, "an index", least=-len(value))
        if index >= len(value):
            self.fail(
                "E0507",
                f"index {index} is past the end of a list of {len(value)}",
                node.index.span,
                help=f"indices run from 0 to {len(value) - 1}, or from -{len(value)} to -1" if value else "it is empty",
            )
        return value[index]

    def _slice(self, value: tuple[Any, ...], index: nodes.Range, frame: Frame) -> tuple[Any, ...]:
        size = len(value)
        ends = []
        for end, missing in ((index.start, 0), (index.stop, size - index.inclusive)):
            place = missing if end is None else self.integer(end, frame, "an end of a slice", least=-size)
            ends.append(place + size if place < 0 else place)
        start, stop = ends[0], ends[1] + index.inclusive
        if start > size or stop > size:
            self.fail("E0507", f"the slice ends at {max(start, stop)}, the list has {size} elements", index.span)
        part = value[start : max(stop, start)]
        self.step(index.span, len(part))
        return part

    def _attribute(self, node: nodes.Attribute, frame: Frame) -> Any:
        name = node.name.id
        if isinstance(node.value, nodes.Name) and node.value.id == "at":
            return self._at(node, frame)
        value = self.evaluate(node.value, frame)
        if isinstance(value, Tensor):
            return self._tensor_attribute(value, node)
        if isinstance(value, Taps):
            return self._tap(value, name, node.name.span)
        if isinstance(value, Namespace):
            module = value.module
            if name in module.variants:
                return self.variant_layer(name, module, node.span)
            if name in module.definitions:
                return self.defined(module.definitions[name])
            known = [*module.definitions, *module.variants]
            self.fail("E0201", f"{module.name} has no `{name}`", node.name.span, help=suggest(name, known))
        if isinstance(value, Layer) and name == "taps":
            if value.definition is None or not isinstance(value.definition.node, nodes.Model):
                self.fail("E0508", f"only a model has taps, found {value}", node.span)
            return Layer(
                value.bound, definition=value.definition, taps=True, variant=value.variant, weight=value.weight
            )
        self.fail(
            "E0508",
            f"{self.describe(value)} has no attribute `{name}`",
            node.name.span,
            help="a list's elements are read as `xs[0]`, its length as `len(xs)`" if isinstance(value, tuple) else None,
        )

    def _tensor_attribute(self, tensor: Tensor, node: nodes.Attribute) -> Any:
        shape, name = tensor.type.shape, node.name.id
        if name == "shape":
            return shape
        if name == "rank":
            return len(shape)
        axes = {"channels": 0, "height": 1, "width": 2}
        if name not in axes:
            known = ["shape", "rank", *axes]
            self.fail(
                "E0508",
                f"a tensor has no attribute `{name}`",
                node.name.span,
                f"it has {', '.join(known)}",
                help=suggest(name, known),
            )
        if axes[name] >= len(shape) or (name != "channels" and len(shape) != 3):
            self.fail("E0508", f"a tensor of shape {tensor.type} has no {name}", node.name.span)
        return shape[axes[name]]

    def _tap(self, taps: Taps, name: Any, span: Span) -> Any:
        if name not in taps.entries:
            known = ", ".join(map(str, taps.entries))
            self.fail("E0509", f"no tap `{name}`", span, f"there are {known}", help=suggest(str(name), taps.entries))
        return taps.entries[name]

    def _at(self, node: nodes.Attribute, frame: Frame) -> Any:
        at, name = frame.at, node.name.id
        if at is None:
            self.fail(
                "E0210",
                f"`at.{name}` is read where no line is repeated",
                node.span,
                help="give the line `x 1` (or more)",
            )
        if name in ("i", "n"):
            return at.i if name == "i" else at.n
        if name not in ("block", "blocks"):
            self.fail("E0508", f"`at` has no `{name}`", node.span, "it has i, n, block, blocks")
        if at.block is None:
            self.fail(
                "E0210", f"`at.{name}` counts the lines of a model", node.span, help="a block's line has at.i and at.n"
            )
        if name == "block":
            return at.block
        # While the lines are still being counted any large number will do: rates stay below 1.
        return frame.context.blocks if frame.context.blocks is not None else MAX_STEPS

    def _unary(self, node: nodes.Unary, frame: Frame) -> Any:
        if node.op == "not":
            return not self.boolean(node.operand, frame, "the operand of `not`")
        value = self.evaluate(node.operand, frame)
        if isinstance(value, Tensor):
            return self.arithmetic("mul", [value], {"scalar": -1, "scalar_left": False}, node, frame)
        if not values.is_number(value):
            self.fail("E0503", f"`-` needs a number, found {self.describe(value)}", node.operand.span)
        return values.number(-value)

    def _binary(self, node: nodes.Binary, frame: Frame) -> Any:
        left, right = self.evaluate(node.left, frame), self.evaluate(node.right, frame)
        compute, op = _ARITHMETIC[node.op]
        if values.is_number(left) and values.is_number(right):
            if node.op == "**" and not isinstance(right, int):
                self.step(node.span, IRRATIONAL_STEPS)
            try:
                return compute(left, right)
            except values.ValueProblem as problem:
                self.no_value(problem, node.span)
        tensors = isinstance(left, Tensor), isinstance(right, Tensor)
        if any(tensors) and op is not None:
            if all(tensors):
                return self.arithmetic(op, [left, right], {}, node, frame)
            scalar, tensor = (right, left) if tensors[0] else (left, right)
            if values.is_number(scalar):
                return self.arithmetic(op, [tensor], {"scalar": scalar, "scalar_left": tensors[1]}, node, frame)
        if node.op == "+" and isinstance(left, tuple) and isinstance(right, tuple):
            try:
                return self.elements(values.checked_list(left + right), node.span)
            except values.ValueProblem as problem:
                self.no_value(problem, node.span)
        wrong, side = (left, node.left) if not (values.is_number(left) or tensors[0]) else (right, node.right)
        help = None
        if isinstance(wrong, Layer):
            help = "apply it first: `x |> layer`"
        elif isinstance(wrong, tuple) and any(tensors):
            help = "a list of tensors is added by `xs |> add()`"
        elif isinstance(wrong, str):
            help = "a number stands without quotes"
        self.fail(
            "E0503",
            f"`{node.op}` needs numbers{' or tensors' if op else ''}, found {self.describe(wrong)}",
            side.span,
            help=help,
        )

    def arithmetic(
        self, op: str, tensors: list[Tensor], attributes: dict[str, Any], node: nodes.Expr, frame: Frame
    ) -> Tensor:
        raise NotImplementedError  # pragma: no cover - the elaborator knows the graph

    def _compare(self, node: nodes.Compare, frame: Frame) -> bool:
        left = self.evaluate(node.left, frame)
        if node.op == "in":
            return self._contains(left, node, frame)
        right = self.evaluate(node.right, frame)
        if node.op in ("==", "!="):
            return self._equal(left, right, node) == (node.op == "==")
        for value, side in ((left, node.left), (right, node.right)):
            if not values.is_number(value):
                self.fail("E0503", f"`{node.op}` compares numbers, found {self.describe(value)}", side.span)
        return _ORDER[node.op](left, right)

    def _equal(self, left: Any, right: Any, node: nodes.Compare) -> bool:
        if isinstance(left, Layer) or isinstance(right, Layer):
            if isinstance(left, Layer) and isinstance(right, Layer) and (left.is_identity or right.is_identity):
                return left.is_identity and right.is_identity
            self.fail("E0503", "layers are not compared", node.span, help="only `== identity` is defined for layers")
        if isinstance(left, Tensor) or isinstance(right, Tensor):
            self.fail(
                "E0503", "tensors are not compared", node.span, help="compare what is known: `x.shape == y.shape`"
            )
        if type(left) is not type(right) and not (values.is_number(left) and values.is_number(right)):
            self.fail(
                "E0503",
                f"{self.describe(left)} and {self.describe(right)} are never equal",
                node.span,
                help="compare values of one kind",
            )
        return bool(left == right)

    def _contains(self, left: Any, node: nodes.Compare, frame: Frame) -> bool:
        if isinstance(node.right, nodes.Range) and node.right.start is not None and node.right.stop is not None:
            # After `in` a range is an interval of numbers, not a list.
            low, high = self.number(node.right.start, frame, "an end"), self.number(node.right.stop, frame, "an end")
            if not values.is_number(left):
                self.fail("E0503", f"an interval holds numbers, found {self.describe(left)}", node.left.span)
            return bool(low <= left and (left <= high if node.right.inclusive else left < high))
        right = self.evaluate(node.right, frame)
        if not isinstance(right, tuple):
            self.fail("E0503", f"`in` needs a list or an interval, found {self.describe(right)}", node.right.span)
        self.elements(right, node.span)
        return any(type(left) is type(element) and left == element for element in right)

    def _logic(self, node: nodes.Logic, frame: Frame) -> bool:
        left = self.boolean(node.left, frame, f"the left side of `{node.op}`")
        if left == (node.op == "or"):
            return left
        return self.boolean(node.right, frame, f"the right side of `{node.op}`")

    def _ternary(self, node: nodes.Ternary, frame: Frame) -> Any:
        condition = self.boolean(node.condition, frame, "the condition")
        return self.evaluate(node.chosen if condition else node.otherwise, frame)

    def _call(self, node: nodes.Call, frame: Frame) -> Any:
        raise NotImplementedError  # pragma: no cover - effspec.calls

    def _pipe(self, node: nodes.Pipe, frame: Frame) -> Any:
        raise NotImplementedError  # pragma: no cover - effspec.calls

    def variant_layer(self, name: str, module: Module, span: Span) -> Layer:
        raise NotImplementedError  # pragma: no cover - effspec.scaling
