"""Nodes to text: the canonical way to write a tree, one statement a line."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from effspec.syntax import nodes

# How tightly a form binds, loosest first: the levels of the grammar.
TERNARY, PIPE, OR, AND, NOT, COMPARE, RANGE, SUM, PRODUCT, UNARY, POWER, POSTFIX = range(12)
_BINARY = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "//": PRODUCT, "%": PRODUCT, "**": POWER}
_INDENT = "    "
_PLAIN_DIGITS = 24


def write(node: nodes.Node) -> str:
    """The text of a file, an item, a statement or an expression.

    Numbers have to be decimals (every number that was parsed is one); ValueError otherwise.
    """
    match node:
        case nodes.File():
            return f"effspec {node.edition}\n" + "".join(f"{_item(item)}\n" for item in node.items)
        case nodes.Body():
            return _body(node)
        case (
            nodes.Import()
            | nodes.Constant()
            | nodes.Fn()
            | nodes.Block()
            | nodes.Scaling()
            | nodes.Model()
            | nodes.Rescaled()
            | nodes.Variant()
            | nodes.Expect()
        ):
            return _item(node)
        case (
            nodes.Line()
            | nodes.Bind()
            | nodes.For()
            | nodes.If()
            | nodes.Param()
            | nodes.Default()
            | nodes.Output()
            | nodes.Require()
            | nodes.Yield()
            | nodes.Prepare()
        ):
            return _statement(node)
    return _expression(node)[0]  # type: ignore[arg-type]


# Expressions ---------------------------------------------------------------------------------------------------------


def _at(node: nodes.Expr, level: int) -> str:
    """An expression where the grammar asks for one that binds at least as tightly as `level`."""
    text, own = _expression(node)
    return text if own >= level else f"({text})"


def _list(items: Iterable[nodes.Expr]) -> str:
    return ", ".join(_at(item, TERNARY) for item in items)


def _expression(node: nodes.Expr) -> tuple[str, int]:
    """The text of an expression, and how tightly it binds."""
    match node:
        case nodes.Number():
            return number(node.value), POSTFIX
        case nodes.Boolean():
            return ("true" if node.value else "false"), POSTFIX
        case nodes.String():
            return f'"{node.value}"', POSTFIX
        case nodes.Name():
            return node.id, POSTFIX
        case nodes.DefaultRead():
            return f"default.{node.name}", POSTFIX
        case nodes.List():
            return f"[{_list(node.items)}]", POSTFIX
        case nodes.Comprehension():
            inside = f"{_at(node.element, TERNARY)} for {_names(node.targets)} in {_at(node.iterable, TERNARY)}"
            return f"[{inside}]", POSTFIX
        case nodes.Call():
            return f"{_at(node.function, POSTFIX)}({_arguments(node.arguments)})", POSTFIX
        case nodes.Index():
            return f"{_at(node.value, POSTFIX)}[{_index(node.index)}]", POSTFIX
        case nodes.Attribute():
            # A dot after digits would belong to the number.
            value = _at(node.value, POSTFIX)
            value = f"({value})" if isinstance(node.value, nodes.Number) else value
            return f"{value}.{node.name.id}", POSTFIX
        case nodes.Unary(op="not"):
            return f"not {_at(node.operand, NOT)}", NOT
        case nodes.Unary():
            return f"{node.op}{_at(node.operand, UNARY)}", UNARY
        case nodes.Binary():
            level = _BINARY[node.op]
            left, right = (POSTFIX, UNARY) if level == POWER else (level, level + 1)
            return f"{_at(node.left, left)} {node.op} {_at(node.right, right)}", level
        case nodes.Compare():
            return f"{_at(node.left, RANGE)} {node.op} {_at(node.right, RANGE)}", COMPARE
        case nodes.Logic():
            level = OR if node.op == "or" else AND
            return f"{_at(node.left, level)} {node.op} {_at(node.right, level + 1)}", level
        case nodes.Range():
            return _range(node), RANGE
        case nodes.Ternary():
            condition, otherwise = _at(node.condition, OR), _at(node.otherwise, TERNARY)
            return f"{_at(node.chosen, PIPE)} if {condition} else {otherwise}", TERNARY
        case nodes.Pipe():
            return " |> ".join([_at(node.source, OR), *map(_step, node.steps)]), PIPE


def _range(node: nodes.Range) -> str:
    parts = [_at(node.start, SUM) if node.start else "", ".." if node.inclusive else "..<"]
    return " ".join(part for part in [*parts, _at(node.stop, SUM) if node.stop else ""] if part)


def _index(node: nodes.Expr) -> str:
    return _at(node, TERNARY)


def _step(step: nodes.Step) -> str:
    layer = _body(step.layer.body) if isinstance(step.layer, nodes.Group) else _at(step.layer, POSTFIX)
    return f"{_label(step.label)}{layer}"


def _label(label: nodes.Label | None) -> str:
    if label is None:
        return ""
    return label.name + "".join(f"[{_index(index)}]" for index in label.indices) + ": "


def _arguments(arguments: Iterable[nodes.Argument]) -> str:
    return ", ".join(map(_argument, arguments))


def _argument(argument: nodes.Argument) -> str:
    name = f"{argument.name.id} = " if argument.name else ""
    then = f" then {_at(argument.then, TERNARY)}" if argument.then else ""
    return f"{name}{_at(argument.value, TERNARY)}{then}"


def _names(names: Iterable[nodes.Identifier]) -> str:
    return ", ".join(name.id for name in names)


def number(value: int | Fraction) -> str:
    """A literal of exactly this number, which is not negative; ValueError if no decimal is."""
    fraction, places = Fraction(value), 0
    if fraction < 0:
        raise ValueError("a literal has no sign")
    while fraction.denominator != 1:
        # A decimal's denominator divides a power of ten.
        if fraction.denominator % 2 and fraction.denominator % 5:
            raise ValueError(f"{value} is no decimal")
        fraction, places = fraction * 10, places + 1
    digits = str(fraction.numerator)
    if places == 0:
        stripped = digits.rstrip("0")
        zeros = len(digits) - len(stripped)
        return digits if len(digits) <= _PLAIN_DIGITS or zeros == 0 else f"{stripped}e{zeros}"
    if places > _PLAIN_DIGITS:
        return f"{digits}e-{places}"
    digits = digits.zfill(places + 1)
    return f"{digits[:-places]}.{digits[-places:]}"


# Statements ----------------------------------------------------------------------------------------------------------


def _body(body: nodes.Body) -> str:
    lines = [f'"{body.doc}"'] if body.doc is not None else []
    lines += map(_statement, body.statements)
    return _braces(lines)


def _braces(lines: list[str]) -> str:
    inside = "".join(f"{_INDENT}{line}\n" for text in lines for line in text.split("\n"))
    return f"{{\n{inside}}}" if inside else "{ }"


def _statement(node: nodes.Statement) -> str:
    match node:
        case nodes.Line():
            return _line(node)
        case nodes.Bind():
            value = _statement(node.value) if isinstance(node.value, nodes.For) else _at(node.value, TERNARY)
            return f"{_names(node.targets)} = {value}"
        case nodes.For():
            return f"for {_names(node.targets)} in {_at(node.iterable, TERNARY)} {_body(node.body)}"
        case nodes.If():
            chain = " else ".join(f"if {_at(condition, OR)} {_body(body)}" for condition, body in node.branches)
            return chain + (f" else {_body(node.otherwise)}" if node.otherwise is not None else "")
        case nodes.Param():
            init = f" = {_at(node.init, TERNARY)}" if node.init else ""
            return f"param {node.name.id}: {_at(node.shape, TERNARY)}{init}"
        case nodes.Default():
            return "default " + ", ".join(f"{entry.name.id} = {_at(entry.value, TERNARY)}" for entry in node.entries)
        case nodes.Output():
            value = f" = {_at(node.value, TERNARY)}" if node.value else ""
            return f"{'training ' if node.training else ''}output {node.name.id}{value}"
        case nodes.Require():
            return "require " + _list([node.condition, *([node.message] if node.message else [])])
        case nodes.Yield():
            return "yield" + (f" {_at(node.value, TERNARY)}" if node.value else "")
        case nodes.Prepare():
            return f"prepare {node.input.id}({_arguments(node.arguments)})"


def _line(line: nodes.Line) -> str:
    extras = "".join(
        f" {word} {_at(scaled.value, PIPE)}{' fixed' if scaled.fixed else ''}"
        for word, scaled in (("->", line.out), ("x", line.repeats))
        if scaled is not None
    )
    extras += f" if {_at(line.guard, OR)}" if line.guard else ""
    if isinstance(line.value, nodes.Group):
        return f"{_label(line.label)}{_body(line.value.body)}{extras}"
    # Without extras `a if b else c` needs no parentheses.
    return f"{_label(line.label)}{_at(line.value, PIPE if extras else TERNARY)}{extras}"


# Items ---------------------------------------------------------------------------------------------------------------


def _parameters(parameters: Iterable[nodes.Parameter]) -> str:
    return ", ".join(
        parameter.name.id + (f" = {_at(parameter.default, TERNARY)}" if parameter.default else "")
        for parameter in parameters
    )


def rules(written: Iterable[nodes.Expr]) -> str:
    """What stands after `with`."""
    return ", ".join(_at(rule, POSTFIX) for rule in written)


def _item(node: nodes.Item) -> str:
    match node:
        case nodes.Import(alias=None):
            return f'import {_names(node.names)} from "{node.path.value}"'
        case nodes.Import():
            return f'import "{node.path.value}" as {_names([node.alias] if node.alias else [])}'
        case nodes.Constant():
            return f"{node.name.id} = {_at(node.value, TERNARY)}"
        case nodes.Fn():
            head = f"fn {node.name.id}({_parameters(node.parameters)})"
            if node.doc is None and not node.statements:
                return f"{head} = {_at(node.result, TERNARY)}"
            doc = [f'"{node.doc}"'] if node.doc is not None else []
            return f"{head} {_braces([*doc, *map(_statement, node.statements), _at(node.result, TERNARY)])}"
        case nodes.Block():
            on = f" on {_names(node.on)}" if node.on else ""
            return f"block {node.name.id}({_parameters(node.parameters)}){on} {_body(node.body)}"
        case nodes.Scaling():
            doc = [f'"{node.doc}"'] if node.doc is not None else []
            hooks = [f"{h.name.id}({_parameters(h.parameters)}) = {_at(h.result, TERNARY)}" for h in node.hooks]
            lines = [*doc, *map(_statement, node.requires), *hooks]
            return f"scaling {node.name.id}({_parameters(node.parameters)}) {_braces(lines)}"
        case nodes.Model():
            rule = f" with {rules(node.rules)}" if node.rules else ""
            inputs = ", ".join(f"{declared.name.id}: {_at(declared.shape, TERNARY)}" for declared in node.inputs)
            return f"model {node.name.id}({_parameters(node.parameters)}){rule} on {inputs} {_body(node.body)}"
        case nodes.Rescaled():
            return f"model {node.name.id} = {_at(node.base, POSTFIX)} with {rules(node.rules)}"
        case nodes.Variant():
            return f"variant {node.name.id} = {_at(node.call, POSTFIX)}"
        case nodes.Expect():
            return f"expect {node.variant.id}: {_list(node.checks)}"
