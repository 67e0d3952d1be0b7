"""Reading text: what is decoded, what the tree says of its places, and what is refused before it costs anything."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from effspec.diagnostics import EffspecError, Source
from effspec.syntax import nodes
from effspec.syntax.parser import MAX_BYTES, decode, parse, parse_expression

HEAD = "effspec 1\n"


def codes(error: pytest.ExceptionInfo[EffspecError]) -> list[str]:
    return [problem.code for problem in error.value.diagnostics]


def value(text: str) -> nodes.Expr:
    (item,) = parse(Source("x.eff", f"{HEAD}a = {text}\n")).items
    assert isinstance(item, nodes.Constant)
    return item.value


@pytest.mark.parametrize("data", [b"\xff", b"effspec 1\xc3", "effspec 1".encode("utf-16"), b"\xed\xa0\x80"])
def test_only_utf8(data: bytes) -> None:
    with pytest.raises(EffspecError, match=r"is not UTF-8: byte \d+") as error:
        decode(data, "x.eff")
    assert codes(error) == ["E0102"]


@pytest.mark.parametrize(
    "character",
    ["\0", "\x0b", "\x0c", "\r", "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\u061c", "\u200b"],
)
@pytest.mark.parametrize("place", ['a = "{}"\n', "# {}\n", "a = 1 {}\n"])
def test_characters_that_do_not_show(character: str, place: str) -> None:
    with pytest.raises(EffspecError, match=f"U\\+{ord(character):04X} is not allowed") as error:
        decode((HEAD + place.format(character + " ")).encode(), "x.eff")
    assert codes(error) == ["E0102"]
    assert error.value.diagnostics[0].primary is not None
    assert error.value.diagnostics[0].primary.span.line == 2


def test_line_ends_and_byte_order_mark() -> None:
    plain = decode(b"effspec 1\na = 1\n", "x.eff")
    assert decode(b"effspec 1\r\na = 1\r\n", "x.eff").text == plain.text
    assert decode(b"\xef\xbb\xbfeffspec 1\na = 1\n", "x.eff").text == plain.text
    with pytest.raises(EffspecError):
        decode(b"\xef\xbb\xbf\xef\xbb\xbfeffspec 1\n", "x.eff")


def test_too_large() -> None:
    with pytest.raises(EffspecError) as error:
        decode(b"#" * (MAX_BYTES + 1), "x.eff")
    assert codes(error) == ["E0103"]


@pytest.mark.parametrize("text", ["\u0430 = 1", "\ufb01lter = 1", "\u212aelvin = 1", "a = \u0663", "a = 1\u00a0"])
def test_only_ascii_outside_texts_and_comments(text: str) -> None:
    with pytest.raises(EffspecError) as error:
        parse(Source("x.eff", f"{HEAD}{text}\n"))
    assert codes(error)[0] == "E0101"
    parse(Source("x.eff", f'{HEAD}a = "\u0430 \u00e9" # \u0430\n'))


@pytest.mark.parametrize(
    "text",
    [
        *("(" * 100_000, "a = " + "[" * 65 + "]" * 65, "a = " + "-" * 100_000 + "1", "a = " + "not " * 60_000 + "true"),
        *("a = " + "1 + " * n + "1" for n in (200, 5_000, 100_000)),
        *(
            "a = f" + "()" * 100_000,
            "a = f" + ".x" * 100_000,
            "a = f" + "[0]" * 60_000,
            "a = " + "2 ** " * 60_000 + "1",
        ),
        *("a = " + "1 if a else " * 60_000 + "1", "block A() { " + "if a { " * 65 + "}" * 66, "a = 1\n" * 100_000),
        *('a = "' + "x" * 1_000_000, "a = " + "x" * 1_000_000, "a = " + "9" * 5_000, "a = = 1\n" * 50_000),
        *("block A() { it " + "|> relu() " * 50_000 + "}", ";" * 500_000 + "=", "a = f(" + "1, " * 100_000 + ")"),
    ],
    ids=lambda text: text[:24],
)
def test_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(EffspecError) as error:
        parse(Source("x.eff", HEAD + text))
    assert time.process_time() - start < 3
    assert set(codes(error)) <= {"E0101", "E0103", "E0104", "E0106", "E0108"}
    assert len(str(error.value)) < 20_000


def test_deep_but_legal() -> None:
    """What the limits allow neither overflows the parser nor what walks its tree."""
    for text in ("(" * 64 + "1" + ")" * 64, "[" * 64 + "]" * 64, "f(" * 48 + "1" + ")" * 48, "1 + " * 144 + "1"):
        tree = parse(Source("x.eff", f"{HEAD}a = {text}\n"))
        assert sum(1 for _ in nodes.descend(tree)) >= 2
    braces = "a: { " * 46 + "relu()" + " }" * 46
    parse(Source("x.eff", f"{HEAD}block A() {{ {braces} }}\n"))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        ("1_000", 1000),
        ("0.25", Fraction(1, 4)),
        ("1e-3", Fraction(1, 1000)),
        ("1E3", 1000),
        ("1.50", Fraction(3, 2)),
        ("4K", 4000),
        ("0.38G", 380_000_000),
        ("1.5M", 1_500_000),
        ("2T", 2 * 10**12),
        ("0", 0),
        ("2.0", 2),
        ("1e2K", 10**5),
    ],
)
def test_numbers(text: str, number: int | Fraction) -> None:
    found = value(text)
    assert isinstance(found, nodes.Number)
    assert found.value == number and type(found.value) is type(number)


@pytest.mark.parametrize(
    "text", ["08", "1e401", "00", "1_", "1__0", ".5", "5.", "0x1", "1e", "1,5", "1k", "inf nan", "1 2"]
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(EffspecError):
        value(text)


def test_precedence() -> None:
    def shape(node: nodes.Expr) -> str:
        match node:
            case nodes.Binary() | nodes.Logic() | nodes.Compare():
                return f"({shape(node.left)} {node.op} {shape(node.right)})"
            case nodes.Unary():
                return f"({node.op} {shape(node.operand)})"
            case nodes.Range():
                assert node.start is not None and node.stop is not None
                return f"({shape(node.start)} .. {shape(node.stop)})"
            case nodes.Ternary():
                return f"({shape(node.chosen)} if {shape(node.condition)} else {shape(node.otherwise)})"
        return node.span.text

    # As Python groups them; a range binds tighter than a comparison and looser than a sum.
    assert shape(value("a + b * c - d")) == "((a + (b * c)) - d)"
    assert shape(value("-a ** -b ** c")) == "(- (a ** (- (b ** c))))"
    assert shape(value("not a == b and c or d")) == "(((not (a == b)) and c) or d)"
    assert shape(value("a in b + c .. d * 2")) == "(a in ((b + c) .. (d * 2)))"
    assert shape(value("a if b or c else d if e else f")) == "(a if (b or c) else (d if e else f))"
    assert shape(value("a // b % c / d")) == "(((a // b) % c) / d)"


def test_places() -> None:
    text = f"{HEAD}\nblock A(out) {{\n    conv(out,\n         k = 3)   # why\n}}\n"
    tree = parse(Source("x.eff", text))
    call = next(node for node in nodes.descend(tree) if isinstance(node, nodes.Call))
    assert call.span.text == "conv(out,\n         k = 3)"
    assert call.span.place == "x.eff:4"
    assert call.arguments[1].span.text == "k = 3"


def test_every_mistake_is_reported() -> None:
    text = f"{HEAD}block A(out) {{\n    conv(out k)\n    relu()\n    conv(= 3)\n}}\nfn f(n) = = n\nb = 2\n"
    with pytest.raises(EffspecError) as error:
        parse(Source("x.eff", text))
    places = [problem.primary.span.line for problem in error.value.diagnostics if problem.primary]
    assert places == [3, 5, 7]


def test_what_cannot_be_read_by_itself_ends_the_reading() -> None:
    with pytest.raises(EffspecError) as error:
        parse(Source("x.eff", f"{HEAD}a = [1\nb = 2]\nc = 3\n"))
    assert len(codes(error)) == 1
    with pytest.raises(EffspecError, match="a spec begins with the line `effspec 1`") as error:
        parse(Source("x.eff", "a = 1\nb = 2\n"))
    assert len(codes(error)) == 1


@pytest.mark.parametrize("text", ["1", "[1, 2]", '"half"', "true", "1.5 ** 2", "relu6", "f(1)"])
def test_expressions_alone(text: str) -> None:
    line = f"--set x={text}"
    found = parse_expression(Source("command line", line), len("--set x="), len(line))
    assert found.span.text == text


@pytest.mark.parametrize("text", ["", "1 2", "a = 1", "1)", "'x'", "1; 2"])
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(EffspecError):
        parse_expression(Source("command line", text), 0, len(text))
