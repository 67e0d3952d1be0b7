"""What a class takes and keeps: arguments of its `__init__`, locals, and attributes that forward reads.

An argument exists only if some expression asked for it, so that there are no dead ones.  A Python expression is
believed only after it has been evaluated on every entry of its column and gave the same values.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from effspec.backends.torch import build
from effspec.backends.torch.operators import ACTIVATIONS
from effspec.backends.torch.plan.columns import Column, Columns, Entry, Untranslatable

from effspec.layers import Instance, Layer, Tensor, key
from effspec.syntax import nodes

_PYTHON_NAMES = {
    "k": "kernel_size",
    "s": "stride",
    "out": "out_channels",
    "pad": "padding",
    "dil": "dilation",
}
_PAIRS = frozenset({"kernel_size", "stride", "padding", "dilation"})
# What an argument that no definition names is worth where torch has a default for it.
_TORCH_DEFAULTS = {"padding": 0, "stride": 1, "dilation": 1, "groups": 1}
RESERVED = frozenset({"self", "torch", "nn", "F", "lambda", "in", "class", "def", "is"})
_MISSING = object()

Snapshot: TypeAlias = dict[str, Any]


@dataclass(eq=False)
class Argument:
    """An argument of `__init__`: its value in each instance, and the default of the definition, if it is a literal.

    `key` is the parameter of the definition, `in` for the channels of the input, `inputs` for how many there are, or
    `=name` where it was promoted; then `source` is what the spec says there.
    """

    key: str
    name: str
    column: dict[Instance, Any]
    default: Any = _MISSING
    annotation: str = "int"
    source: nodes.Expr | None = None

    @property
    def required(self) -> bool:
        return self.default is _MISSING

    @property
    def promoted(self) -> bool:
        return self.key.startswith("=")


def annotation_of(values: Iterable[Any]) -> str:
    """The type of an argument with these values."""
    kinds = dict.fromkeys(map(_kind_of, values))
    if set(kinds) == {"int", "list[int]"}:
        return "int | tuple[int, int]"
    if "float" in kinds:
        kinds.pop("int", None)
    if len(kinds) > 1 and all(kind.startswith("list[") for kind in kinds):
        members = {member for kind in kinds for member in kind[5:-1].split(" | ")}
        return f"list[{' | '.join(sorted(members))}]"
    return " | ".join(sorted(kinds))


def _kind_of(value: Any) -> str:
    if isinstance(value, build.ModuleClass):
        return "Callable[[], nn.Module]"
    value = build.python(value)
    if isinstance(value, list):
        pairs = [tuple(v) if isinstance(v, list) and len(v) == 2 else v for v in value]
        return f"list[{annotation_of(pairs) if pairs else 'int'}]"
    if isinstance(value, tuple):
        return f"tuple[{', '.join(annotation_of([v]) for v in value)}]"
    return type(value).__name__


class Arguments(Columns):
    """The `__init__` of one class, without the texts of its numbers."""

    def __init__(
        self, instances: list[Instance], functions: Mapping[str, Any], *, literal: bool, runtime: Mapping[str, Any]
    ) -> None:
        super().__init__(instances, literal=literal, runtime=runtime)
        self._functions = functions
        self.arguments: dict[str, Argument] = {}
        self.locals: dict[str, Column] = {}
        self.stored: dict[str, ast.expr] = {}
        self.taken: set[str] = set()
        self.init: list[ast.stmt] = []

    def snapshot(self) -> Snapshot:
        """The state that a trial may change."""
        return {
            "arguments": dict(self.arguments),
            "locals": dict(self.locals),
            "stored": dict(self.stored),
            "init": list(self.init),
        }

    def restore(self, state: Snapshot) -> None:
        """Back to a snapshot, which may be used again."""
        self.arguments, self.locals = dict(state["arguments"]), dict(state["locals"])
        self.stored, self.init = dict(state["stored"]), list(state["init"])

    # Replay

    def environment(self, entry: Entry) -> dict[str, Any]:
        """The Python names of `__init__` and their values in one entry."""
        instance, iteration = entry
        names = {a.name: build.python(a.column[instance]) for a in self.arguments.values() if instance in a.column}
        for name, values in self.locals.items():
            if (instance, ()) in values:
                names[name] = values[instance, ()]
        for position, loop in enumerate(self.loops):
            if loop.index is None and position < len(iteration):
                for target in loop.node.targets:
                    place = (instance, iteration[: position + 1])
                    column = self.values.get(target, {})
                    if place in column and not isinstance(column[place], Tensor):
                        names[target.id] = build.python(column[place])
        return names

    def holds(self, tree: ast.expr, column: Column) -> bool:
        """Replay: whether a Python expression gives the column's value on every entry."""
        seen: set[Any] = set()
        tree = self._without_self(tree)
        code, read = build.code(tree), build.free_names(tree)
        for entry, wanted in column.items():
            names = {name: value for name, value in self.environment(entry).items() if name in read}
            mark = (key(wanted), tuple(sorted((n, repr(v)) for n, v in names.items())))
            if mark in seen:
                continue
            seen.add(mark)
            try:
                if not build.same(build.run(code, {**self._functions, **names}), wanted):
                    return False
            except Exception:  # any failure means that this text does not say this value
                return False
        return True

    def _without_self(self, tree: ast.expr) -> ast.expr:
        """The tree with what is stored in place of `self.word`."""
        if "self" not in build.free_names(tree):
            return tree
        return build.replace(tree, lambda part: self.stored.get(part.attr) if isinstance(part, ast.Attribute) else None)

    # Arguments

    def python_name(self, word: str) -> str:
        """The name of an argument for a word of the spec."""
        return _PYTHON_NAMES.get(word, word)

    def free(self, name: str) -> str:
        """A Python name for an argument that no other argument or local has."""
        used = {a.name for a in self.arguments.values()} | set(self.locals)
        while name in used or name in RESERVED:
            name += "_"
        return name

    def demand(self, name: str) -> ast.expr:
        """A parameter of the definition as an argument."""
        if name not in self.arguments:
            column = {i: _argument(i.arguments[name].value) for i in self.instances if name in i.arguments}
            default: Any = _MISSING
            declared = self.parameters[name].default
            if isinstance(declared, nodes.Number | nodes.String | nodes.Boolean) and not self.is_model:
                default = declared.value
            values = [*column.values(), *([] if default is _MISSING else [default])]
            self.arguments[name] = Argument(
                name, self.free(self.python_name(name)), column, default, annotation_of(values)
            )
        return build.name(self.arguments[name].name)

    def real(self, rate: ast.expr) -> None:
        """What a rate reads are real numbers, even where all that is known of them is 0."""
        words = build.free_names(rate)
        for argument in self.arguments.values():
            if argument.annotation == "int" and argument.name in words:
                argument.annotation = "float"

    def in_channels(self) -> ast.expr:
        """The channels of the (only) input, or the list of them."""
        if "in" not in self.arguments:
            column = {i: _channels(i.input) for i in self.instances}
            outs = {i: i.arguments["out"].value for i in self.instances if "out" in i.arguments}
            if outs == column and "out" in self.parameters:
                return self.demand("out")
            self.arguments["in"] = Argument("in", "in_channels", column, annotation=annotation_of(column.values()))
        return build.name(self.arguments["in"].name)

    def element_channels(self) -> ast.expr:
        """The channels of every tensor of the list that comes in, where they are alike."""
        widths = {i: _channels(i.input)[0] for i in self.instances}
        if "out" in self.parameters and widths == {i: i.arguments["out"].value for i in self.instances}:
            return self.demand("out")
        if len(set(widths.values())) == 1:
            return build.literal(next(iter(widths.values())))
        return ast.Subscript(self.in_channels(), build.constant(0), ast.Load())

    def inputs(self) -> ast.expr:
        """How many tensors come in."""
        if "inputs" not in self.arguments:
            column = {i: len(i.input) for i in self.instances}
            self.arguments["inputs"] = Argument("inputs", self.free("inputs"), column)
        return build.name(self.arguments["inputs"].name)

    def is_result_width(self, column: Column) -> bool:
        """Whether a column is the width of the result, which no parameter says, in every instance."""
        widths = {
            (i, ()): i.output.type.shape[0]
            for i in self.instances
            if isinstance(i.output, Tensor) and i.output.type.shape
        }
        return "out" not in self.parameters and len(widths) == len(self.instances) and column == widths

    def out_channels(self, source: nodes.Expr | None = None) -> ast.expr:
        """The width of the result where no parameter says it."""
        if "out" not in self.arguments:
            column = {i: i.output.type.shape[0] for i in self.instances}
            self.arguments["out"] = Argument("out", self.free("out_channels"), column, source=source)
        return build.name(self.arguments["out"].name)

    def promote(self, name: str, column: Column, default: Any = _MISSING, source: nodes.Expr | None = None) -> ast.expr:
        """A value that nothing here expresses: a new argument, which the caller has to express."""
        by_instance: dict[Instance, Any] = {}
        for (instance, _), value in column.items():
            if instance in by_instance and key(by_instance[instance]) != key(value):
                return self._promote_list(name, column)
            by_instance[instance] = value
        if self.is_model:
            raise Untranslatable(f"{name} is not one number")
        for argument in self.arguments.values():
            if argument.promoted and argument.name == name and _agree(argument.column, by_instance):
                argument.column = {**by_instance, **argument.column}
                return build.name(argument.name)
        for instance in self.instances:
            # An instance that does not come here gets what a neighbour has: it will not be read.
            by_instance.setdefault(instance, next(iter(by_instance.values())))
        free = self.free(name)
        default = _TORCH_DEFAULTS.get(name, default)
        annotation = annotation_of([*by_instance.values(), *([] if default is _MISSING else [default])])
        if name in _PAIRS:
            annotation = annotation.replace("list[int]", "tuple[int, int]")
        self.arguments["=" + free] = Argument("=" + free, free, by_instance, default, annotation, source)
        return build.name(free)

    def _promote_list(self, name: str, column: Column) -> ast.expr:
        """A value that differs from turn to turn of the one loop around it: a list, indexed by the loop."""
        indices = self.loop_variables()
        depth = len(self.loops)
        if self.is_model or len(self.symbolic()) != 1 or not indices or any(len(it) != depth for _, it in column):
            raise Untranslatable(f"{name} differs within one instance")
        lists: dict[Instance, dict[int, Any]] = {}
        for entry, value in column.items():
            index = self.environment(entry).get(indices[0].id, entry[1][-1])
            lists.setdefault(entry[0], {})[index] = value
        by_instance: dict[Instance, Any] = {}
        for instance, values in lists.items():
            if sorted(values) != list(range(len(values))):
                raise Untranslatable(f"{name} is not there in every turn")
            by_instance[instance] = tuple([values[index] for index in range(len(values))])
        if set(by_instance) != set(self.instances):
            raise Untranslatable(f"{name} is not there in every instance")
        free = self.free(name)
        annotation = annotation_of(by_instance.values())
        self.arguments["=" + free] = Argument("=" + free, free, by_instance, annotation=annotation)
        return ast.Subscript(build.name(free), indices[0], ast.Load())

    def candidates(self) -> list[ast.expr]:
        """Names of this class that a value may turn out to be."""
        found: list[ast.expr] = []
        for loop in self.symbolic():
            found += loop.names.values()
        for argument in self.arguments.values():
            first = next(iter(argument.column.values()), None)
            if type(first) is int and argument.key in ("in", "out"):
                found.append(build.name(argument.name))
            elif isinstance(first, tuple):
                places = self.loop_variables() if self.symbolic() else [build.constant(-1)]
                found += [ast.Subscript(build.name(argument.name), place, ast.Load()) for place in places]
        return found

    # Locals, and what forward needs

    def local(self, name: str, tree: ast.expr, column: Column) -> ast.expr:
        """A local of `__init__` named as in the spec."""
        if name not in self.locals:
            self.locals[name] = {(instance, ()): build.python(value) for (instance, _), value in column.items()}
            self.init.append(build.assign(name, tree))
        return build.name(name)

    def store(self, word: str, tree: ast.expr) -> ast.expr:
        """A number of `__init__` where forward can read it: a literal stays, the rest becomes `self.word`."""
        if isinstance(tree, ast.Constant) or not build.free_names(tree):
            return tree
        name = tree.id if isinstance(tree, ast.Name) else word
        while (name in self.taken and name not in self.stored) or (
            name in self.stored and build.dump(self.stored[name]) != build.dump(tree)
        ):
            name += "_"
        if name not in self.stored:
            self.stored[name] = tree
            self.init.append(build.assign("self." + name, tree))
        return build.own(name)


def _agree(column: Mapping[Instance, Any], values: Mapping[Instance, Any]) -> bool:
    return all(i in column and key(column[i]) == key(value) for i, value in values.items())


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
