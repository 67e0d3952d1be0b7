"""The `stage` helper: one function that makes the repeated lines of a model, where at least two of them fit it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from effspec.backends.torch import build
from effspec.backends.torch.build import call, name
from effspec.backends.torch.plan.arguments import Argument
from effspec.backends.torch.plan.body import Class, Planner

_DOC = "`repeats` blocks in a row, of which the first one may change width and resolution."


@dataclass(eq=False)
class Sequence:
    """A repeated line: the `nn.Sequential` that it is printed as, its first block, the others (None for `x 1`)."""

    tree: ast.Call
    head: ast.Call
    tail: ast.Call | None
    count: int


@dataclass(eq=False)
class _Line:
    """A line that fits: what each argument does from the first block to the rest (same, first, draw or any)."""

    sequence: Sequence
    cls: Class
    head: dict[str, ast.expr]
    tail: dict[str, ast.expr] | None
    kinds: dict[str, str]

    def of_kind(self, kind: str) -> dict[str, Argument]:
        return {argument.name: argument for argument in self.cls.arguments if self.kinds.get(argument.key) == kind}


def settle(sequences: list[Sequence], drawn: list[str], planner: Planner) -> ast.FunctionDef | None:
    """Turn the lines that fit into calls of the helper, whose definition is returned; None where it is not worth it.

    `drawn` names the generators of rates.
    """
    classes = {cls.name: cls for cls in planner.classes}
    found = [line for s in sequences if (line := _line(s, classes, drawn)) is not None]
    lines, first_only = _fitting(found)
    draws = {word for line in found for word in line.of_kind("draw")}
    even = len({bool(line.of_kind("draw")) for line in lines}) == 1
    if len(lines) < 2 or all(line.tail is None for line in lines) or (drawn and len(draws) > 1) or not even:
        return None
    helper = planner.need("stage")
    rates = drawn[0] if draws else None
    kwargs = [tree for line in lines for tree in _rewrite(line, helper, first_only, rates)]
    return _definition(helper, list(first_only.values()), sorted(draws), rates, kwargs)


def _line(sequence: Sequence, classes: dict[str, Class], drawn: list[str]) -> _Line | None:
    function = sequence.head.func
    cls = classes.get(function.id) if isinstance(function, ast.Name) else None
    if cls is None or [argument.key for argument in cls.arguments][:2] != ["in", "out"]:
        return None
    head = _given(cls, sequence.head)
    tail = _given(cls, sequence.tail) if sequence.tail is not None else None
    kinds: dict[str, str] = {}
    for argument in cls.arguments[2:]:
        kind = _kind(head.get(argument.key), argument.key, tail, drawn)
        if kind is None:
            return None
        kinds[argument.key] = kind
    if tail is not None and {build.dump(tail["in"]), build.dump(tail["out"])} != {build.dump(head["out"])}:
        return None
    return _Line(sequence, cls, head, tail, kinds)


def _given(cls: Class, tree: ast.Call) -> dict[str, ast.expr]:
    """The arguments of a call by their keys."""
    keys = {argument.name: argument.key for argument in cls.arguments}
    out = {argument.key: value for argument, value in zip(cls.arguments, tree.args, strict=False)}
    return out | {keys[keyword.arg]: keyword.value for keyword in tree.keywords if keyword.arg is not None}


def _kind(first: ast.expr | None, key: str, tail: dict[str, ast.expr] | None, drawn: list[str]) -> str | None:
    """What an argument does from the first block to the rest; None where the helper cannot say it."""
    if first is not None and ast.unparse(first) in [f"next({word})" for word in drawn]:
        return "draw"
    if tail is None:
        return "any"
    rest = tail.get(key)
    if rest is None:
        return "same" if first is None else "first"
    return "same" if first is not None and build.dump(first) == build.dump(rest) else None


def _fitting(found: list[_Line]) -> tuple[list[_Line], dict[str, Argument]]:
    """The lines that one helper can make, as many as possible, and its arguments that are for the first block only."""
    choices: list[dict[str, Argument]] = [{}]
    for line in found:
        own = line.of_kind("first")
        choices[0] = {**own, **choices[0]}
        choices.append(own)
    fits = [
        [line for line in found if first.keys() >= line.of_kind("first").keys() and _takes(line, first)]
        for first in choices
    ]
    best = max(range(len(choices)), key=lambda choice: len(fits[choice]))
    return fits[best], choices[best]


def _takes(line: _Line, first_only: dict[str, Argument]) -> bool:
    """Whether the line's block has all these arguments, and the line gives none of them to all repeats."""
    names = {argument.name for argument in line.cls.arguments}
    return first_only.keys() <= names and all(_agrees(line, argument, first_only) for argument in line.cls.arguments)


def _agrees(line: _Line, argument: Argument, first_only: dict[str, Argument]) -> bool:
    """Whether an argument that some line gives to its first repeat only is not given to all repeats by another."""
    if argument.name not in first_only:
        return True
    if first_only[argument.name].default != argument.default:
        return False
    return line.kinds.get(argument.key) in ("first", "any") or argument.key not in (line.tail or {})


def _rewrite(line: _Line, helper: str, first_only: dict[str, Argument], rates: str | None) -> list[ast.expr]:
    """Make the line a call of the helper; the values that pass through its `**kwargs`."""
    tree, kwargs = line.sequence.tree, []
    tree.func = name(helper)
    tree.args = [name(line.cls.name), line.head["in"], line.head["out"]]
    tree.keywords = [ast.keyword("repeats", ast.Constant(line.sequence.count))]
    for argument in line.cls.arguments[2:]:
        value = line.head.get(argument.key)
        if value is None or line.kinds[argument.key] == "draw":
            continue
        tree.keywords.append(ast.keyword(argument.name, value))
        if argument.name not in first_only:
            kwargs.append(value)
    if rates is not None:
        tree.keywords.append(ast.keyword(rates, name(rates)))
    return kwargs


def _definition(
    helper: str, first_only: list[Argument], draws: list[str], rates: str | None, kwargs: list[ast.expr]
) -> ast.FunctionDef:
    arguments = [
        ast.arg("block", build.parse("Callable[..., nn.Module]")),
        *[ast.arg(word, name("int")) for word in ("in_channels", "out_channels", "repeats")],
    ]
    if rates is not None:
        arguments.append(ast.arg(rates, build.parse("Iterator[float]")))
    arguments += [ast.arg(argument.name, build.parse(argument.annotation)) for argument in first_only]
    passed = [ast.keyword(word, call("next", name(rates or ""))) for word in draws]
    if kwargs:
        passed.append(ast.keyword(None, name("kwargs")))
    changed = [ast.keyword(argument.name, name(argument.name)) for argument in first_only]
    first = ast.Call(name("block"), [name("in_channels"), name("out_channels")], [*changed, *passed])
    rest = ast.Call(name("block"), [name("out_channels"), name("out_channels")], passed)
    fewer = call("range", build.binary("-", name("repeats"), ast.Constant(1)))
    body = [
        ast.Expr(ast.Constant(_DOC)),
        build.assign("first", first),
        build.assign("rest", build.comprehension(rest, name("_"), fewer)),
        ast.Return(call("nn.Sequential", name("first"), ast.Starred(name("rest"), ast.Load()))),
    ]
    defaults = [build.literal(argument.default) for argument in first_only]
    others = ast.arg("kwargs", name(_type_of(kwargs))) if kwargs else None
    return build.function(helper, arguments, body, "nn.Sequential", defaults=defaults, kwargs=others)


def _type_of(kwargs: list[ast.expr]) -> str:
    """The annotation of `**kwargs`."""
    values = [tree.value if isinstance(tree, ast.Constant) else None for tree in kwargs]
    if not all(isinstance(value, int | float) for value in values):
        return "object"
    return "float" if any(isinstance(value, float) for value in values) else "int"
