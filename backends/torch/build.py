"""Small constructors of Python expression trees, and how compile-time values are written in Python."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from fractions import Fraction
from typing import Any


def parse(text: str) -> ast.expr:
    """The tree of an expression written out."""
    return ast.parse(text, mode="eval").body


def name(word: str) -> ast.Name:
    return ast.Name(word, ast.Load())


def attribute(value: ast.expr, word: str) -> ast.Attribute:
    return ast.Attribute(value, word, ast.Load())


def own(word: str) -> ast.Attribute:
    """`self.word`."""
    return attribute(name("self"), word)


def call(function: ast.expr | str, *args: ast.expr, **keywords: ast.expr) -> ast.Call:
    target = parse(function) if isinstance(function, str) else function
    return ast.Call(target, list(args), [ast.keyword(key, value) for key, value in keywords.items()])


def constant(value: Any) -> ast.expr:
    """A Python literal; negative numbers as the parser would read them."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)


class ModuleClass(str):
    """A class of `torch.nn`, such as `nn.ReLU`, as the value of an argument."""

    __slots__ = ()


def literal(value: Any) -> ast.expr:
    """A compile-time value as Python writes it: pairs are tuples inside lists, fractions are floats."""
    if isinstance(value, ModuleClass):
        return parse(value)
    value = python(value)
    if isinstance(value, list):
        pairs = [tuple(v) if isinstance(v, list) and len(v) == 2 else v for v in value]
        return ast.List([literal_tuple(v) if isinstance(v, tuple) else literal(v) for v in pairs], ast.Load())
    if isinstance(value, tuple):
        return literal_tuple(value)
    return constant(value)


def literal_tuple(value: tuple[Any, ...]) -> ast.expr:
    return ast.Tuple([literal(v) for v in value], ast.Load())


def python(value: Any) -> Any:
    """The Python number, text or list of a compile-time value."""
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, tuple):
        return [python(v) for v in value]
    return value


def same(result: Any, wanted: Any) -> bool:
    """Whether a Python result is the compile-time value: integers equal and int, reals within 4e-16 relative."""
    if isinstance(wanted, bool) or isinstance(result, bool):
        return type(result) is type(wanted) and bool(result == wanted)
    if isinstance(wanted, int):
        return type(result) is int and result == wanted
    if isinstance(wanted, Fraction):
        return isinstance(result, int | float) and abs(float(result) - float(wanted)) <= 4e-16 * abs(float(wanted))
    if isinstance(wanted, tuple):
        return (
            isinstance(result, list | tuple)
            and len(result) == len(wanted)
            and all(same(r, w) for r, w in zip(result, wanted, strict=True))
        )
    return bool(result == wanted)


_BUILTINS = {
    "__builtins__": {},
    "round": round,
    "len": len,
    "range": range,
    "max": max,
    "min": min,
    "abs": abs,
    "sum": sum,
}


def evaluate(tree: ast.expr, names: Mapping[str, Any]) -> Any:
    """What Python makes of an expression of numbers, with these names."""
    code = compile(ast.fix_missing_locations(ast.Expression(tree)), "<plan>", "eval")
    return eval(code, dict(_BUILTINS), dict(names))


def is_literal(tree: ast.expr | None, value: Any) -> bool:
    """Whether a tree is just this value: what a call may leave out."""
    return isinstance(tree, ast.Constant) and type(tree.value) is type(value) and tree.value == value


def assign(target: ast.expr | str, value: ast.expr) -> ast.Assign:
    place = parse(target) if isinstance(target, str) else target
    if isinstance(place, ast.Name | ast.Attribute | ast.Tuple):
        place.ctx = ast.Store()
        if isinstance(place, ast.Tuple):
            for element in place.elts:
                element.ctx = ast.Store()  # type: ignore[attr-defined]
    return ast.Assign([place], value, lineno=0)


def dump(tree: ast.AST) -> str:
    """A text by which equal trees are equal."""
    return ast.dump(tree)


def free_names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def substitute(tree: ast.expr, names: Mapping[str, ast.expr]) -> ast.expr:
    """The tree with names replaced by expressions."""

    class Replace(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return names.get(node.id, node)

    import copy

    result: ast.expr = Replace().visit(copy.deepcopy(tree))
    return result
