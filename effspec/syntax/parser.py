"""Text to syntax tree, through `grammars/effspec.lark`.  The only file that imports lark.

Parsing recovers: a statement (or, where braces do not balance, an item) with a syntax error is reported, blanked out
and the rest is parsed again, so that one run reports every independent mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias, TypeVar

import lark
from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.grammar import Rule
from lark.lexer import TerminalDef

from effspec.diagnostics import Diagnostic, EffspecError, Label, Source, Span, fail
from effspec.syntax import nodes, tables

MAX_BYTES = 1 << 20
MAX_TOKENS = 40_000
MAX_DEPTH = 64
MAX_LEVELS = 150
"""How deep the tree of a file may be: what has no brackets nests too (`1 + 1 + ...`, `a else b if ...`)."""
MAX_ERRORS = 20
# A file with errors is parsed again after each of them: so many characters in all.
_RECOVERY = 300_000
MAX_DIGITS = 200
EDITION = 1

# How a terminal is called in "expected ...": terminals that are not listed are not worth mentioning.
_WORDS = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
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
            "E0102", f"{name} is not UTF-8: byte {error.start} cannot be decoded", help="save it as UTF-8"
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
    return _Builder(source).file(tree)


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
    return _Builder(source)(tree)  # type: ignore[no-any-return]


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
    help_text = _syntax_help(text.strip("`"), accepts)
    label = "expected " + _either(expected) if 0 < len(expected) <= 6 else "not expected here"
    return Diagnostic("E0101", f"{text} cannot stand here", Label(span, label), help=help_text), start


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


_KEYWORDS = re.findall(
    r"\w+", "if else for in and or not true false require param output training yield default prepare with on then"
)


def _syntax_help(found: str, accepts: set[str]) -> str | None:
    """What to do about the commonest slips."""
    if accepts == {"EFFSPEC"} or "EFFSPEC" in accepts:
        return "a spec begins with the line `effspec 1`"
    if found in _KEYWORDS and "NAME" in accepts:
        return f"`{found}` is a word of the language and cannot be a name"
    if found == '"':
        return 'a text ends with `"` on the line where it begins'
    if found.startswith("'"):
        return 'strings stand in double quotes: "text"'
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


def _present(tree: Any) -> bool:
    return tree is not None


_Tree: TypeAlias = "Tree[Token]"
_N = TypeVar("_N")
_SUFFIX = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class _Builder:
    """lark's tree to our nodes: one method a rule, found by its name."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def span(self, tree: _Tree | Token) -> Span:
        if isinstance(tree, Token):
            return Span(self.source, tree.start_pos or 0, tree.end_pos or 0)
        return Span(self.source, tree.meta.start_pos, min(tree.meta.end_pos, len(self.source.text)))

    def __call__(self, tree: Any) -> Any:
        method: Callable[[_Tree], Any] = getattr(self, tree.data)
        return method(tree)

    def maybe(self, tree: Any) -> Any:
        return None if tree is None else self(tree)

    def all(self, trees: Iterable[Any]) -> tuple[Any, ...]:
        # `map` instead of a generator: one frame less for each level of the tree.
        return tuple(map(self, filter(_present, trees)))

    def file(self, tree: _Tree) -> nodes.File:
        edition, *items = tree.children
        assert isinstance(edition, Tree)
        token = edition.children[0]
        assert isinstance(token, Token)
        if str(token) != str(EDITION):
            raise fail(
                "E0105",
                f"this effspec reads edition {EDITION}, the file is written in edition {token}",
                self.span(token),
                help=f"write `effspec {EDITION}`, or use a newer effspec",
            )
        return nodes.File(self.span(tree), EDITION, self.all(items))

    # Items

    def identifier(self, tree: _Tree) -> nodes.Identifier:
        return nodes.Identifier(self.span(tree), self._name(tree.children[0]))

    def _name(self, token: Any) -> str:
        if len(token) > 64:
            raise fail("E0106", "a name has more than 64 characters", self.span(token), help="choose a shorter one")
        return str(token)

    def text(self, token: Token) -> nodes.String:
        return nodes.String(self.span(token), str(token)[1:-1])

    def import_names(self, tree: _Tree) -> nodes.Import:
        *names, path = tree.children
        return nodes.Import(self.span(tree), self.all(names), None, self.text(path))  # type: ignore[arg-type]

    def import_all(self, tree: _Tree) -> nodes.Import:
        path, alias = tree.children
        return nodes.Import(self.span(tree), (), self(alias), self.text(path))  # type: ignore[arg-type]

    def constant(self, tree: _Tree) -> nodes.Constant:
        return nodes.Constant(self.span(tree), *self.all(tree.children))

    def parameters(self, tree: _Tree) -> tuple[nodes.Parameter, ...]:
        return self.all(tree.children)

    def parameter(self, tree: _Tree) -> nodes.Parameter:
        name, default = tree.children
        return nodes.Parameter(self.span(tree), self(name), self.maybe(default))

    def fn(self, tree: _Tree) -> nodes.Fn:
        name, parameters, body = tree.children
        if not (isinstance(body, Tree) and body.data == "body"):
            return nodes.Fn(self.span(tree), self(name), self(parameters), None, (), self(body))
        inner: nodes.Body = self.body(body)
        *statements, last = inner.statements or (None,)
        if not (isinstance(last, nodes.Line) and _plain(last)):
            span = last.span if last is not None else inner.span
            raise fail(
                "E0107", f"the last line of fn {self(name).id} is not a value", span, help="end it with an expression"
            )
        for statement in statements:
            if not isinstance(statement, nodes.Bind | nodes.Require) or isinstance(
                getattr(statement, "value", None), nodes.For
            ):
                raise fail(
                    "E0107",
                    "a fn computes: only `name = value` and `require` may stand before its value",
                    statement.span,
                    help="layers and loops belong into a block",
                )
        return nodes.Fn(self.span(tree), self(name), self(parameters), inner.doc, tuple(statements), last.value)  # type: ignore[arg-type]

    def names(self, tree: _Tree) -> tuple[nodes.Identifier, ...]:
        return self.all(tree.children)

    def block(self, tree: _Tree) -> nodes.Block:
        name, parameters, on, body = tree.children
        return nodes.Block(self.span(tree), self(name), self(parameters), self.maybe(on) or (), self(body))

    def scaling(self, tree: _Tree) -> nodes.Scaling:
        name, parameters, body = tree.children
        doc, requires, hooks = None, [], []
        for line in self.all(body.children):  # type: ignore[union-attr]
            if isinstance(line, nodes.Require):
                requires.append(line)
            elif isinstance(line, nodes.Hook):
                hooks.append(line)
            else:
                doc = line
        return nodes.Scaling(self.span(tree), self(name), self(parameters), doc, tuple(requires), tuple(hooks))

    def docstring(self, tree: _Tree) -> str:
        return str(tree.children[0])[1:-1]

    def hook(self, tree: _Tree) -> nodes.Hook:
        return nodes.Hook(self.span(tree), *self.all(tree.children))

    def model(self, tree: _Tree) -> nodes.Model:
        name, parameters, scaling, *inputs, body = tree.children
        return nodes.Model(
            self.span(tree), self(name), self(parameters), self.maybe(scaling), self.all(inputs), self(body)
        )

    def model_input(self, tree: _Tree) -> nodes.ModelInput:
        return nodes.ModelInput(self.span(tree), *self.all(tree.children))

    def variant(self, tree: _Tree) -> nodes.Variant:
        name, call = self.all(tree.children)
        if not isinstance(call, nodes.Call):
            raise fail(
                "E0107", "a variant is a call of a model or of a variant", call.span, help=f"write `{call.span.text}()`"
            )
        return nodes.Variant(self.span(tree), name, call)

    def expect(self, tree: _Tree) -> nodes.Expect:
        variant, *checks = self.all(tree.children)
        return nodes.Expect(self.span(tree), variant, tuple(checks))

    # Statements

    def body(self, tree: _Tree) -> nodes.Body:
        statements = self.all(tree.children)
        match statements:
            case (nodes.Line(value=nodes.String(value=doc)) as first, *rest) if _plain(first):
                return nodes.Body(self.span(tree), doc, tuple(rest))
        return nodes.Body(self.span(tree), None, statements)

    def group(self, tree: _Tree) -> nodes.Group:
        return nodes.Group(self.span(tree), self(tree.children[0]))

    def arrow(self, tree: _Tree) -> nodes.Scaled:
        value, fixed = tree.children
        return nodes.Scaled(self.span(tree), self(value), fixed is not None)

    times = arrow

    def guard(self, tree: _Tree) -> nodes.Expr:
        return self(tree.children[0])  # type: ignore[no-any-return]

    def line(self, tree: _Tree) -> nodes.Line:
        value, arrow, times, guard = tree.children
        return nodes.Line(self.span(tree), None, self(value), self.maybe(arrow), self.maybe(times), self.maybe(guard))

    def _ternary(self, tree: _Tree, parts: list[Any]) -> nodes.Ternary:
        chosen, condition, otherwise = self.all(parts)
        return nodes.Ternary(chosen.span.to(otherwise.span), chosen, condition, otherwise)

    def ternary_line(self, tree: _Tree) -> nodes.Line:
        return nodes.Line(self.span(tree), None, self._ternary(tree, tree.children), None, None, None)

    def labelled(self, tree: _Tree) -> nodes.Line:
        label, value, arrow, times, guard = tree.children
        return nodes.Line(
            self.span(tree), self.label(label), self(value), self.maybe(arrow), self.maybe(times), self.maybe(guard)
        )

    def labelled_ternary(self, tree: _Tree) -> nodes.Line:
        label, *parts = tree.children
        return nodes.Line(self.span(tree), self.label(label), self._ternary(tree, parts), None, None, None)

    def label(self, tree: Any) -> nodes.Label:
        place = self(tree)
        indices: list[nodes.Expr] = []
        expression = place
        while isinstance(expression, nodes.Index):
            indices.insert(0, expression.index)
            expression = expression.value
        if not isinstance(expression, nodes.Name):
            raise fail("E0107", "this is not a label", place.span, help="a label is `name:` or `name[index]:`")
        return nodes.Label(place.span, expression.id, tuple(indices))

    def bind(self, tree: _Tree) -> nodes.Bind:
        return nodes.Bind(self.span(tree), *self.all(tree.children))

    def for_loop(self, tree: _Tree) -> nodes.For:
        return nodes.For(self.span(tree), *self.all(tree.children))

    def if_chain(self, tree: _Tree) -> nodes.If:
        *parts, otherwise = tree.children
        values = self.all(parts)
        pairs = tuple(zip(values[::2], values[1::2], strict=True))
        return nodes.If(self.span(tree), pairs, self.maybe(otherwise))

    def param(self, tree: _Tree) -> nodes.Param:
        name, shape, init = tree.children
        return nodes.Param(self.span(tree), self(name), self(shape), self.maybe(init))

    def default(self, tree: _Tree) -> nodes.Default:
        return nodes.Default(self.span(tree), self.all(tree.children))

    def default_entry(self, tree: _Tree) -> nodes.DefaultEntry:
        return nodes.DefaultEntry(self.span(tree), *self.all(tree.children))

    def output(self, tree: _Tree, training: bool = False) -> nodes.Output:
        name, value = tree.children
        return nodes.Output(self.span(tree), self(name), self.maybe(value), training)

    def training_output(self, tree: _Tree) -> nodes.Output:
        return self.output(tree, training=True)

    def require(self, tree: _Tree) -> nodes.Require:
        condition, message = tree.children
        return nodes.Require(self.span(tree), self(condition), self.maybe(message))

    def yield_value(self, tree: _Tree) -> nodes.Yield:
        return nodes.Yield(self.span(tree), self.maybe(tree.children[0]))

    def prepare(self, tree: _Tree) -> nodes.Prepare:
        return nodes.Prepare(self.span(tree), *self.all(tree.children))

    # Expressions

    def ternary(self, tree: _Tree) -> nodes.Ternary:
        return self._ternary(tree, tree.children)

    def pipeline(self, tree: _Tree) -> nodes.Pipe:
        source, *steps = self.all(tree.children)
        return nodes.Pipe(self.span(tree), source, tuple(steps))

    def step(self, tree: _Tree) -> nodes.Step:
        return nodes.Step(self.span(tree), None, self(tree.children[0]))

    def labelled_step(self, tree: _Tree) -> nodes.Step:
        label, layer = tree.children
        return nodes.Step(self.span(tree), self.label(label), self(layer))

    def _infix(self, tree: _Tree, kind: Callable[..., _N], op: str | None = None) -> _N:
        parts = [child for child in tree.children if isinstance(child, Tree)]
        tokens = [child for child in tree.children if isinstance(child, Token)]
        return kind(self.span(tree), op or str(tokens[0]), *self.all(parts))

    def logic_or(self, tree: _Tree) -> nodes.Logic:
        return self._infix(tree, nodes.Logic, "or")

    def logic_and(self, tree: _Tree) -> nodes.Logic:
        return self._infix(tree, nodes.Logic, "and")

    def logic_not(self, tree: _Tree) -> nodes.Unary:
        return self._infix(tree, nodes.Unary, "not")

    def negative(self, tree: _Tree) -> nodes.Expr:
        node = self._infix(tree, nodes.Unary)
        if node.op == "+":
            raise fail("E0107", "a leading `+` means nothing", node.span, help="delete it")
        return node

    def compare(self, tree: _Tree) -> nodes.Compare:
        return self._infix(tree, nodes.Compare)

    def contains(self, tree: _Tree) -> nodes.Compare:
        return self._infix(tree, nodes.Compare, "in")

    def binary(self, tree: _Tree) -> nodes.Binary:
        return self._infix(tree, nodes.Binary)

    def range_closed(self, tree: _Tree) -> nodes.Range:
        start, stop = self.all(tree.children)
        return nodes.Range(self.span(tree), start, stop, True)

    def range_open(self, tree: _Tree) -> nodes.Range:
        start, stop = self.all(tree.children)
        return nodes.Range(self.span(tree), start, stop, False)

    def from_closed(self, tree: _Tree) -> nodes.Range:
        return nodes.Range(self.span(tree), self(tree.children[0]), None, True)

    def from_open(self, tree: _Tree) -> nodes.Range:
        return nodes.Range(self.span(tree), self(tree.children[0]), None, False)

    def to_closed(self, tree: _Tree) -> nodes.Range:
        return nodes.Range(self.span(tree), None, self(tree.children[0]), True)

    def to_open(self, tree: _Tree) -> nodes.Range:
        return nodes.Range(self.span(tree), None, self(tree.children[0]), False)

    def call(self, tree: _Tree) -> nodes.Call:
        return nodes.Call(self.span(tree), *self.all(tree.children))

    def arguments(self, tree: _Tree) -> tuple[nodes.Argument, ...]:
        return self.all(tree.children)

    def argument(self, tree: _Tree) -> nodes.Argument:
        value, then = tree.children
        return nodes.Argument(self.span(tree), None, self(value), self.maybe(then))

    def named_argument(self, tree: _Tree) -> nodes.Argument:
        name, value, then = tree.children
        assert isinstance(name, Token)
        word = nodes.Identifier(self.span(name), self._name(name))
        return nodes.Argument(self.span(tree), word, self(value), self.maybe(then))

    def item(self, tree: _Tree) -> nodes.Index:
        return nodes.Index(self.span(tree), *self.all(tree.children))

    def attribute(self, tree: _Tree) -> nodes.Attribute:
        return nodes.Attribute(self.span(tree), *self.all(tree.children))

    def default_read(self, tree: _Tree) -> nodes.DefaultRead:
        return nodes.DefaultRead(self.span(tree), self(tree.children[0]).id)

    def list(self, tree: _Tree) -> nodes.List:
        return nodes.List(self.span(tree), self.all(tree.children))

    def comprehension(self, tree: _Tree) -> nodes.Comprehension:
        return nodes.Comprehension(self.span(tree), *self.all(tree.children))

    def name(self, tree: _Tree) -> nodes.Name:
        return nodes.Name(self.span(tree), self._name(tree.children[0]))

    def string(self, tree: _Tree) -> nodes.String:
        token = tree.children[0]
        assert isinstance(token, Token)
        return self.text(token)

    def boolean(self, tree: _Tree) -> nodes.Boolean:
        return nodes.Boolean(self.span(tree), str(tree.children[0]) == "true")

    def number(self, tree: _Tree) -> nodes.Number:
        return nodes.Number(self.span(tree), self._number(tree.children[0]))

    def _number(self, token: Any) -> int | Fraction:
        text = str(token).replace("_", "")
        scale = _SUFFIX.get(text[-1], 1)
        digits = text.rstrip("KMGT")
        mantissa, _, exponent = digits.lower().partition("e")
        if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > 400:
            raise fail(
                "E0108", "this number has too many digits", self.span(token), help=f"at most {MAX_DIGITS} digits"
            )
        if len(mantissa) > 1 and mantissa[0] == "0" and mantissa[1] != ".":
            raise fail(
                "E0108", f"`{token}` starts with a zero", self.span(token), help=f"write `{token.lstrip('0') or 0}`"
            )
        value = Fraction(digits) * scale
        return int(value) if value.denominator == 1 else value


def _plain(line: nodes.Line) -> bool:
    """Whether a line is an expression and nothing else."""
    extras = (line.label, line.out, line.repeats, line.guard)
    return extras == (None,) * 4 and not isinstance(line.value, nodes.Group)


if __name__ == "__main__":
    from pathlib import Path

    target = Path(str(files("effspec.grammars").joinpath("effspec.tables.json")))
    target.write_text(serialised(), encoding="utf-8")
    print(f"wrote {target.name}")
