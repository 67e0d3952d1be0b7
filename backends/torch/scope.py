"""Numbers of one class: which become literals, arguments or locals of its `__init__`, and how they are written.

Everything is decided on columns: the value of an expression at each (instance, iteration) where it ran.  A Python
expression is believed only after it has been evaluated on every entry of the column and gave the same values.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from effspec.backends.torch import build
from effspec.backends.torch.operators import ACTIVATIONS
from effspec.layers import Bound, Instance, Iteration, Layer, Tensor, key
from effspec.syntax import nodes

Entry: TypeAlias = tuple[Instance, Iteration]
Column: TypeAlias = dict[Entry, Any]

PYTHON_NAMES = {
    "k": "kernel_size",
    "s": "stride",
    "out": "out_channels",
    "pad": "padding",
    "dil": "dilation",
}
# What an argument that no definition names is worth where torch has a default for it.
_TORCH_DEFAULTS = {"padding": 0, "stride": 1, "dilation": 1, "groups": 1}
_ROUNDING = {"round", "floor", "ceil", "round_half_up"}
_MISSING = object()


class Untranslatable(Exception):
    """This text of the spec has no Python text here; the caller falls back."""


class Split(Exception):
    """The instances do different things here: the class has to be divided by this value."""

    def __init__(self, values: Mapping[Instance, Any]) -> None:
        super().__init__("split")
        self.values = values


@dataclass(eq=False)
class Argument:
    """An argument of `__init__`: its value in each instance, and the default of the definition, if it is a literal."""

    key: str
    name: str
    column: dict[Instance, Any]
    default: Any = _MISSING
    annotation: str = "int"

    @property
    def required(self) -> bool:
        return self.default is _MISSING


@dataclass(eq=False)
class Loop:
    """A loop of the body while it is translated: symbolic (its variables exist in Python) or at one fixed index."""

    node: nodes.Node
    index: int | None
    names: dict[str, ast.expr] = field(default_factory=dict)


def constant_of(column: Column) -> Any:
    """The value that all entries share, or None as (False, None)."""
    iterator = iter(column.values())
    first = next(iterator)
    wanted = key(first)
    return (True, first) if all(key(value) == wanted for value in iterator) else (False, None)


def annotation_of(values: Iterable[Any]) -> str:
    """The type of an argument with these values."""
    kinds: list[str] = []
    for value in values:
        if isinstance(value, build.ModuleClass):
            if "Callable[[], nn.Module]" not in kinds:
                kinds.append("Callable[[], nn.Module]")
            continue
        value = build.python(value)
        if isinstance(value, list):
            inner = (
                annotation_of([tuple(v) if isinstance(v, list) and len(v) == 2 else v for v in value])
                if value
                else "int"
            )
            kind = f"list[{inner}]"
        elif isinstance(value, tuple):
            kind = f"tuple[{', '.join(annotation_of([v]) for v in value)}]"
        else:
            kind = type(value).__name__
        if kind not in kinds:
            kinds.append(kind)
    if "int" in kinds and "list[int]" in kinds and len(kinds) == 2:
        return "int | tuple[int, int]"
    if "float" in kinds and "int" in kinds:
        kinds.remove("int")
    if len(kinds) > 1 and all(k.startswith("list[") for k in kinds):
        members: list[str] = []
        for kind in kinds:
            members += [m for m in kind[5:-1].split(" | ") if m not in members]
        return f"list[{' | '.join(sorted(members))}]"
    return " | ".join(sorted(kinds))


class Scope:
    """The `__init__` of one class."""

    def __init__(
        self,
        instances: list[Instance],
        *,
        literal: bool = False,
        runtime: Mapping[str, Any] | None = None,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        self.instances = instances
        self.node = instances[0].node
        self.is_model = isinstance(self.node, nodes.Model)
        self.literal = literal
        self.runtime = dict(runtime or {})
        self.renamed = dict(renamed or {})
        self.arguments: dict[str, Argument] = {}
        self.locals: dict[str, tuple[ast.expr, dict[Entry, Any]]] = {}
        self.local_order: list[str] = []
        self.stored: dict[str, ast.expr] = {}
        self.taken: set[str] = set()
        self.loops: list[Loop] = []
        self.init: list[ast.stmt] = []
        self.values: dict[nodes.Node, Column] = {}
        for instance in instances:
            for (node, iteration), value in instance.values.items():
                self.values.setdefault(node, {})[instance, iteration] = value
        self.parameters: dict[str, nodes.Parameter] = {}
        if isinstance(self.node, nodes.Block | nodes.Model):
            self.parameters = {parameter.name.id: parameter for parameter in self.node.parameters}
        self.binders: dict[str, list[tuple[nodes.Identifier, nodes.Bind]]] = {}
        self.loop_names: dict[str, list[nodes.Identifier]] = {}
        for part in nodes.descend(self.node):
            if isinstance(part, nodes.Bind):
                for target in part.targets:
                    self.binders.setdefault(target.id, []).append((target, part))
            elif isinstance(part, nodes.For | nodes.Comprehension):
                for target in part.targets:
                    self.loop_names.setdefault(target.id, []).append(target)
        self.varying = {
            name
            for name in self.parameters
            if not self.is_model and len({key(i.arguments[name].value) for i in instances if name in i.arguments}) > 1
        }
        self._structural: dict[nodes.Node, bool] = {}

    # Entries and columns

    def matches(self, iteration: Iteration) -> bool:
        """Whether an iteration belongs to where the translation stands."""
        return all(
            loop.index is None or (position < len(iteration) and iteration[position] == loop.index)
            for position, loop in enumerate(self.loops)
        )

    def column(self, node: nodes.Node) -> Column:
        """The values of an expression where the translation stands."""
        found = self.values.get(node, {})
        if any(loop.index is not None for loop in self.loops):
            return {entry: value for entry, value in found.items() if self.matches(entry[1])}
        return found

    def environment(self, entry: Entry) -> dict[str, Any]:
        """The Python names of `__init__` and their values in one entry."""
        instance, iteration = entry
        names = {a.name: build.python(a.column[instance]) for a in self.arguments.values() if instance in a.column}
        for name in self.local_order:
            values = self.locals[name][1]
            if (instance, ()) in values:
                names[name] = values[instance, ()]
        for position, loop in enumerate(self.loops):
            if loop.index is None and position < len(iteration):
                for target in getattr(loop.node, "targets", ()):
                    column = self.values.get(target, {})
                    value = column.get((instance, iteration[: position + 1]), _MISSING)
                    if value is not _MISSING and not isinstance(value, Tensor):
                        names[target.id] = build.python(value)
                if not hasattr(loop.node, "targets"):
                    names["i"] = iteration[position]
        return names

    def holds(self, tree: ast.expr, column: Column) -> bool:
        """Replay: whether a Python expression gives the column's value on every entry."""
        seen: set[Any] = set()
        for entry, wanted in column.items():
            names = self.environment(entry)
            mark = (key(wanted), tuple(sorted((n, repr(v)) for n, v in names.items())))
            if mark in seen:
                continue
            seen.add(mark)
            try:
                if not build.same(build.evaluate(tree, names), wanted):
                    return False
            except Exception:  # any failure means that this text does not say this value
                return False
        return True

    # Structure

    def structural(self, node: nodes.Node | None) -> bool:
        """Whether a value belongs to the shape of the class, so that it may not be frozen as a literal."""
        if node is None or self.literal:
            return False
        if node not in self._structural:
            self._structural[node] = False
            self._structural[node] = self._is_structural(node)
        return self._structural[node]

    def _is_structural(self, node: nodes.Node) -> bool:
        for part in nodes.descend(node):
            if isinstance(part, nodes.Name):
                name = part.id
                if name in self.runtime:
                    return True
                if self.is_model:
                    if name in self.binders and any(self.structural(bind.value) for _, bind in self.binders[name]):
                        return True
                    continue
                if name in self.varying or name == "out":
                    return True
                if name in self.parameters and self._all_default(name):
                    default = self.parameters[name].default
                    if default is not None and self.structural(default):
                        return True
                if name in self.binders and any(self.structural(bind.value) for _, bind in self.binders[name]):
                    return True
            elif isinstance(part, nodes.Attribute) and not self.is_model:
                values = self.values.get(part.value)
                if values and isinstance(next(iter(values.values())), Tensor):
                    return True
        return False

    def _all_default(self, name: str) -> bool:
        """Whether no caller gave this parameter: then it is a name for its default."""
        return all(i.arguments[name].how == "default" for i in self.instances if name in i.arguments)

    # Arguments, locals, stored attributes

    def python_name(self, word: str) -> str:
        return self.renamed.get(word) or PYTHON_NAMES.get(word, word)

    def demand(self, name: str) -> ast.expr:
        """A parameter of the definition as an argument."""
        if name not in self.arguments:
            column = {i: _argument(i.arguments[name].value) for i in self.instances if name in i.arguments}
            default: Any = _MISSING
            parameter = self.parameters[name]
            if isinstance(parameter.default, nodes.Number | nodes.String | nodes.Boolean) and not self.is_model:
                default = parameter.default.value
            values = [*column.values(), *([] if default is _MISSING else [default])]
            self.arguments[name] = Argument(
                name, self.free(self.python_name(name)), column, default, annotation_of(values)
            )
        return build.name(self.arguments[name].name)

    def free(self, name: str) -> str:
        """A Python name for an argument that no other argument or local has."""
        used = {a.name for a in self.arguments.values()} | set(self.local_order)
        while name in used or name in ("self", "torch", "nn", "F", "lambda", "in", "class"):
            name += "_"
        return name

    def promote(self, name: str, column: Column) -> ast.expr:
        """A value that nothing here expresses: a new argument, which the caller has to express."""
        by_instance: dict[Instance, Any] = {}
        for (instance, _), value in column.items():
            if instance in by_instance and key(by_instance[instance]) != key(value):
                return self._promote_list(name, column)
            by_instance[instance] = value
        if self.is_model:
            raise Untranslatable(f"{name} is not one number")
        for argument in self.arguments.values():
            if all(i in argument.column and key(argument.column[i]) == key(v) for i, v in by_instance.items()) and (
                argument.key.startswith("=")
            ):
                if argument.name == name:
                    argument.column = {**by_instance, **argument.column}
                    return build.name(argument.name)
        for instance in self.instances:
            # An instance that does not come here gets what a neighbour has: it will not be read.
            by_instance.setdefault(instance, next(iter(by_instance.values())))
        free = self.free(name)
        annotation = annotation_of(by_instance.values())
        default = _TORCH_DEFAULTS.get(name, _MISSING)
        self.arguments["=" + free] = Argument("=" + free, free, by_instance, default, annotation)
        return build.name(free)

    def _promote_list(self, name: str, column: Column) -> ast.expr:
        """A value that differs from turn to turn of the one loop around it: a list, indexed by the loop."""
        turning = [loop for loop in self.loops if loop.index is None]
        indices = self._loop_indices()
        depth = len(self.loops)
        if self.is_model or len(turning) != 1 or not indices or any(len(it) != depth for _, it in column):
            raise Untranslatable(f"{name} differs within one instance")
        lists: dict[Instance, dict[int, Any]] = {}
        for (instance, iteration), value in column.items():
            lists.setdefault(instance, {})[iteration[-1]] = value
        by_instance: dict[Instance, Any] = {}
        for instance, values in lists.items():
            if list(values) != list(range(len(values))):
                raise Untranslatable(f"{name} is not there in every turn")
            by_instance[instance] = tuple(values.values())
        if set(by_instance) != set(self.instances):
            raise Untranslatable(f"{name} is not there in every instance")
        free = self.free(name)
        annotation = annotation_of(by_instance.values())
        self.arguments["=" + free] = Argument("=" + free, free, by_instance, annotation=annotation)
        return ast.Subscript(build.name(free), indices[0], ast.Load())

    def in_channels(self) -> ast.expr:
        """The channels of the (only) input."""
        if "in" not in self.arguments:
            column = {i: _channels(i.input) for i in self.instances}
            outs = {i: i.arguments["out"].value for i in self.instances if "out" in i.arguments}
            if outs == column and "out" in self.parameters:
                return self.demand("out")
            values = next(iter(column.values()))
            if isinstance(values, tuple) and not self.is_model:
                name = "in_channels"
            else:
                name = "in_channels"
            self.arguments["in"] = Argument("in", name, column, annotation=annotation_of(column.values()))
        return build.name(self.arguments["in"].name)

    def local(self, name: str, tree: ast.expr, column: Column) -> ast.expr:
        """A local of `__init__` named as in the spec."""
        if name in self.locals:
            return build.name(name)
        values = {(instance, ()): build.python(value) for (instance, _), value in column.items()}
        self.locals[name] = (tree, values)
        self.local_order.append(name)
        self.init.append(build.assign(name, tree))
        return build.name(name)

    def snapshot(self) -> tuple[Any, ...]:
        return dict(self.arguments), dict(self.locals), list(self.local_order), dict(self.stored), list(self.init)

    def restore(self, state: tuple[Any, ...]) -> None:
        self.arguments, self.locals, self.local_order, self.stored, self.init = (
            dict(state[0]),
            dict(state[1]),
            list(state[2]),
            dict(state[3]),
            list(state[4]),
        )

    # Expressions

    def express(
        self, word: str, column: Column, hint: nodes.Expr | None = None, tracked: ast.expr | None = None
    ) -> ast.expr:
        """A Python expression for a column of numbers, texts or lists; raises Untranslatable."""
        if not column:
            raise Untranslatable("it never ran")
        alike, value = constant_of(column)
        free = not self.structural(hint) and (tracked is None or isinstance(tracked, ast.Constant))
        if alike and (
            self.literal or free or (self.is_model and not self.structural(hint) and not self._runtime(tracked))
        ):
            return build.literal(value)
        trials: list[Callable[[], ast.expr]] = []
        if tracked is not None:
            trials.append(lambda: tracked)
        if hint is not None:
            trials.append(lambda: self.translate(hint))
        for trial in trials:
            state = self.snapshot()
            try:
                tree = trial()
                if self.holds(tree, column):
                    return tree
            except Untranslatable:
                pass
            self.restore(state)
        for tree in self.candidates():
            if self.holds(tree, column):
                return tree
        if word == "in_channels" and not self.is_model and isinstance(self.instances[0].input, tuple):
            state = self.snapshot()
            tree = ast.Subscript(self.in_channels(), build.constant(-1), ast.Load())
            if self.holds(tree, column):
                return tree
            self.restore(state)
        if alike and self.is_model:
            return build.literal(value)
        if isinstance(hint, nodes.Name) and hint.id in self.binders:
            word = hint.id
        name = self.python_name(word)
        name = "mid_channels" if name in ("in_channels", "out_channels") else name
        for argument in self.arguments.values():
            # What is promoted twice under one name and is equal everywhere is one argument.
            if argument.key.startswith("=") and argument.name.rstrip("_") == name:
                tree = build.name(argument.name)
                if self.holds(tree, column):
                    return tree
        return self.promote(name, column)

    def _runtime(self, tree: ast.expr | None) -> bool:
        return tree is not None and bool(build.free_names(tree) & {self.python_name(n) for n in self.runtime})

    def candidates(self) -> list[ast.expr]:
        """Names of this class that a value may turn out to be."""
        found: list[ast.expr] = []
        for loop in self.loops:
            if loop.index is None:
                found += [tree for tree in loop.names.values() if isinstance(tree, ast.expr)]
        for argument in self.arguments.values():
            first = next(iter(argument.column.values()), None)
            if isinstance(first, int) and not isinstance(first, bool) and argument.key in ("in", "out"):
                found.append(build.name(argument.name))
            elif isinstance(first, tuple) and not any(loop.index is None for loop in self.loops):
                found.append(ast.Subscript(build.name(argument.name), build.constant(-1), ast.Load()))
            elif isinstance(first, tuple):
                for index in self._loop_indices():
                    found.append(ast.Subscript(build.name(argument.name), index, ast.Load()))
        return found

    def _loop_indices(self) -> list[ast.expr]:
        return [
            tree
            for loop in self.loops
            if loop.index is None
            for tree in loop.names.values()
            if isinstance(tree, ast.Name)
        ]

    def translate(self, node: nodes.Expr) -> ast.expr:
        """The Python text of a compile-time expression, in terms of arguments and locals."""
        column = self.column(node)
        if column:
            alike, value = constant_of(column)
            if (
                alike
                and not self.structural(node)
                and not self._reads_loop(node)
                and not isinstance(value, Layer | Tensor)
            ):
                return build.literal(value)
        method = _TRANSLATIONS.get(type(node))
        if method is None:
            raise Untranslatable(node.span.text)
        return method(self, node)

    def _reads_loop(self, node: nodes.Node) -> bool:
        names = {name for loop in self.loops if loop.index is None for name in loop.names}
        return any(isinstance(part, nodes.Name) and part.id in names for part in nodes.descend(node))

    def _name(self, node: nodes.Name) -> ast.expr:
        name = node.id
        for loop in reversed(self.loops):
            if name in loop.names:
                if loop.index is None:
                    return loop.names[name]
                alike, value = constant_of(self.column(node))
                if alike:
                    return build.literal(value)
        if name in self.runtime:
            return self.demand(name)
        if name in self.parameters:
            if self._all_default(name) and not self.is_model:
                default = self.parameters[name].default
                if default is not None and not isinstance(default, nodes.Number | nodes.Boolean | nodes.String):
                    tree = self.translate(default)
                    if isinstance(tree, ast.Name | ast.Constant):
                        return tree
                    column = {(i, ()): i.arguments[name].value for i in self.instances}
                    if not self.holds(tree, column):
                        raise Untranslatable(name)
                    return self.local(self.python_name(name), tree, column)
            return self.demand(name)
        if name in self.binders:
            return self._binding(name, node)
        raise Untranslatable(name)

    def _binding(self, name: str, node: nodes.Name) -> ast.expr:
        if name in self.locals:
            return build.name(name)
        binders = self.binders[name]
        if len(binders) != 1 or len(binders[0][1].targets) != 1 or isinstance(binders[0][1].value, nodes.For):
            raise Untranslatable(name)
        identifier, bind = binders[0]
        assert not isinstance(bind.value, nodes.For)
        column = self.values.get(identifier, {})
        if any(
            isinstance(value, Tensor) or (isinstance(value, tuple) and any(isinstance(v, Tensor) for v in value))
            for value in column.values()
        ):
            raise Untranslatable(name)
        tree = self.rounded(bind.value, column)
        if isinstance(tree, ast.Name | ast.Constant):
            return tree
        if any(iteration != () for _, iteration in column):
            return tree  # bound inside a loop: written out
        if not self.holds(tree, column):
            raise Untranslatable(name)
        used = {a.name for a in self.arguments.values()}
        if name in used or name in ("self", "torch", "nn", "F"):
            return tree
        return self.local(name, tree, column)

    def rounded(self, node: nodes.Expr, column: Column) -> ast.expr:
        """The text of an expression, without a rounding that rounds nothing in any instance."""
        return self.translate(node)

    def _attribute(self, node: nodes.Attribute) -> ast.expr:
        if isinstance(node.value, nodes.Name) and node.value.id == "input" and node.name.id == "channels":
            if self.is_model:
                raise Untranslatable("the model's input")
            return self.in_channels()
        tracked = self.tracker(node.value) if self.tracker is not None and node.name.id == "channels" else None
        if tracked is not None:
            return tracked
        alike, value = constant_of(self.column(node))
        if alike and (self.is_model or self.literal):
            return build.literal(value)
        raise Untranslatable(node.span.text)

    weight_shape: Mapping[int, ast.expr] | None = None
    tracker: Callable[[nodes.Expr], ast.expr | None] | None = None

    def _binary(self, node: nodes.Binary) -> ast.expr:
        left, right = self.translate(node.left), self.translate(node.right)
        column = self.column(node)
        integral = all(isinstance(v, int) for v in self.column(node.left).values()) and all(
            isinstance(v, int) for v in self.column(node.right).values()
        )
        if node.op in ("*", "/") and build.is_literal(right, 1):
            return left
        if node.op == "*" and build.is_literal(left, 1):
            return right
        whole = bool(column) and all(isinstance(v, int) and not isinstance(v, bool) for v in column.values())
        if node.op == "*" and whole and isinstance(right, ast.Constant) and isinstance(right.value, float):
            inverse = 1 / right.value
            if inverse == int(inverse):
                return ast.BinOp(left, ast.FloorDiv(), ast.Constant(int(inverse)))
        op = node.op
        if op == "/" and integral and whole:
            op = "//"
        kinds: dict[str, ast.operator] = {
            "+": ast.Add(),
            "-": ast.Sub(),
            "*": ast.Mult(),
            "/": ast.Div(),
            "//": ast.FloorDiv(),
            "%": ast.Mod(),
            "**": ast.Pow(),
        }
        return ast.BinOp(left, kinds[op], right)

    def _unary(self, node: nodes.Unary) -> ast.expr:
        operand = self.translate(node.operand)
        return ast.UnaryOp(ast.Not() if node.op == "not" else ast.USub(), operand)

    def _compare(self, node: nodes.Compare) -> ast.expr:
        kinds: dict[str, ast.cmpop] = {
            "==": ast.Eq(),
            "!=": ast.NotEq(),
            "<": ast.Lt(),
            "<=": ast.LtE(),
            ">": ast.Gt(),
            ">=": ast.GtE(),
            "in": ast.In(),
        }
        return ast.Compare(self.translate(node.left), [kinds[node.op]], [self.translate(node.right)])

    def _logic(self, node: nodes.Logic) -> ast.expr:
        # Kept whole: the right side was evaluated on a part of the entries only.
        left, right = self._whole(node.left), self._whole(node.right)
        return ast.BoolOp(ast.And() if node.op == "and" else ast.Or(), [left, right])

    def _whole(self, node: nodes.Expr) -> ast.expr:
        kept = self.translate if not isinstance(node, nodes.Compare) else self._compare_whole
        return kept(node)  # type: ignore[arg-type]

    def _compare_whole(self, node: nodes.Compare) -> ast.expr:
        state = self.snapshot()
        try:
            return self._compare(node)
        except Untranslatable:
            self.restore(state)
            return self.translate(node)

    def _ternary(self, node: nodes.Ternary) -> ast.expr:
        column = self.column(node.condition)
        alike, value = constant_of(column) if column else (False, None)
        if alike and not self.structural(node.condition) and not self._reads_loop(node.condition):
            return self.translate(node.chosen if value else node.otherwise)
        return ast.IfExp(self.translate(node.condition), self.translate(node.chosen), self.translate(node.otherwise))

    def _call(self, node: nodes.Call) -> ast.expr:
        if not isinstance(node.function, nodes.Name) or not node.arguments:
            raise Untranslatable(node.span.text)
        name = node.function.id
        first = node.arguments[0].value
        column, inner = self.column(node), self.column(first)
        if (
            column
            and inner
            and self._rounds(node)
            and all(
                entry in inner and type(inner[entry]) is int and inner[entry] == value
                for entry, value in column.items()
            )
        ):
            return self.translate(first)
        if name == "len" and isinstance(first, nodes.Name):
            return build.call("len", self.translate(first))
        if name in ("round",) and len(node.arguments) == 1:
            return build.call("round", self.translate(first))
        if name in ("max", "min") and len(node.arguments) > 1:
            return build.call(name, *[self.translate(argument.value) for argument in node.arguments])
        if name == "sqrt":
            return ast.BinOp(self.translate(first), ast.Pow(), ast.Constant(0.5))
        raise Untranslatable(node.span.text)

    def _rounds(self, node: nodes.Call) -> bool:
        assert isinstance(node.function, nodes.Name)
        if node.function.id in _ROUNDING:
            return True
        definition = self.instances[0].definition
        found = definition.module.definitions.get(node.function.id) if definition else None
        return found is not None and isinstance(found.node, nodes.Fn)

    def _list(self, node: nodes.List) -> ast.expr:
        return ast.List([self.translate(item) for item in node.items], ast.Load())

    def _index(self, node: nodes.Index) -> ast.expr:
        if isinstance(node.index, nodes.Range):
            raise Untranslatable(node.span.text)
        if self.weight_shape is not None and node.span.text == "input.shape[0]":
            return self.weight_shape[0]
        return ast.Subscript(self.translate(node.value), self.translate(node.index), ast.Load())

    def _constant(self, node: Any) -> ast.expr:
        return build.literal(node.value)

    # What forward needs

    def store(self, word: str, tree: ast.expr) -> ast.expr:
        """A number of `__init__` where forward can read it: a literal stays, the rest becomes `self.word`."""
        if isinstance(tree, ast.Constant) or not build.free_names(tree):
            return tree
        if isinstance(tree, ast.Name):
            word = tree.id
        name = word
        while (name in self.taken and name not in self.stored) or (
            name in self.stored and build.dump(self.stored[name]) != build.dump(tree)
        ):
            name += "_"
        if name not in self.stored:
            self.stored[name] = tree
            self.init.append(build.assign("self." + name, tree))
        return build.own(name)


def _argument(value: Any) -> Any:
    """A parameter's value as an argument: a parameter-free activation is its class, other layers are none."""
    if not isinstance(value, Layer):
        return value
    if value.op is None or value.bound or value.op.name not in ACTIVATIONS:
        raise Untranslatable("a layer is not an argument")
    return build.ModuleClass(ACTIVATIONS[value.op.name])


def _channels(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.type.shape[0] if value.type.shape else 1
    return tuple(_channels(element) for element in value)


_TRANSLATIONS: dict[type, Any] = {
    nodes.Number: Scope._constant,
    nodes.Boolean: Scope._constant,
    nodes.String: Scope._constant,
    nodes.Name: Scope._name,
    nodes.Attribute: Scope._attribute,
    nodes.Binary: Scope._binary,
    nodes.Unary: Scope._unary,
    nodes.Compare: Scope._compare,
    nodes.Logic: Scope._logic,
    nodes.Ternary: Scope._ternary,
    nodes.Call: Scope._call,
    nodes.List: Scope._list,
    nodes.Index: Scope._index,
}

__all__ = [
    "Argument",
    "Bound",
    "Column",
    "Entry",
    "Loop",
    "Scope",
    "Split",
    "Untranslatable",
    "annotation_of",
    "constant_of",
]
