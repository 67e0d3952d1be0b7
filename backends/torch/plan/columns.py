"""Columns: the value of an expression of the spec at each (instance, iteration) where it ran.

Everything about a class is decided on columns: what is alike in all of its instances, and what belongs to its shape.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from effspec.layers import Instance, Iteration, Tensor, key
from effspec.syntax import nodes

Entry: TypeAlias = tuple[Instance, Iteration]
Column: TypeAlias = dict[Entry, Any]


class Untranslatable(Exception):
    """This text of the spec has no Python text here; the caller falls back."""


class Split(Exception):
    """The instances do different things here: the class has to be divided by this value."""

    def __init__(self, values: Mapping[Instance, Any]) -> None:
        super().__init__("split")
        self.values = values


@dataclass(eq=False)
class Loop:
    """A loop of the body while it is translated: symbolic (its variables exist in Python) or at one fixed index.

    `by_index`: its modules are reached by the loop's index, not gone through.
    """

    node: nodes.For | nodes.Comprehension
    index: int | None
    names: dict[str, ast.expr] = field(default_factory=dict)
    by_index: bool = False


def constant_of(column: Column) -> tuple[bool, Any]:
    """(True, the value that all entries share), else (False, None); raises Untranslatable where there is none."""
    if not column:
        raise Untranslatable("it never ran")
    iterator = iter(column.values())
    first = next(iterator)
    wanted = key(first)
    return (True, first) if all(key(value) == wanted for value in iterator) else (False, None)


def sample_of(column: Column) -> Any:
    """One value of a column, None of an empty one; an empty list, which may be one of anything, only if all are."""
    return next((value for value in column.values() if value != ()), next(iter(column.values()), None))


class Columns:
    """The record of the instances that share a class, by place in the text."""

    def __init__(self, instances: list[Instance], *, literal: bool, runtime: Mapping[str, Any]) -> None:
        self.instances = instances
        self.node = instances[0].node
        self.is_model = isinstance(self.node, nodes.Model)
        self.literal = literal
        self.runtime = dict(runtime)
        self.loops: list[Loop] = []
        self.recorded: dict[nodes.Node, Column] = {}
        for instance in instances:
            for (node, iteration), value in instance.values.items():
                self.recorded.setdefault(node, {})[instance, iteration] = value
        # What the translation sees of it: a branch sees the instances that took it.
        self.values = self.recorded
        self.parameters: dict[str, nodes.Parameter] = {}
        if isinstance(self.node, nodes.Block | nodes.Model):
            self.parameters = {parameter.name.id: parameter for parameter in self.node.parameters}
        self.binders: dict[str, list[tuple[nodes.Identifier, nodes.Bind]]] = {}
        for part in nodes.descend(self.node):
            if isinstance(part, nodes.Bind):
                for target in part.targets:
                    self.binders.setdefault(target.id, []).append((target, part))
        self.varying = {
            name
            for name in self.parameters
            if not self.is_model and len({key(i.arguments[name].value) for i in instances if name in i.arguments}) > 1
        }
        self._structural: dict[nodes.Node, bool] = {}

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

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Look past the branch where the translation stands."""
        narrowed, self.values = self.values, self.recorded
        try:
            yield
        finally:
            self.values = narrowed

    # Structure

    def structural(self, node: nodes.Node | None) -> bool:
        """Whether a value belongs to the shape of the class, so that it may not be frozen as a literal."""
        if node is None or self.literal:
            return False
        if node not in self._structural:
            self._structural[node] = False
            self._structural[node] = any(self._makes_structural(part) for part in nodes.descend(node))
        return self._structural[node]

    def _makes_structural(self, part: nodes.Node) -> bool:
        if isinstance(part, nodes.Name):
            return part.id in self.runtime or self._name_is_structural(part.id)
        if isinstance(part, nodes.Attribute) and not self.is_model:
            return isinstance(sample_of(self.values.get(part.value, {})), Tensor)
        return self.counts_inputs(part)

    def counts_inputs(self, node: nodes.Node) -> bool:
        """Whether an expression is the length of the list that comes in."""
        match node:
            case nodes.Call(function=nodes.Name(id="len"), arguments=(nodes.Argument(value=nodes.Name() as listed),)):
                return self.is_input_list(listed)
        return False

    def is_input_list(self, node: nodes.Node) -> bool:
        """Whether an expression is the list of tensors that comes in."""
        on = self.node.on if isinstance(self.node, nodes.Block) else ()
        words = {"input", *(word.id for word in on if len(on) == 1)}
        return isinstance(node, nodes.Name) and node.id in words and isinstance(self.instances[0].input, tuple)

    def _name_is_structural(self, name: str) -> bool:
        bound = any(self.structural(bind.value) for _, bind in self.binders.get(name, ()))
        if self.is_model:
            return bound
        if name in self.varying or name == "out":
            return True
        if bound or name not in self.parameters:
            return bound
        return self.all_default(name) and self.structural(self.parameters[name].default)

    def all_default(self, name: str) -> bool:
        """Whether no caller gave this parameter: then it is a name for its default."""
        return all(i.arguments[name].how == "default" for i in self.instances if name in i.arguments)

    def is_last(self, node: nodes.Index) -> bool:
        """Whether an index, which differs, is always that of the last element."""
        indices, lists = self.column(node.index), self.column(node.value)
        return len(set(indices.values())) > 1 and all(e in lists and i == len(lists[e]) - 1 for e, i in indices.items())

    # Loops around the translation

    def symbolic(self) -> list[Loop]:
        """The loops around the translation that are loops in Python too."""
        return [loop for loop in self.loops if loop.index is None]

    def reads_loop(self, node: nodes.Node) -> bool:
        """Whether an expression reads a variable of a Python loop, or a name that is bound to what reads one."""
        loops = self.symbolic()
        names = {name for loop in loops for name in loop.names}
        bound = {bind for loop in loops for bind in nodes.descend(loop.node) if isinstance(bind, nodes.Bind)}
        pending, seen = [node], set[str]()
        while pending:
            for part in nodes.descend(pending.pop()):
                if isinstance(part, nodes.Name) and part.id not in seen:
                    if part.id in names:
                        return True
                    seen.add(part.id)
                    pending += [bind.value for _, bind in self.binders.get(part.id, ()) if bind in bound]
        return False

    def loop_variables(self) -> list[ast.Name]:
        """The variables of the Python loops around the translation."""
        return [tree for loop in self.symbolic() for tree in loop.names.values() if isinstance(tree, ast.Name)]
