"""Comprehensions over tensors."""

from __future__ import annotations

import ast

from effspec.backends.torch import build
from effspec.backends.torch.build import name
from effspec.backends.torch.plan.body import Text
from effspec.backends.torch.plan.columns import Column, Loop, Untranslatable
from effspec.backends.torch.plan.dataflow import Dataflow
from effspec.backends.torch.plan.loops import Pairs, read_pairs

from effspec.syntax import nodes


class Comprehensions(Dataflow):
    """`Dataflow` with comprehensions."""

    def comprehension(self, node: nodes.Comprehension) -> Text:
        """A comprehension in Python where its element has one text for all turns, else the list of its elements."""
        state = self.snapshot()
        try:
            return self._symbolic(node)
        except Untranslatable:
            self.restore(state)
        items = []
        for index in range(self.one_count(self.scope.column(node.iterable))):
            loop = Loop(node, index, {target.id: ast.Constant(index) for target in node.targets})
            self.scope.loops.append(loop)
            outer = dict(self.names)
            self.name_elements(node, index)
            items.append(self.value(node.element).tree)
            self.names = outer
            self.scope.loops.pop()
        return Text(ast.List(items, ast.Load()), None, True)

    def _symbolic(self, node: nodes.Comprehension) -> Text:
        counts: Column = {entry: len(value) for entry, value in self.scope.column(node.iterable).items()}
        outer = dict(self.names)
        index = self.index_name(node)
        items = self.open_loop(node)
        try:
            tree = self.value(node.element).tree
            listed = self._elements_of_lists(node, tree, index, counts) if index else None
        finally:
            modules, used = self.close_loop()
        self.names = outer
        lists: Pairs = []
        if listed is not None:
            tree, pair = listed
            lists = [pair]
            used.discard(index)
        read = build.free_names(tree)
        needs = index if index and (index in used or index in read) else None
        target, iterable = self.header(node, [*modules, *lists, *read_pairs(items, read)], needs, counts)
        return Text(build.comprehension(tree, target, iterable), None, True)

    def _elements_of_lists(
        self, node: nodes.Comprehension, tree: ast.expr, index: str, counts: Column
    ) -> tuple[ast.expr, tuple[ast.expr, ast.expr]] | None:
        """The element with `xs[i]` as `x`, where `xs` is the only such list and as long as the loop."""
        lists = {
            part.value.id
            for part in ast.walk(tree)
            if isinstance(part, ast.Subscript) and build.is_name(part.slice, index) and isinstance(part.value, ast.Name)
        }
        if len(lists) != 1 or "x" in build.free_names(tree):
            return None
        (word,) = lists
        if self._length_of(node, word) != counts:
            return None
        element = build.replace(tree, lambda part: name("x") if build.is_element(part, word, index) else None)
        return element, (name("x"), name(word))

    def _length_of(self, node: nodes.Comprehension, variable: str) -> Column | None:
        """The length of a list of tensors in each turn of the loops outside."""
        for part in nodes.descend(node.element):
            listed = part.value if isinstance(part, nodes.Index) else None
            if isinstance(listed, nodes.Name) and self.variable(listed.id) == variable:
                column = self.scope.values.get(listed, {})
                return {(instance, iteration[:-1]): len(value) for (instance, iteration), value in column.items()}
        return None
