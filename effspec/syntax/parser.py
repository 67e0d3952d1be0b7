"""Text to syntax tree, through `grammars/effspec.lark`.  The only file that imports lark.

Parsing recovers: a statement (or, where braces do not balance, an item) with a syntax error is reported, blanked out
and the rest is parsed again, so that one run reports every independent mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files

import lark
from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.grammar import Rule
from lark.lexer import TerminalDef

from effspec.diagnostics import Diagnostic, EffspecError, Label, Source, Span, fail
from effspec.syntax import nodes, tables
from effspec.syntax.build import Builder

MAX_BYTES = 1 << 20
MAX_TOKENS = 40_000
MAX_DEPTH = 64
MAX_LEVELS = 150
"""How deep the tree of a file may be: what has no brackets nests too (`1 + 1 + ...`, `a else b if ...`)."""
MAX_ERRORS = 20
# A file with errors is parsed again after each of them: so many characters in all.
_RECOVERY = 300_000

# How a terminal is called in "expected ...": terminals that are not listed are not worth mentioning.
_WORDS = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a text",
    "_NL": "a new line",
    "$END": "the end of the file",
    "COMMA": "`,`",
    "EQUAL": "`=`",
    "COLON": "`:`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "FROM": "`from`",
    "AS": "`as`",
    "IN": "`in`",
    "ON": "`on`",
    "ELSE": "`else`",
    "DOT": "`.`",
    "EFFSPEC": "`effspec 1`",
}
_OPENING = {"LPAR": "(", "LSQB": "[", "LBRACE": "{"}
_CLOSING = {"RPAR", "RSQB", "RBRACE"}
# A newline after one of these does not end the statement.
_CONTINUES = {"SUM", "PRODUCT", "POWER", "COMPARISON", "COMMA", "EQUAL", "AND", "OR", "NOT", "IN", "COLON"}
_BIDI = re.compile("[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HEAD = re.compile(r"(?:\s|;|#[^\n]*)*effspec[ \t]+[0-9]")
_SCAN = re.compile(r'"[^"\n]*"|#[^\n]*|[()\[\]{}]')


class _TooLong(Exception):
    """More than MAX_TOKENS tokens; the argument is where the next one starts."""


class _Newlines:
    """Drops newlines that do not end a statement, and refuses words that run into each other (`x2`, `elsewhere`)."""

    always_accept = ("_NL",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        stack: list[str] = []
        previous: Token | None = None
        for number, token in enumerate(stream):
            if number >= MAX_TOKENS:
                raise _TooLong(token.start_pos)
            kind = token.type
            if kind == "_NL":
                inside = bool(stack) and stack[-1] != "LBRACE"
                if ";" not in token and (inside or (previous is not None and previous.type in _CONTINUES)):
                    continue
            elif kind in _OPENING:
                stack.append(kind)
            elif kind in _CLOSING and stack:
                stack.pop()
            if previous is not None and previous.end_pos == token.start_pos and _wordlike(previous[-1], token[0]):
                both = Token.new_borrow_pos(token.type, previous + token, previous)
                raise UnexpectedToken(both, {"_NL"})  # type: ignore[no-untyped-call]
            previous = token
            yield token


def _wordlike(left: str, right: str) -> bool:
    return (left.isalnum() or left == "_") and (right.isalnum() or right == "_")


def _grammar() -> str:
    return files("effspec.grammars").joinpath("effspec.lark").read_text(encoding="utf-8")


def _build(grammar: str) -> Lark:
    return Lark(
        grammar,
        start=["start", "expr"],
        parser="lalr",
        lexer="contextual",
        propagate_positions=True,
        maybe_placeholders=True,
        postlex=_Newlines(),
    )


@cache
def _lark() -> Lark:
    grammar = _grammar()
    found = tables.load(grammar, lark.__version__)
    if found is None:
        return _build(grammar)
    load: Callable[..., Lark] = Lark._load_from_dict
    return load(found["data"], found["memo"], postlex=_Newlines())


def serialised() -> str:
    """The document of `grammars/effspec.tables.json`."""
    grammar = _grammar()
    data, memo = _build(grammar).memo_serialize([TerminalDef, Rule])
    data["options"]["postlex"] = None  # given anew when the tables are loaded
    return tables.dump(grammar, lark.__version__, data, memo)


def decode(data: bytes, name: str) -> Source:
    """The text of a file: UTF-8 (one byte-order mark is accepted), LF or CRLF, no control or direction characters."""
    source = Source(name, "")
    if len(data) > MAX_BYTES:
        raise fail(
            "E0103", f"{name} has more than {MAX_BYTES:,} bytes", help="split the spec into files and import them"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fail(
            "E0102",
            f"{name} is not UTF-8: byte {error.start} (line {data.count(10, 0, error.start) + 1}) cannot be decoded",
            help="save it as UTF-8",
        ) from None
    source = Source(name, text.replace("\r\n", "\n"))
    found = _CONTROL.search(source.text) or _BIDI.search(source.text)
    if found:
        span = Span(source, found.start(), found.end())
        raise fail(
            "E0102",
            f"character U+{ord(found.group()):04X} is not allowed in a spec",
            span,
            "an invisible or control character",
            help="delete it: text must read as it is compiled",
        )
    return source


_CACHE_SIZE = 64
_parsed: dict[tuple[str, str], nodes.File] = {}


def parse(source: Source) -> nodes.File:
    """The syntax tree of a file.  Raises EffspecError with every syntax error found.

    Trees are frozen, so that the same text under the same name is parsed once in a process.
    """
    mark = (source.name, source.text)
    if mark not in _parsed:
        tree = _parse(source)
        if len(_parsed) >= _CACHE_SIZE:
            _parsed.pop(next(iter(_parsed)))
        _parsed[mark] = tree
    return _parsed[mark]


def _parse(source: Source) -> nodes.File:
    _check_depth(source)
    problems: list[Diagnostic] = []
    text = source.text
    tree: Tree[Token] | None = None
    while tree is None:
        try:
            tree = _lark().parse(text + "\n", start="start")
        except UnexpectedInput as error:
            diagnostic, start = _explain(source, error)
            if problems and problems[-1].primary and problems[-1].primary.span.start == start:
                break
            problems.append(diagnostic)
            blanked = _blank(text, start)
            if len(problems) >= MAX_ERRORS or blanked is None or blanked == text:
                break
            # Where the rest cannot be read by itself, more errors would be consequences of this one.
            if len(problems) * len(text) > _RECOVERY or not _balanced(blanked) or not _HEAD.match(blanked):
                break
            text = blanked
        except _TooLong as error:
            span = Span(source, error.args[0], error.args[0] + 1)
            help = "split the spec into files and import them"
            raise fail("E0103", f"a spec has at most {MAX_TOKENS:,} words and signs", span, help=help) from None
    if problems or tree is None:
        raise EffspecError(tuple(problems))
    _check_levels(source, tree)
    return Builder(source).file(tree)


def parse_expression(source: Source, start: int, end: int) -> nodes.Expr:
    """The syntax tree of the one expression that characters `start` to `end` of a source hold (a value that a command
    line gives).  Raises EffspecError."""
    # Blanks before it keep every place where it is.
    part = Source(source.name, " " * start + source.text[start:end])
    try:
        _check_depth(part)
        tree = _lark().parse(part.text, start="expr")
    except UnexpectedInput as error:
        span = _explain(part, error)[0].primary.span  # type: ignore[union-attr]
        raise fail(
            "E0101",
            f"`{source.text[start:end]}` is not a value",
            Span(source, max(start, span.start), max(span.end, start + 1)),
            "this cannot stand here" if part.text.strip() else "nothing is given",
            help='a value is a number, true, false, "text", a list [1, 2] or a name of the file',
        ) from None
    except EffspecError as error:
        first = error.diagnostics[0]
        raise fail(first.code, first.message, Span(source, start, end), help=first.help) from None
    _check_levels(source, tree)
    return Builder(source)(tree)  # type: ignore[no-any-return]


def _check_levels(source: Source, tree: Tree[Token]) -> None:
    """The tree is shallow enough for everything that walks it by recursion; checked without recursion."""
    level = [tree]
    for _ in range(MAX_LEVELS):
        level = [child for parent in level for child in parent.children if isinstance(child, Tree)]
        if not level:
            return
    span = Span(source, level[0].meta.start_pos, min(level[0].meta.end_pos, len(source.text)))
    raise fail("E0104", f"this nests more than {MAX_LEVELS} levels deep", span, help="give parts a name")


def _check_depth(source: Source) -> None:
    """Brackets nest at most MAX_DEPTH deep and close what they open: checked without recursion before parsing."""
    pairs = {")": "(", "]": "[", "}": "{"}
    stack: list[tuple[str, int]] = []
    for match in _SCAN.finditer(source.text):
        token = match.group()
        if token in "([{":
            stack.append((token, match.start()))
            if len(stack) > MAX_DEPTH:
                span = Span(source, match.start(), match.end())
                raise fail("E0104", f"brackets are nested more than {MAX_DEPTH} deep", span, help="give parts a name")
        elif token in pairs:
            span = Span(source, match.start(), match.end())
            if not stack:
                raise fail("E0101", f"`{token}` closes nothing", span, help="delete it, or open it before")
            opening, start = stack.pop()
            if opening != pairs[token]:
                raise fail(
                    "E0101",
                    f"`{token}` closes `{opening}`",
                    span,
                    f"`{opening}` is still open here",
                    secondary=(Label(Span(source, start, start + 1), "opened here"),),
                    help="brackets close in the order in which they were opened",
                )
    if stack:
        opening, start = stack[-1]
        raise fail("E0101", f"`{opening}` is never closed", Span(source, start, start + 1), "opened here")


def _explain(source: Source, error: UnexpectedInput) -> tuple[Diagnostic, int]:
    """The diagnostic of a lark error, and where it is."""
    length = len(source.text)
    if isinstance(error, UnexpectedCharacters):
        start = min(error.pos_in_stream or 0, length)
        word = re.match(r"[A-Za-z0-9_.]+|.?", source.text[start : start + 80])
        found, accepts = (word.group() if word else ""), set(error.allowed or ())
        end = start + max(1, len(found))
        text = f"`{found}`" if found else "the end of the file"
    elif isinstance(error, UnexpectedToken):
        start = min(error.token.start_pos or 0, length) if error.token.type != "$END" else length
        value = str(error.token)
        found = "the end of the line" if error.token.type == "_NL" else f"`{value.strip()}`"
        if error.token.type == "_NL":
            start += len(value) - len(value.lstrip(" \t"))
        text = "the end of the file" if error.token.type == "$END" else found
        end = start + (1 if error.token.type in ("_NL", "$END") else len(value))
        accepts = set(error.accepts or error.expected or ())
    else:
        start, end, text, accepts = length, length, "the end of the file", set(getattr(error, "expected", ()))
    expected = [_WORDS[kind] for kind in _WORDS if kind in accepts]
    span = Span(source, min(start, max(length - 1, 0)), max(min(end, length), min(start, max(length - 1, 0)) + 1))
    help_text = _habit(source, span, text.strip("`")) or _syntax_help(text.strip("`"), accepts)
    label = "expected " + _either(expected) if 0 < len(expected) <= 6 else "not expected here"
    return Diagnostic("E0101", f"{text} cannot stand here", Label(span, label), help=help_text), start


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


_KEYWORDS = re.findall(
    r"\w+", "if else for in and or not true false require param output training yield default prepare with on then"
)


# What people write who come from other languages: a word that cannot stand, the line up to and with it, what to do.
_HABITS: tuple[tuple[str, str, str], ...] = (
    ("", r"\s*from\b.*", 'names are imported so: `import A, B from "path.eff"`'),
    ("", r"\s*import\b[^\"]*", 'names are imported so: `import A, B from "path.eff"`'),
    ("", r"\s*def\b.*", "a function is `fn name(x) = value`, a layer `block Name(out) { ... }`"),
    (
        "",
        r"\s*class\b.*",
        "a layer is `block Name(out) { ... }`, a network `model Name() on image: [...] { ... }`",
    ),
    ("", r"(.*[;{])?\s*return\b.*", "a body's value is its last line: write no `return`"),
    ("", r"(.*[;{])?\s*elif\b.*", "write `else if c { ... }`"),
    ("//?", r"(.*[;{])?\s*//?", "a comment begins with `#`"),
    ("&", r".*&&?", "write `and`"),
    ("[|]", r".*[|][|]?", "write `or`; a layer is applied by `|>`"),
    ("!", r".*", "write `not`"),
    ("[?]", r".*", "a choice is written `a if c else b`"),
    ("=", r".*[-+*/]=", "a name is bound once: give the new value a name of its own"),
    (":", r".*\b(if|for|while|else)\b[^{]*:", "a body stands in braces: `if c { ... }`"),
    ("[\u00d7*]|\u00b7", r".*->.*", "a line is repeated by `x`: `MBConv() -> 24 x 3`"),
    ("[0-9].*", r".*\bon\s+\w+\s*:[^\[]*", "a shape is a list: `on image: [3, 224, 224]`"),
    (",", r".*[=(,]\s*\([^()]*,", "a list stands in brackets: `[1, 5]`"),
    ("->", r".*\bx\s+\S+\s*->", "the channels come first: `-> 8 x 2`"),
    ("<=?|>=?", r".*(<|>)=?[^,]*(<|>)=?", "comparisons do not chain: write `a < b and b < c`"),
    ("=", r"\s*self\..*", "a layer's label stands before it: `stem: conv(32)`"),
)


def _habit(source: Source, span: Span, found: str) -> str | None:
    """The help for a habit of other languages, where the line up to the place shows one."""
    line, column = source.line_column(span.start)
    before = source.line(line)[: column - 1 + span.end - span.start]
    fits = (
        help
        for word, text, help in _HABITS
        if (not word or re.fullmatch(word, found)) and re.fullmatch(text, before, re.DOTALL)
    )
    return next(fits, None)


def _syntax_help(found: str, accepts: set[str]) -> str | None:
    """What to do about the commonest slips."""
    if accepts == {"EFFSPEC"} or "EFFSPEC" in accepts:
        return "a spec begins with the line `effspec 1`"
    if found in _KEYWORDS and "NAME" in accepts:
        return f"`{found}` is a word of the language and cannot be a name"
    if found == '"':
        return 'a text ends with `"` on the line where it begins'
    if found.startswith("'"):
        return 'a text stands in double quotes: "half"'
    if found and not found.isascii():
        return "names are made of the letters a to z and A to Z, digits and underscores"
    if found in ("def", "class", "lambda", "while", "return", "import"):
        return "this is not Python: a body's value is its last line, blocks are written `block Name(...) { ... }`"
    if found == "=" and "COMPARISON" in accepts:
        return "equality is written `==`"
    if re.fullmatch(r"[0-9][0-9a-zA-Z_.]*", found):
        return "numbers are written 12, 1_000, 0.25, 1e-3, 4.2G"
    return None


def _blank(text: str, position: int) -> str | None:
    """The text with the statement at `position` replaced by blanks, or the item where that leaves braces unbalanced."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    end = len(text) if end < 0 else end
    line = text[start:end]
    if _balanced(line):
        return text[:start] + " " * len(line) + text[end:]
    # The whole item: from the last line that starts in the first column to the next such line.
    begins = [m.start() for m in re.finditer(r"^[A-Za-z]", text, re.MULTILINE)]
    first = max((b for b in begins if b <= position), default=None)
    if first is None:
        return None
    last = min((b for b in begins if b > position), default=len(text))
    return text[:first] + re.sub(r"[^\n]", " ", text[first:last]) + text[last:]


def _balanced(line: str) -> bool:
    depth = 0
    for match in _SCAN.finditer(line):
        if match.group() in "([{":
            depth += 1
        elif match.group() in ")]}":
            depth -= 1
            if depth < 0:
                return False
    return depth == 0


if __name__ == "__main__":
    from pathlib import Path

    target = Path(str(files("effspec.grammars").joinpath("effspec.tables.json")))
    target.write_text(serialised(), encoding="utf-8")
    print(f"wrote {target.name}")
