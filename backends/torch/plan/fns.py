"""Functions of the spec as Python functions of the emitted file, with the parameters that its calls give."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from effspec.backends.torch import build
from effspec.backends.torch.plan.arguments import RESERVED, annotation_of
from effspec.backends.torch.plan.columns import Untranslatable

from effspec.modules import Definition
from effspec.syntax import nodes

Names: TypeAlias = dict[str, ast.expr]


# The language's own functions of numbers ------------------------------------------------------------------------------


def _nearest_even(v: ast.expr, multiple: ast.expr | None = None) -> ast.expr:
    if multiple is None:
        return build.call("round", v)
    return build.binary("*", build.call("round", build.binary("/", v, multiple)), multiple)


def _half_up(v: ast.expr, multiple: ast.expr | None = None) -> ast.expr:
    return _down(build.binary("+", v, _half(multiple)), multiple)


def _down(v: ast.expr, multiple: ast.expr | None = None) -> ast.expr:
    whole = build.call("int", v)
    return whole if multiple is None else build.binary("*", build.binary("//", whole, multiple), multiple)


def _up(v: ast.expr, multiple: ast.expr | None = None) -> ast.expr:
    below = build.binary("//", ast.UnaryOp(ast.USub(), v), multiple or ast.Constant(1))
    whole = ast.UnaryOp(ast.USub(), build.call("int", below))
    return whole if multiple is None else build.binary("*", whole, multiple)


def _half(multiple: ast.expr | None) -> ast.expr:
    if multiple is None:
        return ast.Constant(0.5)
    value = multiple.value if isinstance(multiple, ast.Constant) else None
    if isinstance(value, int) and value % 2 == 0:
        return ast.Constant(value // 2)
    return build.binary("/", multiple, ast.Constant(2))


def _plain(word: str) -> Callable[..., ast.expr]:
    return lambda *args: build.call(word, *args)


ROUNDINGS: dict[str, Callable[..., ast.expr]] = {
    "round": _nearest_even,
    "round_half_up": _half_up,
    "floor": _down,
    "ceil": _up,
}
"""How Python rounds a number that is not negative, to a multiple of another one."""
BUILTINS: dict[str, Callable[..., ast.expr]] = {
    **ROUNDINGS,
    **{word: _plain(word) for word in ("abs", "enumerate", "len", "max", "min", "sum", "zip")},
    "sqrt": build.root,
    "reverse": lambda xs: ast.Subscript(xs, ast.Slice(None, None, build.constant(-1)), ast.Load()),
}


# Functions of the spec ------------------------------------------------------------------------------------------------


class Functions:
    """The functions that the texts of one file may call.

    A function is written for the calls that there are: a parameter that no call gives stands as its default.  What
    passes through while texts are tried gives the annotations.
    """

    def __init__(self, words: set[str]) -> None:
        self.words = words
        self.namespace: dict[str, Callable[..., Any]] = {}
        self._definitions: dict[str, Definition] = {}
        self._trees: dict[str, ast.FunctionDef] = {}
        self._given: dict[str, set[str]] = {}
        self._seen: dict[tuple[str, str], list[Any]] = {}

    def call(self, definition: Definition, node: nodes.Call, arguments: Sequence[ast.expr]) -> ast.Call:
        """A call of a function with these arguments, as `node` writes them; raises Untranslatable."""
        fn = definition.node
        assert isinstance(fn, nodes.Fn)
        word = fn.name.id
        if word in self.words | RESERVED or self._definitions.setdefault(word, definition) is not definition:
            raise Untranslatable(word)
        declared = [parameter.name.id for parameter in fn.parameters]
        given = {a.name.id if a.name else declared[n] for n, a in enumerate(node.arguments)}
        required = {p.name.id for p in fn.parameters if p.default is None}
        known = self._given.setdefault(word, set())
        if word not in self._trees or not given | required <= known:
            known |= given | required
            self._write(definition, fn)
        positional = [tree for a, tree in zip(node.arguments, arguments, strict=True) if a.name is None]
        keywords = [ast.keyword(a.name.id, tree) for a, tree in zip(node.arguments, arguments, strict=True) if a.name]
        return ast.Call(build.name(word), positional, keywords)

    def used(self, trees: Iterable[ast.AST]) -> list[ast.FunctionDef]:
        """The functions that these texts call, callees first, with annotations."""
        found: dict[str, None] = {}

        def visit(tree: ast.AST) -> None:
            for word in sorted(build.free_names(tree) & self._trees.keys()):
                if word not in found:
                    visit(self._trees[word])
                    found[word] = None

        for tree in trees:
            visit(tree)
        return [self._annotated(word) for word in found]

    # Writing one

    def _write(self, definition: Definition, fn: nodes.Fn) -> None:
        word = fn.name.id
        names: Names = {}
        parameters: list[tuple[str, ast.expr | None]] = []
        body: list[ast.stmt] = [ast.Expr(ast.Constant(fn.doc))] if fn.doc else []
        for parameter in fn.parameters:
            name = parameter.name.id
            default = None if parameter.default is None else self._expression(definition, parameter.default, names)
            if name not in self._given[word]:
                assert default is not None
                names[name] = default
                continue
            if default is not None and not isinstance(default, ast.Constant):
                raise Untranslatable(f"{word} has a default that Python cannot say")
            names[name] = build.name(_variable(name))
            parameters.append((_variable(name), default))
        for statement in fn.statements:
            if isinstance(statement, nodes.Bind):  # what `require` asks was held when this was compiled
                if isinstance(statement.value, nodes.For):
                    raise Untranslatable(word)
                value = self._expression(definition, statement.value, names)
                targets: list[ast.expr] = []
                for target in statement.targets:
                    names[target.id] = build.name(_variable(target.id))
                    targets.append(build.name(_variable(target.id)))
                body.append(build.assign(targets[0] if len(targets) == 1 else ast.Tuple(targets, ast.Load()), value))
        body.append(ast.Return(self._expression(definition, fn.result, names)))
        defaults = [default for _, default in parameters if default is not None]
        tree = build.function(word, [ast.arg(name) for name, _ in parameters], body, defaults=defaults)
        self._trees[word] = ast.fix_missing_locations(tree)
        self.namespace[word] = self._observed(tree)

    def _observed(self, tree: ast.FunctionDef) -> Callable[..., Any]:
        """The function, which notes the values that pass through it."""
        function = build.define(tree, self.namespace)
        words = [argument.arg for argument in tree.args.args]

        def observed(*args: Any, **keywords: Any) -> Any:
            result = function(*args, **keywords)
            for word, value in [*zip(words, args, strict=False), *keywords.items(), ("return", result)]:
                self._seen.setdefault((tree.name, word), []).append(value)
            return result

        return observed

    def _annotated(self, word: str) -> ast.FunctionDef:
        tree = self._trees[word]
        words = tree.args.args
        defaults = {a.arg: d for a, d in zip(words[::-1], tree.args.defaults[::-1], strict=False)}
        for argument in words:
            default = defaults.get(argument.arg)
            also = [default.value] if isinstance(default, ast.Constant) else []
            argument.annotation = build.parse(annotation_of([*self._seen[word, argument.arg], *also]))
        tree.returns = build.parse(annotation_of(self._seen[word, "return"]))
        return tree

    # Expressions

    def _expression(self, definition: Definition, node: nodes.Expr, names: Names) -> ast.expr:
        def inner(part: nodes.Expr) -> ast.expr:
            return self._expression(definition, part, names)

        match node:
            case nodes.Number() | nodes.Boolean() | nodes.String():
                return build.literal(node.value)
            case nodes.Name() if node.id in names:
                return names[node.id]
            case nodes.Unary():
                return ast.UnaryOp(ast.Not() if node.op == "not" else ast.USub(), inner(node.operand))
            case nodes.Binary():
                return build.binary(node.op, inner(node.left), inner(node.right))
            case nodes.Compare():
                return build.compare(node.op, inner(node.left), inner(node.right))
            case nodes.Logic():
                return build.logic(node.op, inner(node.left), inner(node.right))
            case nodes.Ternary():
                return ast.IfExp(inner(node.condition), inner(node.chosen), inner(node.otherwise))
            case nodes.List():
                return ast.List([inner(item) for item in node.items], ast.Load())
            case nodes.Index() if not isinstance(node.index, nodes.Range):
                return ast.Subscript(inner(node.value), inner(node.index), ast.Load())
            case nodes.Range() if node.stop is not None:
                return _range(node, inner)
            case nodes.Comprehension():
                return self._comprehension(definition, node, names)
            case nodes.Call(function=nodes.Name(id=word)):
                arguments = [inner(argument.value) for argument in node.arguments]
                callee = definition.module.definitions.get(word)
                if callee is not None and isinstance(callee.node, nodes.Fn):
                    return self.call(callee, node, arguments)
                if word in BUILTINS and not any(argument.name for argument in node.arguments):
                    return BUILTINS[word](*arguments)
        raise Untranslatable(node.span.text)

    def _comprehension(self, definition: Definition, node: nodes.Comprehension, names: Names) -> ast.expr:
        iterable = self._expression(definition, node.iterable, names)
        targets = [build.name(_variable(target.id)) for target in node.targets]
        inside = names | {target.id: tree for target, tree in zip(node.targets, targets, strict=True)}
        element = self._expression(definition, node.element, inside)
        read = build.free_names(element)
        shown: list[ast.expr] = [build.name(tree.id if tree.id in read else "_") for tree in targets]
        return build.comprehension(element, shown[0] if len(shown) == 1 else ast.Tuple(shown, ast.Load()), iterable)


def _range(node: nodes.Range, inner: Callable[[nodes.Expr], ast.expr]) -> ast.expr:
    assert node.stop is not None
    start = [] if node.start is None or build.is_literal(inner(node.start), 0) else [inner(node.start)]
    return build.call("range", *start, build.shifted(inner(node.stop), int(node.inclusive)))


def _variable(word: str) -> str:
    return word + "_" if word in RESERVED else word
