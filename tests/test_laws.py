"""Laws of the text: `parse(write(tree))` is the tree; formatting keeps meaning and comments, and is idempotent."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from effspec.diagnostics import Source, Span
from effspec.syntax import nodes
from effspec.syntax.format import _lines, format_text, same
from effspec.syntax.parser import parse
from effspec.syntax.write import number, write

ROOT = Path(__file__).parent.parent
SPECS = sorted([*(ROOT / "specs").rglob("*.eff"), *(ROOT / "tests" / "examples").glob("*.eff")])
SMALL = [path for path in SPECS if path.stat().st_size < 2500]
NOWHERE = Span(Source("nowhere", ""), 0, 0)


def law(examples: int) -> settings:
    """So many examples; a failure is shrunk, not explained (which takes minutes)."""
    phases = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
    return settings(max_examples=examples, deadline=None, phases=phases)


def node(kind: type, *children: st.SearchStrategy) -> st.SearchStrategy:  # type: ignore[type-arg]
    return st.builds(kind, st.just(NOWHERE), *children)


def many(item: st.SearchStrategy, least: int = 0, most: int = 3) -> st.SearchStrategy:  # type: ignore[type-arg]
    return st.lists(item, min_size=least, max_size=most).map(tuple)


# `x`, `fixed`, `block` and the like are keywords in some places only, and names in others.
WORDS = st.sampled_from(
    ["a", "b", "x", "it", "input", "at", "fixed", "block", "model", "from", "as", "taps", "_", "e3"]
)
IDENTIFIERS = node(nodes.Identifier, WORDS)
DECIMALS = st.builds(lambda digits, places: Fraction(digits, 10**places), st.integers(0, 10**12), st.integers(0, 40))
NUMBERS = st.one_of(st.integers(0, 10**40), DECIMALS).map(lambda n: int(n) if Fraction(n).denominator == 1 else n)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"'), max_size=8)
ATOMS = st.one_of(
    node(nodes.Number, NUMBERS),
    node(nodes.Boolean, st.booleans()),
    node(nodes.String, TEXTS),
    node(nodes.Name, WORDS),
    node(nodes.DefaultRead, WORDS),
)


def label(expression: st.SearchStrategy) -> st.SearchStrategy:  # type: ignore[type-arg]
    return node(nodes.Label, WORDS, many(expression, most=2))


def compound(inner: st.SearchStrategy) -> st.SearchStrategy:  # type: ignore[type-arg]
    maybe = st.none() | inner
    argument = node(nodes.Argument, st.none() | IDENTIFIERS, inner, maybe)
    steps = many(node(nodes.Step, st.none() | label(inner), inner), least=1)
    cut = node(nodes.Range, inner, st.none(), st.booleans()) | node(nodes.Range, st.none(), inner, st.booleans())
    return st.one_of(
        node(nodes.List, many(inner)),
        node(nodes.Comprehension, inner, many(IDENTIFIERS, least=1), inner),
        node(nodes.Range, inner, inner, st.booleans()),
        node(nodes.Call, inner, many(argument)),
        node(nodes.Index, inner, inner | cut),
        node(nodes.Attribute, inner, IDENTIFIERS),
        node(nodes.Unary, st.sampled_from(["-", "not"]), inner),
        node(nodes.Binary, st.sampled_from(["+", "-", "*", "/", "//", "%", "**"]), inner, inner),
        node(nodes.Compare, st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in"]), inner, inner),
        node(nodes.Logic, st.sampled_from(["and", "or"]), inner, inner),
        node(nodes.Ternary, inner, inner, inner),
        node(nodes.Pipe, inner, steps),
    )


# Deferred, as the printed form of a strategy that holds it so often would be megabytes.
EXPRESSIONS = st.deferred(lambda: st.recursive(ATOMS, compound, max_leaves=8))
SCALED = st.none() | node(nodes.Scaled, EXPRESSIONS, st.booleans())
SIMPLE = st.one_of(
    # A text alone as the first statement is documentation, so lines here are not texts.
    node(
        nodes.Line, st.none() | label(ATOMS), node(nodes.Name, WORDS) | EXPRESSIONS, SCALED, SCALED, st.none() | ATOMS
    ),
    node(nodes.Bind, many(IDENTIFIERS, least=1), EXPRESSIONS),
    node(nodes.Param, IDENTIFIERS, EXPRESSIONS, st.none() | EXPRESSIONS),
    node(nodes.Default, many(node(nodes.DefaultEntry, IDENTIFIERS, EXPRESSIONS), least=1)),
    node(nodes.Output, IDENTIFIERS, st.none() | EXPRESSIONS, st.booleans()),
    node(nodes.Require, EXPRESSIONS, st.none() | EXPRESSIONS),
    node(nodes.Yield, st.none() | EXPRESSIONS),
)


def body(statement: st.SearchStrategy) -> st.SearchStrategy:  # type: ignore[type-arg]
    return node(nodes.Body, TEXTS, many(statement))


def nested(inner: st.SearchStrategy) -> st.SearchStrategy:  # type: ignore[type-arg]
    braces = body(inner)
    loop = node(nodes.For, many(IDENTIFIERS, least=1), ATOMS, braces)
    branch = node(nodes.Pipe, ATOMS, many(node(nodes.Step, label(ATOMS), node(nodes.Group, braces)), least=1))
    return st.one_of(
        loop,
        node(nodes.Bind, many(IDENTIFIERS, least=1), loop),
        node(nodes.If, many(st.tuples(ATOMS, braces), least=1), st.none() | braces),
        node(nodes.Line, label(ATOMS), node(nodes.Group, braces), SCALED, SCALED, st.none() | ATOMS),
        node(nodes.Line, st.none(), branch, st.none(), st.none(), st.none()),
    )


STATEMENTS = st.deferred(lambda: st.recursive(SIMPLE, nested, max_leaves=4))
PARAMETERS = many(node(nodes.Parameter, IDENTIFIERS, st.none() | EXPRESSIONS))
BLOCKS = node(nodes.Block, IDENTIFIERS, PARAMETERS, many(IDENTIFIERS), body(STATEMENTS))


def parsed(text: str) -> nodes.File:
    return parse(Source("law.eff", text))


@law(150)
@given(EXPRESSIONS)
def test_expressions_are_written_as_they_are_read(tree: nodes.Expr) -> None:
    (item,) = parsed(f"effspec 1\nvalue = {write(tree)}\n").items
    assert isinstance(item, nodes.Constant)
    assert same(item.value, tree)


@law(50)
@given(BLOCKS)
def test_blocks_are_written_as_they_are_read(tree: nodes.Block) -> None:
    text = f"effspec 1\n{write(tree)}\n"
    (item,) = parsed(text).items
    assert same(item, tree)
    # What is written is laid out canonically already.
    assert format_text(Source("law.eff", text)) == text


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_specs(path: Path) -> None:
    source = Source(path.name, path.read_text(encoding="utf-8"))
    tree = parse(source)
    assert same(parsed(write(tree)), tree)
    assert format_text(source) == source.text, f"effspec fmt {path}"


@law(25)
@given(st.data())
def test_layout_does_not_depend_on_blanks(data: st.DataObject) -> None:
    """Blanks, indentation, empty lines and comments are changed at random: the meaning stays, and formatting twice is
    formatting once."""
    source = data.draw(st.sampled_from(SMALL)).read_text(encoding="utf-8")
    lines = []
    for line in _lines(source):
        text = " " * data.draw(st.integers(0, 9)) if line else ""
        for position, token in enumerate(line):
            least = 1 if position and (token.gap or token.kind == "comment") else 0
            text += " " * (least + data.draw(st.sampled_from([0, 0, 0, 1, 3]))) * (position > 0) + token.text
        lines.append(text + data.draw(st.sampled_from(["", "", "", "  ", "\t", "\n", "\n\n", "   # why"])))
    changed = Source("changed.eff", "\n".join(lines))
    text = format_text(changed)
    assert same(parsed(text), parsed(source))
    assert format_text(Source("again.eff", text)) == text
    assert "\n\n\n" not in text and not any(line.endswith(" ") for line in text.split("\n"))


@given(DECIMALS | st.integers(0, 10**60))
def test_numbers(value: Fraction | int) -> None:
    (item,) = parsed(f"effspec 1\nvalue = {number(value)}\n").items
    assert isinstance(item, nodes.Constant) and isinstance(item.value, nodes.Number)
    assert item.value.value == value


def test_layout() -> None:
    text = (
        "effspec 1\n\n\n\nblock A( out,k=3 ){\n  # first\nconv( out , k = k ) x(2+1)   if  out>- 1\n"
        "  y = [it ,\n     input]|>concat( )   # aligned\n\n\n  y\n      }\n# end\n\n"
    )
    assert format_text(Source("layout.eff", text)) == (
        "effspec 1\n\nblock A(out, k = 3) {\n    # first\n    conv(out, k = k) x (2 + 1)   if  out > -1\n"
        "    y = [it,\n       input] |> concat()   # aligned\n\n    y\n}\n# end\n"
    )
