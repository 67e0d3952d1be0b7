"""Expressions of tensors, as forward computes them."""

from __future__ import annotations

import ast
from abc import abstractmethod
from contextlib import nullcontext

from effspec.backends.torch import build
from effspec.backends.torch.build import call, own
from effspec.backends.torch.plan.applications import word_of
from effspec.backends.torch.plan.applied import Applied
from effspec.backends.torch.plan.body import Channels, Text, element_of, is_tensor
from effspec.backends.torch.plan.columns import Column, Untranslatable, constant_of, sample_of

from effspec.layers import Tensor
from effspec.syntax import nodes


class Dataflow(Applied):
    """`Applied` with expressions of tensors."""

    @abstractmethod
    def comprehension(self, node: nodes.Comprehension) -> Text:
        """A list that a comprehension makes."""

    def value(self, node: nodes.Expr) -> Text:
        match node:
            case nodes.Name():
                return self._variable(node)
            case nodes.Pipe():
                text = self.value(node.source)
                for step in node.steps:
                    text = self.apply(step, text, None)
                return text
            case nodes.Binary():
                return self._arithmetic(node)
            case nodes.Unary():
                text = self.value(node.operand)
                return Text(ast.UnaryOp(ast.USub(), text.tree), text.channels)
            case nodes.List():
                return Text(ast.List([self.value(item).tree for item in node.items], ast.Load()), None, True)
            case nodes.Ternary():
                return self._either(node)
            case nodes.Index():
                return self._element(node)
            case nodes.Attribute(value=nodes.Name() as record) if f"{record.id}.{node.name.id}" in self.names:
                return self.names[f"{record.id}.{node.name.id}"]
            case nodes.Call(function=nodes.Name(id="reverse")):
                backwards = ast.Slice(None, None, build.constant(-1))
                text = self.value(node.arguments[0].value)
                return Text(ast.Subscript(text.tree, backwards, ast.Load()), None, True)
            case nodes.Comprehension():
                return self.comprehension(node)
        raise Untranslatable(node.span.text)

    def _variable(self, node: nodes.Name) -> Text:
        if node.id == "it":
            return self.current
        if node.id == "input":
            return self.input()
        if node.id not in self.names:
            raise Untranslatable(node.id)
        text = self.names[node.id]
        return self.input() if text.tree is self.entry.tree and self.changed else text

    def _arithmetic(self, node: nodes.Binary) -> Text:
        """Tensors and numbers, or the concatenation of two lists."""
        value = sample_of(self.scope.column(node))
        sides: list[ast.expr] = []
        channels: list[Channels] = []
        for side in (node.left, node.right):
            column = self.scope.column(side)
            if isinstance(value, tuple) and all(part == () for part in column.values()):
                sides.append(ast.List([], ast.Load()))
            elif isinstance(side, nodes.Ternary) and any(map(is_tensor, column.values())):
                sides.append(self.value(side).tree)
            elif is_tensor(sample_of(column)) and not isinstance(side, nodes.Ternary):
                text = self.value(side)
                sides.append(text.tree)
                channels.append(text.channels)
            else:
                sides.append(self.scalar(side))
        image = isinstance(value, Tensor) and len(value.type.shape) == 3
        known = next((c for c in channels if c is not None), None) if image else None
        return Text(build.binary(node.op, sides[0], sides[1]), known, isinstance(value, tuple))

    # A choice

    def _either(self, node: nodes.Ternary) -> Text:
        column: Column = {entry: bool(v) for entry, v in self.scope.column(node.condition).items()}
        same, value = constant_of(column)
        if same:
            return self.value(node.chosen if value else node.otherwise)
        module = self._optional_module(node, column)
        if module is not None:
            return module
        test = self.condition(node.condition, column)
        sides = [self._side(node, side, column) for side in (node.chosen, node.otherwise)]
        is_list = isinstance(sample_of(self.scope.column(node)), tuple)
        return Text(ast.IfExp(test, sides[0], sides[1]), None, is_list)

    def _side(self, node: nodes.Ternary, side: nodes.Expr, column: Column) -> ast.expr:
        """One side of a choice; its modules exist where it is chosen."""
        chosen = {entry for entry, value in column.items() if value == (side is node.chosen)}
        test = self.init_test(node.condition, column, side is not node.chosen)
        if test is not None:
            self.inherited.append(test)
        try:
            with nullcontext() if self.in_symbolic_loop else self.only(chosen):
                return self.value(side).tree
        finally:
            if test is not None:
                self.inherited.pop()

    def _optional_module(self, node: nodes.Ternary, column: Column) -> Text | None:
        """`x if c else x |> label: Block()`: an `nn.Identity` (or None) where the block is not there."""
        flipped = isinstance(node.chosen, nodes.Pipe)
        plain, other = (node.otherwise, node.chosen) if flipped else (node.chosen, node.otherwise)
        if not (isinstance(other, nodes.Pipe) and len(other.steps) == 1 and isinstance(plain, nodes.Name)):
            return None
        step = other.steps[0]
        here = self.here(step)
        indexed = step.label is not None and step.label.indices
        if not here or indexed or not self.is_module(step, here) or self.in_symbolic_loop:
            return None
        test = self.init_condition(node.condition, column, "same")
        source, alone = self.value(other.source), self.value(plain)
        with self.only({entry for entry, value in column.items() if value == flipped}):
            tree = self.constructor(step, source, self.here(step))
        word = word_of(here)
        missing = build.dump(source.tree) != build.dump(alone.tree)
        absent = ast.Constant(None) if missing else call("nn.Identity")
        self.declare(word, ast.IfExp(test, tree, absent) if flipped else ast.IfExp(test, absent, tree))
        called = call(own(word), source.tree)
        if not missing:
            return Text(called)
        return Text(ast.IfExp(ast.Compare(own(word), [ast.Is()], [ast.Constant(None)]), alone.tree, called))

    # Elements

    def _element(self, node: nodes.Index) -> Text:
        match node:
            case nodes.Index(
                value=nodes.Attribute(value=nodes.Name() as record) as field, index=nodes.Number() as index
            ):
                tap = f"{record.id}.{field.name.id}.{index.value}"
                if tap in self.names:
                    return self.names[tap]
        listed = self.value(node.value)
        if isinstance(node.index, nodes.Range):
            return Text(ast.Subscript(listed.tree, self._slice(node.index), ast.Load()), None, True)
        place = build.constant(-1) if self.scope.is_last(node) else self._position(node.index)
        widths = listed.channels if listed.is_list else None
        return Text(ast.Subscript(listed.tree, place, ast.Load()), element_of(widths, place))

    def _position(self, node: nodes.Expr) -> ast.expr:
        return self.to_forward(self.scope.express("index", self.scope.column(node), node), "index")

    def _slice(self, node: nodes.Range) -> ast.Slice:
        start = self._position(node.start) if node.start is not None else None
        stop = self._position(node.stop) if node.stop is not None else None
        if node.inclusive and stop is not None:
            number = stop.value if isinstance(stop, ast.Constant) else None
            stop = build.constant(number + 1) if isinstance(number, int) else build.binary("+", stop, ast.Constant(1))
        return ast.Slice(None if build.is_literal(start, 0) else start, stop, None)
