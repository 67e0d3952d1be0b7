"""Numbers of one class: which become literals, arguments or locals of its `__init__`, and how they are written."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from effspec.backends.torch import build
from effspec.backends.torch.plan.arguments import RESERVED, Arguments
from effspec.backends.torch.plan.columns import Column, Untranslatable, constant_of
from effspec.backends.torch.plan.fns import BUILTINS, ROUNDINGS, Functions

from effspec.layers import Instance, Layer, Tensor
from effspec.modules import Definition
from effspec.syntax import nodes


class Scope(Arguments):
    """The `__init__` of one class.

    `tracker` says how `__init__` calls the channels of a tensor expression, `weight_width` the first size of a weight.
    """

    tracker: Callable[[nodes.Expr], ast.expr | None] | None = None
    weight_width: ast.expr | None = None

    def __init__(
        self, instances: list[Instance], functions: Functions, *, literal: bool, runtime: Mapping[str, Any]
    ) -> None:
        super().__init__(instances, functions.namespace, literal=literal, runtime=runtime)
        self.functions = functions

    def express(
        self, word: str, column: Column, hint: nodes.Expr | None = None, tracked: ast.expr | None = None
    ) -> ast.expr:
        """A Python expression for a column of numbers, texts or lists; raises Untranslatable.

        In this order: a literal where the value belongs to no instance, `tracked` (what the data flow says), the
        expression of the spec, a name of this class that has the value, a new argument called `word`.
        """
        if not column:
            raise Untranslatable("it never ran")
        if any(_holds_tensor(value) for value in column.values()):
            raise Untranslatable("a tensor is no number")
        alike, value = constant_of(column)
        structural = self.structural(hint) or (hint is not None and self.reads_loop(hint))
        free = not structural and (tracked is None or isinstance(tracked, ast.Constant))
        if alike and (self.literal or free or (self.is_model and not structural and not self._runtime(tracked))):
            return build.literal(value)
        found = self._said(column, hint, tracked) or self._named(word, column)
        if found is not None:
            return found
        if alike and self.is_model:
            return build.literal(value)
        if isinstance(hint, nodes.Name) and hint.id in self.binders:
            word = hint.id
        name = self.python_name(word)
        if name == "out_channels" and self.is_result_width(column):
            return self.out_channels(hint)
        name = "mid_channels" if name in ("in_channels", "out_channels") else name
        for argument in self.arguments.values():
            # What is promoted twice under one name and is equal everywhere is one argument.
            if argument.promoted and argument.name.rstrip("_") == name:
                tree = build.name(argument.name)
                if self.holds(tree, column):
                    return tree
        return self.promote(name, column, source=hint)

    def _said(self, column: Column, hint: nodes.Expr | None, tracked: ast.expr | None) -> ast.expr | None:
        """What the data flow or the spec says, if it replays."""
        if tracked is not None and self.holds(tracked, column):
            return tracked
        if hint is not None:
            state = self.snapshot()
            try:
                tree = self.translate(hint)
                if self.holds(tree, column):
                    return tree
            except Untranslatable:
                pass
            self.restore(state)
        return None

    def _named(self, word: str, column: Column) -> ast.expr | None:
        """A name of this class that turns out to have the value."""
        widths = [build.name(local) for local in self.locals] if word == "in_channels" else []
        for tree in [*self.candidates(), *widths]:
            if self.holds(tree, column):
                return tree
        if word == "in_channels" and not self.is_model and isinstance(self.instances[0].input, tuple):
            state = self.snapshot()
            last = ast.Subscript(self.in_channels(), build.constant(-1), ast.Load())
            if self.holds(last, column):
                return last
            self.restore(state)
        return None

    def width(self, column: Column) -> ast.expr | None:
        """The width of the input, or a number that the block is given, where it is a column everywhere."""
        given = [
            word
            for word in self.parameters
            if all(word in i.arguments and type(i.arguments[word].value) is int for i in self.instances)
        ]
        makers: list[Callable[[], ast.expr]] = [partial(self.demand, word) for word in given]
        if not isinstance(self.instances[0].input, tuple):
            makers.insert(0, self.in_channels)
        for make in makers:
            state = self.snapshot()
            tree = make()
            if self.holds(tree, column):
                return tree
            self.restore(state)
        return None

    def _runtime(self, tree: ast.expr | None) -> bool:
        return tree is not None and bool(build.free_names(tree) & {self.python_name(n) for n in self.runtime})

    # The text of the spec

    def translate(self, node: nodes.Expr) -> ast.expr:
        """The Python text of a compile-time expression, in terms of arguments and locals; raises Untranslatable."""
        column = self.column(node)
        if column and not self.structural(node) and not self.reads_loop(node):
            alike, value = constant_of(column)
            if alike and not isinstance(value, Layer | Tensor):
                return build.literal(value)
        match node:
            case nodes.Number() | nodes.Boolean() | nodes.String():
                return build.literal(node.value)
            case nodes.Name():
                return self._name(node)
            case nodes.Attribute():
                return self._attribute(node)
            case nodes.Binary():
                return self._binary(node)
            case nodes.Unary():
                return ast.UnaryOp(ast.Not() if node.op == "not" else ast.USub(), self.translate(node.operand))
            case nodes.Compare():
                return self._compare(node)
            case nodes.Logic():
                return self._logic(node)
            case nodes.Ternary():
                return self._ternary(node)
            case nodes.Call():
                return self._call(node)
            case nodes.List():
                return ast.List([self.translate(item) for item in node.items], ast.Load())
            case nodes.Index():
                return self._index(node)
        raise Untranslatable(node.span.text)

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
            return self._parameter(name)
        if name in self.binders:
            return self._binding(name)
        raise Untranslatable(name)

    def _parameter(self, name: str) -> ast.expr:
        """An argument, or what the default says where nobody gives the parameter."""
        default = self.parameters[name].default
        plain = default is None or isinstance(default, nodes.Number | nodes.Boolean | nodes.String)
        if plain or default is None or self.is_model or not self.all_default(name):
            return self.demand(name)
        tree = self.translate(default)
        if isinstance(tree, ast.Name | ast.Constant):
            return tree
        column: Column = {(i, ()): i.arguments[name].value for i in self.instances}
        if not self.holds(tree, column):
            raise Untranslatable(name)
        return self.local(self.python_name(name), tree, column)

    def _binding(self, name: str) -> ast.expr:
        """A local of `__init__`; what is just another name is that name."""
        if name in self.locals:
            return build.name(name)
        (identifier, bind), *others = self.binders[name]
        if others or len(bind.targets) != 1 or isinstance(bind.value, nodes.For):
            raise Untranslatable(name)
        column = self.recorded.get(identifier, {})
        if any(_holds_tensor(value) for value in column.values()):
            raise Untranslatable(name)
        with self.everywhere():
            tree = self.translate(bind.value)
        if isinstance(tree, ast.Name | ast.Constant) and not self.counts_inputs(bind.value):
            return tree
        if any(iteration != () for _, iteration in column):
            return tree  # bound inside a loop: written out
        if not self.holds(tree, column):
            raise Untranslatable(name)
        if name in RESERVED | self.functions.namespace.keys() or any(
            argument.name == name for argument in self.arguments.values()
        ):
            return tree
        return self.local(name, tree, column)

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

    def _binary(self, node: nodes.Binary) -> ast.expr:
        left, right = self.translate(node.left), self.translate(node.right)
        if node.op in ("*", "/") and build.is_literal(right, 1):
            return left
        if node.op == "*" and build.is_literal(left, 1):
            return right
        column = self.column(node)
        whole = bool(column) and _integers(column)
        if node.op == "//" and build.is_literal(right, 1) and _integers(self.column(node.left)):
            return left
        if node.op == "*" and whole and isinstance(right, ast.Constant) and isinstance(right.value, float):
            inverse = 1 / right.value
            if inverse == int(inverse):
                return ast.BinOp(left, ast.FloorDiv(), ast.Constant(int(inverse)))
        exact = node.op == "/" and whole and _integers(self.column(node.left)) and _integers(self.column(node.right))
        return build.binary("//" if exact else node.op, left, right)

    def _compare(self, node: nodes.Compare) -> ast.expr:
        return build.compare(node.op, self.translate(node.left), self.translate(node.right))

    def _logic(self, node: nodes.Logic) -> ast.expr:
        """Both sides, without one that decides nothing in any instance."""
        for side, other in ((node.left, node.right), (node.right, node.left)):
            column = self.column(side)
            free = column and not self.structural(side) and not self.reads_loop(side)
            if free and constant_of(column) == (True, node.op == "and"):
                return self._whole(other)
        # Kept whole: the right side was evaluated on a part of the entries only.
        return build.logic(node.op, self._whole(node.left), self._whole(node.right))

    def _whole(self, node: nodes.Expr) -> ast.expr:
        if not isinstance(node, nodes.Compare):
            return self.translate(node)
        state = self.snapshot()
        try:
            return self._compare(node)
        except Untranslatable:
            self.restore(state)
            return self.translate(node)

    def _ternary(self, node: nodes.Ternary) -> ast.expr:
        column = self.column(node.condition)
        if column and not self.structural(node.condition) and not self.reads_loop(node.condition):
            alike, value = constant_of(column)
            if alike:
                return self.translate(node.chosen if value else node.otherwise)
        return ast.IfExp(self.translate(node.condition), self.translate(node.chosen), self.translate(node.otherwise))

    def _call(self, node: nodes.Call) -> ast.expr:
        """A function; a rounding that rounds nothing in any instance is left out."""
        if not isinstance(node.function, nodes.Name) or not node.arguments:
            raise Untranslatable(node.span.text)
        if self.counts_inputs(node):
            return self.inputs()
        name, column = node.function.id, self.column(node)
        definition = self._function(name)
        first = node.arguments[0].value
        if (name in ROUNDINGS or definition) and self._rounds_nothing(column, self.column(first)):
            tree = self.translate(first)
            if self.holds(tree, column):
                return tree
        if definition is None and (name not in BUILTINS or any(argument.name for argument in node.arguments)):
            raise Untranslatable(node.span.text)
        arguments = [self.translate(argument.value) for argument in node.arguments]
        if definition is None:
            return BUILTINS[name](*arguments)
        return self.functions.call(definition, node, arguments)

    def _function(self, name: str) -> Definition | None:
        """The function of the spec that has a name here."""
        definition = self.instances[0].definition
        found = definition.module.definitions.get(name) if definition else None
        return found if found is not None and isinstance(found.node, nodes.Fn) else None

    def _rounds_nothing(self, column: Column, inner: Column) -> bool:
        return bool(column) and all(
            entry in inner and type(inner[entry]) is int and inner[entry] == value for entry, value in column.items()
        )

    def _index(self, node: nodes.Index) -> ast.expr:
        if isinstance(node.index, nodes.Range):
            raise Untranslatable(node.span.text)
        if self.weight_width is not None and node.span.text == "input.shape[0]":
            return self.weight_width
        listed = self.translate(node.value)
        place = build.constant(-1) if self.is_last(node) else self.translate(node.index)
        return ast.Subscript(listed, place, ast.Load())


def _integers(column: Column) -> bool:
    return all(type(value) is int for value in column.values())


def _holds_tensor(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, tuple) and any(isinstance(v, Tensor) for v in value))
