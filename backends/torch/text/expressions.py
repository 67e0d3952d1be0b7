"""Python expressions as documents: where they need parentheses and where they may break (black's stable style).

The last brackets break first; arguments try one indented line before one line each, elements of a list never do;
operators break before themselves, those that bind least first, and only inside parentheses.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TypeAlias

from effspec.backends.torch.text.document import SOFT, SPACE, Break, Comment, Doc, Group, IfBroken, Indent, Inner

# How strongly an expression binds.
_TUPLE, _TEST, _OR, _AND, _NOT, _COMPARE, _BIT_OR, _BIT_XOR, _BIT_AND, _SHIFT, _SUM, _TERM, _FACTOR, _POWER, _ATOM = (
    range(15)
)

BINARY: dict[type[ast.operator], tuple[str, int]] = {
    ast.BitOr: ("|", _BIT_OR),
    ast.BitXor: ("^", _BIT_XOR),
    ast.BitAnd: ("&", _BIT_AND),
    ast.LShift: ("<<", _SHIFT),
    ast.RShift: (">>", _SHIFT),
    ast.Add: ("+", _SUM),
    ast.Sub: ("-", _SUM),
    ast.Mult: ("*", _TERM),
    ast.Div: ("/", _TERM),
    ast.FloorDiv: ("//", _TERM),
    ast.Mod: ("%", _TERM),
    ast.MatMult: ("@", _TERM),
    ast.Pow: ("**", _POWER),
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
}
_UNARY: dict[type[ast.unaryop], str] = {ast.USub: "-", ast.UAdd: "+", ast.Not: "not ", ast.Invert: "~"}


def _strength(node: ast.expr) -> int:
    match node:
        case ast.IfExp() | ast.Lambda():
            return _TEST
        case ast.BoolOp():
            return _OR if isinstance(node.op, ast.Or) else _AND
        case ast.UnaryOp():
            return _NOT if isinstance(node.op, ast.Not) else _FACTOR
        case ast.Compare():
            return _COMPARE
        case ast.BinOp():
            return BINARY[type(node.op)][1]
        case ast.Constant() if isinstance(node.value, int | float) and str(node.value).startswith("-"):
            return _FACTOR
    return _ATOM


def _operands(node: ast.expr) -> list[tuple[ast.expr, int]]:
    """The parts of an operator, in order of the text, each with how strongly it has to bind to need no parentheses."""
    match node:
        case ast.BinOp():
            level = BINARY[type(node.op)][1]
            if isinstance(node.op, ast.Pow):
                return [(node.left, _ATOM), (node.right, _FACTOR)]
            return [(node.left, level), (node.right, level + 1)]
        case ast.BoolOp():
            level = _strength(node) + 1
            return [(value, level) for value in node.values]
        case ast.Compare():
            return [(value, _COMPARE + 1) for value in (node.left, *node.comparators)]
        case ast.UnaryOp():
            if isinstance(node.operand, ast.BinOp) and isinstance(node.operand.op, ast.Pow):
                return [(node.operand, _ATOM)]
            return [(node.operand, _NOT if isinstance(node.op, ast.Not) else _FACTOR)]
        case ast.IfExp():
            return [(node.body, _OR), (node.test, _OR), (node.orelse, _TEST)]
        case ast.Attribute() if isinstance(node.value, ast.Constant) and isinstance(node.value.value, int | float):
            return [(node.value, _ATOM + 1)]
        case ast.Attribute() | ast.Subscript():
            return [(node.value, _ATOM)]
        case ast.Call():
            return [(node.func, _ATOM)]
    return []


def _wrapped(node: ast.expr, binding: int) -> bool:
    return _strength(node) < binding and not isinstance(node, ast.Tuple | ast.Starred)


def number(value: float) -> str:
    """A number as a person writes it: `0.001`, `1e-5`; an integer in full."""
    if isinstance(value, int) or not 0 < abs(value) < 1e-3:
        return repr(value).replace("e-0", "e-").replace("e+", "e").replace("inf", "1e999")
    digits, _, exponent = f"{value!r}".partition("e")
    if exponent:
        return f"{digits}e{int(exponent)}"
    from decimal import Decimal

    sign, figures, power = Decimal(digits).as_tuple()
    first, rest = str(figures[0]), "".join(map(str, figures[1:])).rstrip("0")
    return ("-" if sign else "") + first + ("." + rest if rest else "") + f"e{int(power) + len(figures) - 1}"


def string(text: str) -> str:
    """A string in double quotes, or in single ones where that needs fewer escapes."""
    plain = repr(text)
    if plain[0] == '"':
        return plain
    return plain if '"' in text else '"' + plain[1:-1].replace("\\'", "'") + '"'


def _constant(value: object) -> str:
    if value is ...:
        return "..."
    if isinstance(value, str):
        return string(value)
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, int | float):
        return number(value)
    raise TypeError(f"cannot print the constant {value!r}")


# Where an expression stands: outside brackets, inside brackets, or inside optional parentheses (their group).
OUTSIDE, INSIDE = "outside", "inside"
Level: TypeAlias = "Group | str"


def _line(level: Level, flat: Break) -> Doc:
    """A possible end of line, which exists only inside brackets."""
    if isinstance(level, Group):
        return IfBroken(flat, flat.flat, level)
    return flat if level == INSIDE else flat.flat


def _inner_group(level: Level, parts: list[Doc]) -> Doc:
    if isinstance(level, Group):
        return Group(parts, only_if=level)
    return Group(parts) if level == INSIDE else parts


def block(parts: list[Doc]) -> list[Doc]:
    return [Indent([SOFT, *parts]), SOFT]


def bracketed(left: str, parts: list[Doc], right: str, level: Level) -> Doc:
    group = Group([left, *block(parts), right])
    return Inner(group, level) if isinstance(level, Group) else group


def joined(items: Sequence[Doc], always: bool = False, rows: bool = False) -> list[Doc]:
    """Elements with commas between them, and one after the last where each stands on its line.

    A single element gets none, unless `always` (parameters, imports); `rows` breaks lines even where all would fit.
    """
    out: list[Doc] = []
    for item in items:
        out += [item, ",", SPACE]
    if rows:
        return [*out[:-2], ",", Comment("")]
    return [*out[:-2], IfBroken(",")] if always or len(items) > 1 else out[:-2]


def _rows(node: ast.List | ast.Tuple | ast.Dict) -> bool:
    elements = node.values if isinstance(node, ast.Dict) else node.elts
    return bool(getattr(node, "rows", False)) or any(getattr(element, "comment", "") for element in elements)


def _commented(node: ast.AST, doc: Doc) -> Doc:
    comment = getattr(node, "comment", "")
    return [doc, Comment(f"  # {comment}")] if comment else doc


def expression(node: ast.expr, level: Level, binding: int = _TEST) -> Doc:
    if _wrapped(node, binding):
        return bracketed("(", [_bare(node, INSIDE)], ")", level)
    return _bare(node, level)


def _bare(node: ast.expr, level: Level) -> Doc:
    match node:
        case ast.Name():
            return node.id
        case ast.Constant():
            return _constant(node.value)
        case ast.JoinedStr():
            return _formatted(node)
        case ast.Attribute() | ast.Call() | ast.Subscript():
            return _chain(node, level)
        case ast.BinOp() | ast.BoolOp() | ast.Compare():
            return _inner_group(level, [_flat_binary(_flatten(node), level)])
        case ast.UnaryOp():
            operand, binding = _operands(node)[0]
            return [_UNARY[type(node.op)], expression(operand, level, binding)]
        case ast.IfExp():
            return _inner_group(level, _conditional(node, level))
        case ast.Starred():
            return ["*", expression(node.value, level, _BIT_OR)]
        case ast.List() | ast.Tuple() if not node.elts:
            return "[]" if isinstance(node, ast.List) else "()"
        case ast.Tuple() if len(node.elts) == 1:
            return bracketed("(", [element(node.elts[0]), ","], ")", level)
        case ast.List() | ast.Tuple():
            left, right = "[]" if isinstance(node, ast.List) else "()"
            return bracketed(left, joined([element(item) for item in node.elts], rows=_rows(node)), right, level)
        case ast.Dict():
            items = zip(node.keys, node.values, strict=True)
            pairs: list[Doc] = [_pair(key, value) for key, value in items]
            return bracketed("{", joined(pairs, rows=_rows(node)), "}", level) if pairs else "{}"
        case ast.ListComp():
            return bracketed("[", [Group(_comprehension([expression(node.elt, INSIDE)], node.generators))], "]", level)
        case ast.GeneratorExp():
            return bracketed("(", [Group(_comprehension([expression(node.elt, INSIDE)], node.generators))], ")", level)
        case ast.DictComp():
            pair: list[Doc] = [expression(node.key, INSIDE), ": ", expression(node.value, INSIDE)]
            return bracketed("{", [Group(_comprehension(pair, node.generators))], "}", level)
        case ast.Slice():
            return _slice(node, level)
    raise TypeError(f"cannot print {type(node).__name__}")


def _formatted(node: ast.JoinedStr) -> str:
    """`f"stage.{name}"`: words without quotes or braces, and names."""
    parts = [
        "{" + ast.unparse(part.value) + "}" if isinstance(part, ast.FormattedValue) else ast.unparse(part)[1:-1]
        for part in node.values
    ]
    return 'f"' + "".join(parts) + '"'


def element(node: ast.expr) -> Doc:
    if isinstance(node, ast.IfExp):
        return _commented(node, _optional(node))
    return _commented(node, expression(node, INSIDE))


def _optional(node: ast.expr) -> Doc:
    """In parentheses where it does not fit on one line (the rule for a conditional expression among elements)."""
    return Group([IfBroken("("), *block([expression(node, INSIDE)]), IfBroken(")")])


def _pair(key: ast.expr | None, value: ast.expr) -> Doc:
    if key is None:
        return ["**", expression(value, INSIDE, _BIT_OR)]
    return _commented(value, Group([expression(key, INSIDE), ": ", expression(value, INSIDE)]))


def _conditional(node: ast.IfExp, level: Level) -> list[Doc]:
    (body, high), (test, higher), (orelse, _) = _operands(node)
    out: list[Doc] = [expression(body, level, high), _line(level, SPACE), "if ", expression(test, level, higher)]
    out += [_line(level, SPACE), "else "]
    return out + (_conditional(orelse, level) if isinstance(orelse, ast.IfExp) else [expression(orelse, level)])


def _comprehension(element: list[Doc], generators: list[ast.comprehension]) -> list[Doc]:
    out: list[Doc] = [Group(element)]
    for generator in generators:
        out += [SPACE, Group(["for ", target_of(generator.target), " in ", expression(generator.iter, INSIDE, _OR)])]
        for condition in generator.ifs:
            out += [SPACE, "if ", expression(condition, INSIDE, _OR)]
    return out


def _slice(node: ast.Slice, level: Level) -> Doc:
    bounds = (node.lower, node.upper, node.step)
    space = "" if all(bound is None or _simple_bound(bound) for bound in bounds) else " "
    out: list[Doc] = [expression(node.lower, level), space] if node.lower else []
    out.append(":")
    if node.upper:
        out += [space, expression(node.upper, level)]
    if node.step:
        out += [space if node.upper else "", ":", space, expression(node.step, level)]
    return out


def _simple_bound(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
        return _simple_bound(node.operand)
    return isinstance(node, ast.Name | ast.Constant)


# Calls, attributes and subscripts.


def _fluent(node: ast.expr) -> bool:
    """Whether dots after brackets get lines of their own: where there are two or more."""
    dots = 0
    while True:
        if isinstance(node, ast.Attribute):
            if _wrapped(*_operands(node)[0]):
                return dots + 1 >= 2
            dots += isinstance(node.value, ast.Call | ast.Subscript)
            node = node.value
        elif isinstance(node, ast.Call | ast.Subscript):
            node = node.func if isinstance(node, ast.Call) else node.value
            if _wrapped(node, _ATOM):
                return dots >= 2
        else:
            return dots >= 2


def _chain(node: ast.expr, level: Level) -> Doc:
    if level != OUTSIDE and _fluent(node):
        return Group([_link(node, level, fluent=True)])
    return _link(node, level, fluent=False)


def _link(node: ast.expr, level: Level, fluent: bool) -> Doc:
    if isinstance(node, ast.Attribute):
        wrapped = _wrapped(*_operands(node)[0])
        inside = bracketed("(", [_bare(node.value, INSIDE)], ")", level)
        value = inside if wrapped else _link(node.value, level, fluent)
        dot: Doc = SOFT if fluent and (wrapped or isinstance(node.value, ast.Call | ast.Subscript)) else ""
        return [value, dot, ".", node.attr]
    if isinstance(node, ast.Call):
        if _wrapped(node.func, _ATOM):
            return [expression(node.func, level, _ATOM), arguments(node.args, node.keywords, level)]
        return [_link(node.func, level, fluent), arguments(node.args, node.keywords, level)]
    if isinstance(node, ast.Subscript):
        wrapped = _wrapped(node.value, _ATOM)
        value = expression(node.value, level, _ATOM) if wrapped else _link(node.value, level, fluent)
        index = node.slice
        if isinstance(index, ast.Tuple) and len(index.elts) > 1:
            inside = joined([element(item) for item in index.elts])
        elif isinstance(index, ast.Tuple) and index.elts and not isinstance(index.elts[0], ast.Starred):
            inside = [element(index.elts[0]), ","]
        else:
            inside = [expression(index, INSIDE)]
        return [value, bracketed("[", inside, "]", level)]
    return _bare(node, level)


def arguments(args: list[ast.expr], keywords: list[ast.keyword], level: Level) -> Doc:
    if not args and not keywords:
        return "()"
    if len(args) == 1 and not keywords and isinstance(args[0], ast.GeneratorExp):
        inside = _comprehension([expression(args[0].elt, INSIDE)], args[0].generators)
        return bracketed("(", [Group(inside)], ")", level)
    items: list[Doc] = [element(item) for item in args]
    for keyword in keywords:
        if keyword.arg is None:
            items.append(_commented(keyword, ["**", expression(keyword.value, INSIDE, _BIT_OR)]))
        else:
            items.append(_commented(keyword, [keyword.arg, "=", element(keyword.value)]))
    return bracketed("(", [Group(joined(items))], ")", level)


# Binary operators: a chain of different operators breaks before those that bind least.

Chain: TypeAlias = "list[tuple[str, int, ast.expr, int]]"
"""Operator before the operand ("" for the first), its strength, the operand, the strength that it needs."""


def _flatten(node: ast.expr) -> Chain:
    if isinstance(node, ast.BinOp):
        symbols = [BINARY[type(node.op)]]
    elif isinstance(node, ast.BoolOp):
        symbols = [("or" if isinstance(node.op, ast.Or) else "and", _OR)] * len(node.values)
    else:
        assert isinstance(node, ast.Compare)
        symbols = [(_COMPARISONS[type(op)], _COMPARE) for op in node.ops]
    out: Chain = []
    for (symbol, strength), (operand, binding) in zip([("", 0), *symbols], _operands(node), strict=False):
        if isinstance(operand, ast.BinOp | ast.BoolOp | ast.Compare) and not _wrapped(operand, binding):
            first, *rest = _flatten(operand)
            out += [(symbol, strength, *first[2:]), *rest]
        else:
            out.append((symbol, strength, operand, binding))
    return out


def _hugs(chain: Chain, index: int) -> bool:
    """Whether the `**` before operand `index` has no spaces: where both sides are names or numbers."""
    return all(
        _simple_power(operand) and not _wrapped(operand, binding)
        for _, _, operand, binding in chain[index - 1 : index + 1]
    )


def _simple_power(node: ast.expr) -> bool:
    match node:
        case ast.UnaryOp():
            return not isinstance(node.op, ast.Not) and _simple_power(node.operand)
        case ast.Attribute():
            return _simple_power(node.value)
        case ast.Constant():
            return not isinstance(node.value, str) and node.value is not ...
    return isinstance(node, ast.Name)


def _flat_binary(chain: Chain, level: Level) -> list[Doc]:
    if len(chain) == 1:
        return [expression(chain[0][2], level, chain[0][3])]
    lowest = min(strength for _, strength, _, _ in chain[1:])
    cuts = [index for index in range(1, len(chain)) if chain[index][1] == lowest]
    out: list[Doc] = []
    for start, stop in zip([0, *cuts], [*cuts, len(chain)], strict=True):
        if start:
            symbol = chain[start][0]
            hugs = symbol == "**" and _hugs(chain, start)
            out += [_line(level, SOFT if hugs else SPACE), symbol, "" if hugs else " "]
        part = _flat_binary(chain[start:stop], level)
        out += part if stop - start == 1 else [_inner_group(level, part)]
    return out


# The value of a statement, with optional parentheses.


def _own_brackets(node: ast.expr) -> bool:
    """Brackets of its own that are not empty."""
    match node:
        case ast.List() | ast.Tuple():
            return bool(node.elts)
        case ast.Dict():
            return bool(node.keys)
        case ast.Call():
            return bool(node.args or node.keywords)
    return isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp | ast.Subscript)


def _any_brackets(node: ast.expr, binding: int) -> bool:
    return isinstance(node, ast.Call | ast.List | ast.Dict) or _own_brackets(node) or _wrapped(node, binding)


class _Survey:
    """What decides whether breaking an expression's own brackets is better than adding parentheses around it."""

    def __init__(self, node: ast.expr) -> None:
        self.lowest, self.count, self.brackets = 99, 0, False
        self.first: tuple[ast.expr, int] | None = None
        self.token_first = False
        self.last: tuple[ast.expr, int] = (node, _TUPLE)
        self._walk(node)

    def _found(self, strength: int, count: int = 1) -> None:
        if strength < self.lowest:
            self.lowest, self.count = strength, count
        elif strength == self.lowest:
            self.count += count

    def _walk(self, node: ast.expr) -> None:
        match node:
            case ast.List() | ast.Dict() | ast.ListComp() | ast.DictComp() | ast.Tuple() | ast.GeneratorExp():
                self.brackets = True
                return
            case ast.Call() | ast.Subscript():
                self.brackets = True
                self._visit(*_operands(node)[0])
                self.last = (node, _TUPLE)
                return
            case ast.Attribute():
                value, binding = _operands(node)[0]
                self._visit(value, binding)
                if _any_brackets(value, binding):
                    self._found(_ATOM)
                self.last = (node, _TUPLE)
                return
            case ast.BoolOp():
                self._found(_OR, len(node.values) - 1)
            case ast.BinOp():
                self._found(BINARY[type(node.op)][1])
            case ast.Compare():
                self._found(_COMPARE, len(node.ops))
            case ast.IfExp():
                self._found(_TEST, 2)
            case ast.UnaryOp():
                if isinstance(node.op, ast.Invert):
                    self._found(_FACTOR)
                self.token_first = self.token_first or self.first is None
        for operand, binding in _operands(node):
            self._visit(operand, binding)

    def _visit(self, node: ast.expr, binding: int) -> None:
        self.last = (node, binding)
        if _wrapped(node, binding):
            self.brackets = True
        else:
            self._walk(node)
        if self.first is None and not self.token_first:
            self.first = (node, binding)

    def parentheses_can_go(self) -> bool:
        if not self.brackets or self.count > 1:
            return False
        if self.lowest >= _ATOM:
            return True
        return any(
            not isinstance(node, ast.Subscript) and (_own_brackets(node) or _wrapped(node, binding))
            for node, binding in (self.last, self.first or (ast.Name("x"), _TUPLE))
        )


def _needs(node: ast.expr) -> str:
    """`never`, `multiline` (parentheses where it breaks) or `best` (a name: where that helps)."""
    match node:
        case ast.BinOp() | ast.BoolOp() | ast.Compare() | ast.IfExp():
            return "multiline"
        case ast.UnaryOp():
            return "never" if _wrapped(*_operands(node)[0]) else "multiline"
        case ast.Call() | ast.Subscript() | ast.Attribute():
            if _fluent(node):
                return "multiline"
            value, binding = _operands(node)[0]
            if _wrapped(value, binding):
                return "never"
            inner = _needs(value)
            return inner if isinstance(node, ast.Attribute) or inner != "best" else "never"
        case ast.Name():
            return "best"
        case ast.Constant():
            return "best" if isinstance(node.value, str | int | float) else "never"
    return "never"


def value_of(node: ast.expr, tuples: bool = False) -> Doc:
    """The right side of a statement; `tuples` says that a tuple needs no parentheses there."""
    if tuples and isinstance(node, ast.Tuple) and len(node.elts) > 1:
        items = [element(item) for item in node.elts]
        return Group([IfBroken("("), *block(joined(items)), IfBroken(")")])
    needs = _needs(node)
    if needs == "never":
        return expression(node, OUTSIDE)
    if needs == "multiline" and _Survey(node).parentheses_can_go():
        group = Group([])
        content: list[Doc] = [SOFT, expression(node, group)]
        group.parts += [IfBroken("("), Indent(content, only_if=group), SOFT, IfBroken(")")]
        return group
    return _optional(node)


def target_of(node: ast.expr) -> Doc:
    if isinstance(node, ast.Tuple) and len(node.elts) > 1:
        out: list[Doc] = []
        for item in node.elts:
            out += [", ", _bare(item, OUTSIDE)]
        return out[1:]
    return expression(node, OUTSIDE)
