"""What the finished `__init__` of a class says twice: arguments that others say already, and indices of one list."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from effspec.backends.torch import build
from effspec.backends.torch.build import call, name
from effspec.backends.torch.plan.arguments import Argument
from effspec.backends.torch.plan.columns import Column
from effspec.backends.torch.plan.scope import Scope


def merge(scope: Scope) -> None:
    """Write `widths[src]` for `in_channels`, `len(in_channels)` for `inputs`, where that is so in every instance.

    And `for width in widths` for `for i in range(len(widths))` where `i` is the index of that list only.
    """
    _merge_arguments(scope)
    _merge_names(scope)
    scope.init = [_ThroughLists().visit(statement) for statement in scope.init]


def _merge_arguments(scope: Scope) -> None:
    for key in ("in", "inputs"):
        argument = scope.arguments.get(key)
        if argument is None or argument.name not in _read(scope):
            continue
        column: Column = {(instance, ()): value for instance, value in argument.column.items()}
        found = next((tree for tree in _texts(scope, argument) if scope.holds(tree, column)), None)
        if found is not None:
            del scope.arguments[key]
            _substitute(scope, argument.name, found)


def _merge_names(scope: Scope) -> None:
    """No local that is just another name for an argument."""
    for position, statement in enumerate(scope.init):
        match statement:
            case ast.Assign(targets=[ast.Name(id=word)], value=ast.Name() as same):
                scope.init = [*scope.init[:position], *scope.init[position + 1 :]]
                _substitute(scope, word, same)
                _merge_names(scope)
                return


def _read(scope: Scope) -> set[str]:
    return {word for statement in scope.init for word in build.free_names(statement)}


def _texts(scope: Scope, argument: Argument) -> Iterator[ast.expr]:
    """What the other arguments may say; of those that the definition names only what `__init__` reads anyway."""
    read = _read(scope)
    others = [a for a in scope.arguments.values() if a is not argument and a.name in read]
    lists = [a for a in others if a.annotation == "list[int]" and not a.promoted]
    for listed in lists:
        if argument.key == "inputs":
            yield call("len", name(listed.name))
        elif argument.annotation == "list[int]":
            yield name(listed.name)
        else:
            numbers = [a for a in others if a.key in scope.parameters and a.annotation == "int"]
            yield from [ast.Subscript(name(listed.name), name(number.name), ast.Load()) for number in numbers]


def _substitute(scope: Scope, word: str, tree: ast.expr) -> None:
    scope.init = [build.substitute(statement, {word: tree}) for statement in scope.init]


class _ThroughLists(ast.NodeTransformer):
    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        self.generic_visit(node)
        generator = node.generators[0]
        match generator.target, generator.iter:
            case (
                ast.Name(id=index),
                ast.Call(func=ast.Name(id="range"), args=[ast.Call(func=ast.Name(id="len"), args=[ast.Name(id=word)])]),
            ):
                variable = _one_of(word)
                element = build.replace(
                    node.elt, lambda part: name(variable) if build.is_element(part, word, index) else None
                )
                if variable not in build.free_names(node.elt) and not build.free_names(element) & {index, word}:
                    return build.comprehension(element, name(variable), name(word))
        return node


def _one_of(word: str) -> str:
    """A variable for one element of a list."""
    if word == "in_channels":
        return "channels"
    return word.removesuffix("s") if word.endswith("s") else word + "_"
