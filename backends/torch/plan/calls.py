"""Calls of planned classes: what each of their arguments is where the block is applied."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from effspec.backends.torch import build
from effspec.backends.torch.build import name
from effspec.backends.torch.plan.arguments import Argument
from effspec.backends.torch.plan.body import Applications, Class, Text, force
from effspec.backends.torch.plan.columns import Column, Split
from effspec.backends.torch.plan.loops import Loops

from effspec.layers import Bound, Instance, key
from effspec.syntax import nodes


class Calls(Loops):
    """`Loops` with calls of planned classes."""

    def class_call(self, entries: Applications, source: Text) -> ast.Call:
        """`Block(in, out, kernel, name=...)` of the class that was planned for the blocks applied here."""
        children = {entry: application.child for entry, application in entries.items() if application.child is not None}
        classes = {entry: self.planner.class_of(child) for entry, child in children.items()}
        cls = next(iter(classes.values()))
        if any(other is not cls for other in classes.values()):
            raise Split({instance: id(other) for (instance, _), other in classes.items()})
        given: dict[str, ast.expr] = {}
        for argument in cls.arguments:
            column: Column = {entry: argument.column[child] for entry, child in children.items()}
            settable = self._reads_runtime(self.hint(argument.key, entries))
            if argument.required or settable or any(key(v) != key(argument.default) for v in column.values()):
                given[argument.key] = self._argument(argument, column, entries, source)
        self.made = given.get(cls.out_channels) if cls.out_channels else None
        return _inlined(cls, given) or _call(cls, given)

    def _reads_runtime(self, node: nodes.Expr | None) -> bool:
        """Whether a constructor argument of the compiled model may change the value of an expression."""
        names = {part.id for part in nodes.descend(node) if isinstance(part, nodes.Name)} if node is not None else set()
        return bool(names & self.scope.runtime.keys())

    def _argument(self, argument: Argument, column: Column, entries: Applications, source: Text) -> ast.expr:
        if argument.key == "in":
            known = source.channels is not None and not any(isinstance(v, tuple) for v in column.values())
            return self.scope.express("in_channels", column, None, force(source.channels) if known else None)
        if argument.key == "inputs":
            return self.scope.express("inputs", column, None, self._how_many(source.tree))
        contextual = self._contextual(argument.key, entries)
        tree = self.draw(contextual, argument, entries) if contextual is not None else None
        if tree is None:
            hint = self.hint(argument.key, entries) or self._shared_source(argument, entries)
            tree = self.scope.express(argument.key.lstrip("="), column, hint)
        if argument.annotation == "float":
            self.scope.real(tree)
        return tree

    def _shared_source(self, argument: Argument, entries: Applications) -> nodes.Expr | None:
        """What a group says itself: it reads the names of the body around it."""
        groups = all(a.child is not None and isinstance(a.child.node, nodes.Group) for a in entries.values())
        return argument.source if groups else None

    def _how_many(self, tree: ast.expr) -> ast.expr | None:
        """How many elements a list of tensors in forward has, if its text says so."""
        match tree:
            case ast.List():
                return ast.Constant(len(tree.elts))
            case ast.Name() if tree is self.entry.tree:
                return self.scope.inputs()
            case ast.IfExp():
                body, orelse = self._how_many(tree.body), self._how_many(tree.orelse)
                return ast.IfExp(tree.test, body, orelse) if body and orelse else None
            case ast.BinOp(op=ast.Add()):
                left, right = self._how_many(tree.left), self._how_many(tree.right)
                return build.added(left, right) if left and right else None
        return None

    def draw(self, entry: nodes.DefaultEntry, argument: Argument, entries: Applications) -> ast.expr | None:
        """A value that a model's `default` gives to a repeated line; models have one."""
        return None

    def hint(self, word: str, entries: Applications) -> nodes.Expr | None:
        """The expression of the spec that gave an argument, if one and the same did in every entry of this class."""
        found: nodes.Node | None = None
        for (instance, _), application in entries.items():
            given = application.child.arguments if application.child is not None else {}
            node = _written(given.get(word) or application.layer.bound.get(word), instance)
            if node is None or (found is not None and node is not found):
                return None
            found = node
        return found if isinstance(found, nodes.Expr) else None

    def _contextual(self, word: str, entries: Applications) -> nodes.DefaultEntry | None:
        """The `default` of the model that gave an argument."""
        child = next(iter(entries.values())).child
        bound = child.arguments.get(word) if child is not None else None
        if bound is None or bound.how != "contextual":
            return None
        return bound.node if isinstance(bound.node, nodes.DefaultEntry) else None


def _written(bound: Bound | None, instance: Instance) -> nodes.Node | None:
    """The expression that gave an argument in this very instance."""
    if bound is None or bound.instance is not instance or bound.how != "given":
        return None
    if isinstance(bound.node, nodes.Argument):
        return bound.node.value if bound.node.then is None else None
    return bound.node


def _inlined(cls: Class, given: Mapping[str, ast.expr]) -> ast.Call | None:
    """The expression that a class stands for, if its arguments are names or numbers here."""
    values = {a.name: given.get(a.key) or build.literal(a.default) for a in cls.arguments}
    if cls.inline is None or not all(isinstance(tree, ast.Name | ast.Constant) for tree in values.values()):
        return None
    tree = build.substitute(cls.inline, values)
    assert isinstance(tree, ast.Call)
    return tree


def _call(cls: Class, given: Mapping[str, ast.expr]) -> ast.Call:
    """Inputs, outputs and kernel by position, the rest by keyword."""
    positional: list[ast.expr] = []
    keywords: list[ast.keyword] = []
    for position, argument in enumerate(cls.arguments):
        tree = given.get(argument.key)
        if tree is None:
            continue
        if "tuple[" in argument.annotation and not argument.annotation.startswith("list["):
            tree = build.tupled(tree)
        if len(positional) == position and argument.key in ("in", "inputs", "out", "k"):
            positional.append(tree)
        else:
            keywords.append(ast.keyword(argument.name, tree))
    return ast.Call(name(cls.name), positional, keywords)
