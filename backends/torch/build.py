"""Small constructors of Python expression trees, and how compile-time values are written in Python."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from types import CodeType
from typing import Any, TypeVar

Tree = TypeVar("Tree", bound=ast.AST)


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
    "int": int,
    "isinstance": isinstance,
    "enumerate": enumerate,
    "zip": zip,
    "list": list,
    "reversed": reversed,
}


def code(tree: ast.expr) -> CodeType:
    """An expression of numbers, to be run."""
    return compile(ast.fix_missing_locations(ast.Expression(tree)), "<plan>", "eval")


def run(code: CodeType, names: Mapping[str, Any]) -> Any:
    """What Python makes of an expression with these names."""
    return eval(code, dict(_BUILTINS), dict(names))


def define(tree: ast.FunctionDef, names: Mapping[str, Any]) -> Callable[..., Any]:
    """The function of a definition without annotations, which may call these ones."""
    space = {**_BUILTINS, **names}
    exec(compile(ast.Module([tree], []), "<plan>", "exec"), space)
    function: Callable[..., Any] = space[tree.name]
    return function


def is_literal(tree: ast.expr | None, value: Any) -> bool:
    """Whether a tree is just this value: what a call may leave out."""
    return isinstance(tree, ast.Constant) and type(tree.value) is type(value) and tree.value == value


_BINARY: dict[str, type[ast.operator]] = {
    "+": ast.Add,
    "-": ast.Sub,
    "*": ast.Mult,
    "/": ast.Div,
    "//": ast.FloorDiv,
    "%": ast.Mod,
    "**": ast.Pow,
}
_COMPARE: dict[str, type[ast.cmpop]] = {
    "==": ast.Eq,
    "!=": ast.NotEq,
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
    "in": ast.In,
}


def binary(op: str, left: ast.expr, right: ast.expr) -> ast.BinOp:
    return ast.BinOp(left, _BINARY[op](), right)


def compare(op: str, left: ast.expr, right: ast.expr) -> ast.expr:
    """A comparison; of two constants its answer."""
    tree = ast.Compare(left, [_COMPARE[op]()], [right])
    constants = isinstance(left, ast.Constant) and isinstance(right, ast.Constant)
    return ast.Constant(run(code(tree), {})) if constants else tree


def logic(op: str, *sides: ast.expr) -> ast.expr:
    """`and` or `or` of conditions, as one chain, without the constants that decide nothing."""
    made = ast.And() if op == "and" else ast.Or()
    values: list[ast.expr] = []
    for side in sides:
        values += side.values if isinstance(side, ast.BoolOp) and type(side.op) is type(made) else [side]
    open_ = [v for v in values if not (isinstance(v, ast.Constant) and v.value is (op == "and"))]
    return ast.BoolOp(made, open_) if len(open_) > 1 else (open_ or values)[0]


def root(tree: ast.expr) -> ast.BinOp:
    """The square root."""
    return ast.BinOp(tree, ast.Pow(), ast.Constant(0.5))


def shifted(tree: ast.expr, shift: int) -> ast.expr:
    """A number `shift` higher."""
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return ast.Constant(tree.value + shift)
    return binary("+", tree, ast.Constant(shift)) if shift else tree


def added(left: ast.expr, right: ast.expr) -> ast.expr:
    """The sum of two numbers; literals are added, in both branches of a choice too."""
    if isinstance(left, ast.IfExp):
        return ast.IfExp(left.test, added(left.body, right), added(left.orelse, right))
    if isinstance(right, ast.IfExp):
        return ast.IfExp(right.test, added(left, right.body), added(left, right.orelse))
    if isinstance(left, ast.BinOp) and isinstance(left.op, ast.Sub) and dump(left.right) == dump(right):
        return left.left
    numbers = [tree.value for tree in (left, right) if isinstance(tree, ast.Constant) and isinstance(tree.value, int)]
    return ast.Constant(sum(numbers)) if len(numbers) == 2 else binary("+", left, right)


def elements(tree: ast.expr) -> list[ast.expr]:
    """The elements of a list or tuple written out; a single expression is one."""
    return list(tree.elts) if isinstance(tree, ast.List | ast.Tuple) else [tree]


def tupled(tree: ast.expr) -> ast.expr:
    """A list written out as a tuple, other expressions as they are."""
    return ast.Tuple(tree.elts, ast.Load()) if isinstance(tree, ast.List) else tree


def store(tree: ast.expr) -> ast.expr:
    """A name, attribute or tuple of them as a place to assign to."""
    for node in [tree, *(tree.elts if isinstance(tree, ast.Tuple) else [])]:
        if isinstance(node, ast.Tuple) and node is not tree:
            store(node)
        elif isinstance(node, ast.Name | ast.Attribute | ast.Tuple):
            node.ctx = ast.Store()
    return tree


def assign(target: ast.expr | str, value: ast.expr) -> ast.Assign:
    return ast.Assign([store(parse(target) if isinstance(target, str) else target)], value, lineno=0)


def function(
    word: str,
    inputs: list[ast.arg],
    body: list[ast.stmt],
    returns: str | None = None,
    *,
    defaults: Sequence[ast.expr] = (),
    kwargs: ast.arg | None = None,
) -> ast.FunctionDef:
    """`def word(inputs, **kwargs) -> returns:`; `defaults` are those of the last inputs."""
    signature = ast.arguments([], inputs, None, [], [], kwargs, list(defaults))
    annotation = parse(returns) if returns is not None else None
    return ast.FunctionDef(name=word, args=signature, body=body, decorator_list=[], returns=annotation, lineno=0)


def choice(test: ast.expr, chosen: ast.expr, otherwise: ast.expr) -> ast.IfExp:
    """`chosen if test else otherwise`, the other way round for a test that says "not"."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return ast.IfExp(test.operand, otherwise, chosen)
    return ast.IfExp(test, chosen, otherwise)


def assigns(statement: ast.stmt, word: str) -> bool:
    """Whether a statement is `self.word = ...`."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    return isinstance(target, ast.Attribute) and target.attr == word and is_name(target.value, "self")


def is_name(tree: ast.expr, word: str) -> bool:
    """Whether a tree is just this name."""
    return isinstance(tree, ast.Name) and tree.id == word


def comprehension(element: ast.expr, target: ast.expr, iterable: ast.expr) -> ast.ListComp:
    """`[element for target in iterable]`."""
    return ast.ListComp(element, [ast.comprehension(store(target), iterable, [], 0)])


def table(key: ast.expr, element: ast.expr, target: ast.expr, iterable: ast.expr) -> ast.DictComp:
    """`{key: element for target in iterable}`."""
    return ast.DictComp(key, element, [ast.comprehension(store(target), iterable, [], 0)])


def commented(tree: Tree, comment: str) -> Tree:
    """The tree, with a comment at the end of its line."""
    if comment:
        tree.comment = comment  # type: ignore[attr-defined]
    return tree


def comment_of(tree: ast.AST) -> str:
    return str(getattr(tree, "comment", ""))


def in_rows(tree: Tree) -> Tree:
    """A list or table whose elements get a line each."""
    tree.rows = True  # type: ignore[attr-defined]
    return tree


def dump(tree: ast.AST) -> str:
    """A text by which equal trees are equal."""
    return ast.dump(tree)


def free_names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def is_element(tree: ast.AST, word: str, index: str) -> bool:
    """Whether a tree is `word[index]`."""
    match tree:
        case ast.Subscript(value=ast.Name(id=listed), slice=ast.Name(id=place)):
            return (listed, place) == (word, index)
    return False


def replace(tree: Tree, choose: Callable[[ast.AST], ast.expr | None]) -> Tree:
    """A copy of the tree with the parts replaced for which `choose` gives another one."""

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            other = choose(node)
            return self.generic_visit(node) if other is None else other

    result: Tree = Replace().visit(copy.deepcopy(tree))
    return result


def substitute(tree: Tree, names: Mapping[str, ast.expr]) -> Tree:
    """A copy of the tree with names replaced by expressions where they are read."""
    return replace(
        tree,
        lambda node: names.get(node.id) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else None,
    )
