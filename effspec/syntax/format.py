"""Canonical layout of a spec's text: indentation and spaces; comments, line breaks and aligned columns stay.

Lines are the author's: a spec reads like its paper's table, and its columns are aligned by hand.  So where one space
belongs, two or more are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from effspec.diagnostics import Source
from effspec.syntax import nodes
from effspec.syntax.parser import parse

INDENT = 4
_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+)|(?P<line>\n)|(?P<comment>\#[^\n]*)|(?P<string>"[^"\n]*")
    |(?P<number>[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?[KMGT]?)|(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>\|>|->|\.\.<|\.\.|\*\*|//|==|!=|<=|>=|.)""",
    re.VERBOSE,
)
# Keywords after which a bracket opens a value of its own, not a call or an index.
_BEFORE_VALUES = frozenset("if else for in and or not require yield then on with output default param prepare".split())  # noqa: SIM905
_ITEMS = frozenset(["import", "fn", "block", "scaling", "model", "variant", "expect"])
_OPENING, _CLOSING = ("(", "[", "{"), (")", "]", "}")
_OPERATORS = frozenset(["+", "-", "*", "/", "//", "%", "**", "==", "!=", "<=", ">=", "<", ">", "=", "|>", "->"])
# A line that begins or ends so belongs to the one before or after it.
_CONTINUING_STARTS = ("|>", "->", "{", "else", "with", "on")
_CONTINUING_ENDS = (_OPERATORS - {"|>", "->"}) | {",", ":", "and", "or", "not", "in"}


@dataclass(frozen=True)
class _Token:
    """A word, sign, string, number or comment; `gap` is how many blanks stand before it on its line."""

    kind: str
    text: str
    gap: int

    @property
    def ends_value(self) -> bool:
        """Whether an expression may end with it."""
        if self.kind == "word":
            return self.text not in _BEFORE_VALUES
        return self.kind in ("number", "string") or self.text in _CLOSING


def format_text(source: Source) -> str:
    """The text of a spec in its canonical layout, with the same meaning and the same comments.

    Raises EffspecError for a spec that does not parse.
    """
    before = parse(source)
    text = "".join(f"{line}\n" for line in _layout(_lines(source.text)))
    after = parse(Source(source.name, text))
    if not same(before, after) or _comments(source.text) != _comments(text):
        raise RuntimeError(f"formatting would change {source.name}")  # a mistake of effspec, not of the spec
    return text


def same(left: object, right: object) -> bool:
    """Whether two trees are equal, their places aside."""
    if isinstance(left, nodes.Node):
        names = left.fields[1:]  # after the span
        return type(left) is type(right) and all(same(getattr(left, name), getattr(right, name)) for name in names)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def _lines(text: str) -> list[list[_Token]]:
    """The tokens of each line."""
    lines: list[list[_Token]] = [[]]
    gap = 0
    for match in _TOKEN.finditer(text):
        kind, found = match.lastgroup or "", match.group()
        if kind == "blank":
            gap = len(found.expandtabs(INDENT))
        elif kind == "line":
            lines.append([])
            gap = 0
        else:
            lines[-1].append(_Token(kind, found.rstrip(), gap))
            gap = 0
    return lines


def _comments(text: str) -> list[str]:
    return [token.text for line in _lines(text) for token in line if token.kind == "comment"]


@dataclass
class _Bracket:
    """An open bracket: what it is, and how far its inside is indented (braces only)."""

    sign: str
    inside: int


def _layout(lines: list[list[_Token]]) -> list[str]:
    out: list[str] = []
    brackets: list[_Bracket] = []
    shift = start = 0
    previous: _Token | None = None
    for line in lines:
        if not line:
            if out and out[-1]:
                out.append("")
            continue
        first = line[0]
        braced = not brackets or brackets[-1].sign == "{"
        goes_on = first.text in _CONTINUING_STARTS or (previous is not None and previous.text in _CONTINUING_ENDS)
        if braced and (not goes_on or first.kind == "comment"):
            indent = brackets[-1].inside if brackets else 0
            indent -= INDENT if first.text == "}" else 0
            shift, start = indent - first.gap, indent
            previous = previous if first.kind == "comment" else None
        elif first.text == "{":
            indent = start
        else:
            indent = max(first.gap + shift, 0)
        out.append(" " * indent + _spaced(line, previous, top=not brackets))
        for token in line:
            if token.text in _OPENING and token.kind == "sign":
                base = start if not brackets or brackets[-1].sign == "{" else indent
                brackets.append(_Bracket(token.text, base + INDENT))
            elif token.text in _CLOSING and token.kind == "sign" and brackets:
                brackets.pop()
            if token.kind != "comment":
                previous = token
    while out and not out[-1]:
        out.pop()
    return out


def _spaced(line: list[_Token], previous: _Token | None, *, top: bool) -> str:
    """A line with the blanks between its tokens as they should be; `top` says that it stands in no bracket."""
    out = line[0].text
    valued = previous is not None and previous.ends_value  # whether a value ends before `left`
    for left, right in pairwise(line):
        # After a value `x` repeats a line.  The word that begins an item (`fn`) is no value before its name.
        ends = left.ends_value and not (left.text == "x" and valued)
        wanted = _gap(left, right, valued, ends)
        # Columns are aligned behind a value, a comma or a colon.
        tight = (top and left is line[0] and left.text in _ITEMS) or (left.text == "=" and right.kind != "comment")
        out += " " * (wanted if tight else max(right.gap, wanted) if wanted else 0) + right.text
        valued = ends and not (top and left is line[0])
    return out


def _gap(left: _Token, right: _Token, valued: bool, ends: bool) -> int:
    """How many blanks belong between two tokens, none or one: a value ends before `left`, or with it."""
    if right.kind == "comment":
        return 1
    if left.text in ("(", "[", ".") or right.text in (")", "]", ".", ",", ";", ":"):
        return 0
    if left.text in ("-", "+") and not valued:
        return 0  # a sign
    return int(not (right.text in ("(", "[") and ends))
